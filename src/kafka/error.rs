//! What can be wrong with a broker, in the words of whoever has to mend it.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Why a topic cannot be used. Every text says what was tried and what to check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A property is unknown, has a bad value, or is a secret written where others can read it.
    #[error("kafka property `{property}`: {problem}")]
    Property { property: String, problem: String },

    /// No name server knows the host.
    #[error("no broker at {brokers}: the host name is unknown ({reason}); check the address and the name service")]
    UnknownHost { brokers: String, reason: String },

    /// Nothing answers in time.
    #[error(
        "no broker answers at {brokers} within {waited_s} s ({reason}); check that it runs, the port, the firewall, \
         and whether the port wants TLS (security.protocol=SSL or SASL_SSL)"
    )]
    Unreachable { brokers: String, waited_s: u64, reason: String },

    /// The broker refuses the user.
    #[error(
        "the broker at {brokers} refuses the credentials ({reason}); check sasl.username, the password's file or \
         variable, and that sasl.mechanism is the one the user was made for"
    )]
    Authentication { brokers: String, reason: String },

    /// No encrypted connection comes about.
    #[error(
        "no TLS connection to {brokers} ({reason}); check ssl.ca.location, that the certificate names this host, \
         and that the port speaks TLS"
    )]
    Tls { brokers: String, reason: String },

    /// The topic does not exist.
    #[error("topic `{topic}` does not exist on {brokers}{hint}; create it or mend its name")]
    MissingTopic { brokers: String, topic: String, hint: String },

    /// The user may not do this.
    #[error("{what} is not authorised on {brokers}; grant the user {needed}")]
    NotAuthorised { brokers: String, what: String, needed: &'static str },

    /// Another process runs under the same static name.
    #[error(
        "another instance uses the same group.instance.id; give every instance of a group its own \
         (the ordinal of its StatefulSet pod)"
    )]
    Fenced,

    /// The client library cannot go on; a restart mends what a restart can.
    #[error("the kafka client failed for good: {reason}")]
    Fatal { reason: String },
}

impl Error {
    /// Whether the configuration (rather than the network or the broker) is to blame.
    pub fn is_users(&self) -> bool {
        !matches!(self, Error::Unreachable { .. } | Error::Fatal { .. })
    }

    /// What `create` of a client complains about.
    pub(crate) fn of_creation(error: KafkaError) -> Error {
        match error {
            KafkaError::ClientConfig(_, problem, property, _) => Error::Property { property, problem },
            KafkaError::ClientCreation(problem) => {
                // librdkafka names the property in its sentence, in backquotes or bare.
                let property = problem.split('`').nth(1).unwrap_or("combination").to_owned();
                Error::Property { property, problem }
            }
            other => Error::Fatal { reason: other.to_string() },
        }
    }

    /// What an error of a running client means: `None` where the client mends it by itself.
    pub fn of_run(error: &KafkaError, brokers: &str) -> Option<Error> {
        use RDKafkaErrorCode as Code;
        let refused =
            |what: &str, needed| Error::NotAuthorised { brokers: brokers.to_owned(), what: what.to_owned(), needed };
        let code = error.rdkafka_error_code()?;
        match code {
            Code::GroupAuthorizationFailed => Some(refused("the consumer group", "READ on the group")),
            Code::TopicAuthorizationFailed => Some(refused("the topic", "READ (source) or WRITE (sink) on the topic")),
            Code::ClusterAuthorizationFailed => Some(refused("the operation", "IDEMPOTENT_WRITE on the cluster")),
            Code::FencedInstanceId | Code::Fenced => Some(Error::Fenced),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) || code == Code::Fatal => {
                Some(Error::Fatal { reason: code.to_string() })
            }
            _ => None,
        }
    }
}
