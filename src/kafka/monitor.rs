//! Hears librdkafka: its log lines go to tracing, its errors are counted, and trouble is told once instead of on
//! every attempt to reconnect.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::error::Error;
use super::events::Events;

/// Shared by all callbacks of one client. Clones hear the same client.
#[derive(Clone)]
pub struct Monitor {
    brokers: Arc<str>,
    events: Arc<dyn Events>,
    heard: Arc<Mutex<Heard>>,
}

/// The latest reason for each kind of trouble since the connection last worked.
#[derive(Default)]
struct Heard {
    host: Option<String>,
    tls: Option<String>,
    credentials: Option<String>,
    transport: Option<String>,
    all_down: bool,
    /// Whether the connection ever worked. Until then whoever opens the client tells what is wrong, once.
    known: bool,
    /// Codes of which a warning was logged; cleared once the connection works.
    told: Vec<RDKafkaErrorCode>,
    /// Text of the newest error about data, which names the partition that the error itself does not carry.
    reason: String,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl Monitor {
    /// A monitor for the client of these brokers.
    pub fn new(brokers: &str, events: Arc<dyn Events>) -> Monitor {
        Monitor { brokers: brokers.into(), events, heard: Arc::default() }
    }

    /// `bootstrap.servers`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Where this client's events go.
    pub fn events(&self) -> &Arc<dyn Events> {
        &self.events
    }

    /// The connection works: what was told about it may be told again.
    pub fn reached(&self) {
        let mut heard = self.heard();
        if !heard.told.is_empty() {
            tracing::info!(brokers = %self.brokers, "kafka connection works again");
        }
        *heard = Heard { known: true, ..Heard::default() };
    }

    /// Newest text that librdkafka gave with an error.
    pub fn reason(&self) -> String {
        self.heard().reason.clone()
    }

    /// What is known to be wrong beyond doubt: repeating would not help. `None` while there is hope.
    pub(super) fn verdict(&self) -> Option<Error> {
        let heard = self.heard();
        let brokers = self.brokers.to_string();
        if let Some(reason) = heard.credentials.clone() {
            return Some(Error::Authentication { brokers, reason });
        }
        // One of several bootstrap brokers may be wrong without harm, so these count only when all are down.
        if !heard.all_down {
            return None;
        }
        match (&heard.tls, &heard.host) {
            (Some(reason), _) => Some(Error::Tls { brokers, reason: reason.clone() }),
            (_, Some(reason)) => Some(Error::UnknownHost { brokers, reason: reason.clone() }),
            _ => None,
        }
    }

    /// What to say when time is up.
    pub(super) fn unreachable(&self, waited_s: u64) -> Error {
        let reason = self.heard().transport.clone().unwrap_or_else(|| "no connection".to_owned());
        Error::Unreachable { brokers: self.brokers.to_string(), waited_s, reason }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    /// Files an error away; returns whether it is about the connection.
    fn note(&mut self, code: RDKafkaErrorCode, reason: &str) -> bool {
        use RDKafkaErrorCode as Code;
        let reason = short(reason);
        match code {
            Code::Resolve => self.host = Some(reason),
            Code::SSL => self.tls = Some(reason),
            Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
                self.credentials = Some(reason);
            }
            Code::BrokerTransportFailure | Code::OperationTimedOut => self.transport = Some(reason),
            Code::AllBrokersDown => self.all_down = true,
            _ => {
                self.reason = reason;
                return false;
            }
        }
        true
    }

    /// Whether this code was not told yet.
    fn tell(&mut self, code: RDKafkaErrorCode) -> bool {
        let first = !self.told.contains(&code);
        if first {
            self.told.push(code);
        }
        first
    }
}

/// librdkafka begins with the thread's or broker's name and ends with how long it tried: neither helps.
fn short(reason: &str) -> String {
    let text = reason.split_once(": ").filter(|(head, _)| head.contains("/bootstrap") || head.starts_with("ssl://"));
    let text = text.map_or(reason, |(_, tail)| tail);
    text.split(" (after ").next().unwrap_or(text).trim().to_owned()
}

impl ClientContext for Monitor {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel as Level;
        // These repeat what `error` hears, on every attempt.
        let repeats = matches!(facility, "FAIL" | "ERROR" | "CONFWARN");
        match level {
            _ if repeats => tracing::debug!(target: "librdkafka", facility, "{message}"),
            Level::Emerg | Level::Alert | Level::Critical | Level::Error => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            Level::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
            Level::Notice | Level::Info => tracing::info!(target: "librdkafka", facility, "{message}"),
            Level::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        let Some(code) = error.rdkafka_error_code() else { return };
        if code == Code::PartitionEOF {
            return;
        }
        self.events.failed(&format!("{code:?}"));
        let mut heard = self.heard();
        let connection = heard.note(code, reason);
        // A single broker that closes an idle connection is no news; all of them gone is.
        let quiet =
            matches!(code, Code::BrokerTransportFailure | Code::OperationTimedOut) || (connection && !heard.known);
        if quiet || !heard.tell(code) {
            tracing::debug!(brokers = %self.brokers, code = ?code, reason, "kafka error");
        } else if connection {
            let last = heard.transport.as_deref().unwrap_or(reason);
            tracing::warn!(brokers = %self.brokers, code = ?code, reason, last, "kafka connection in trouble, trying on");
        } else {
            tracing::warn!(brokers = %self.brokers, code = ?code, reason, "kafka error");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Silent;

    fn monitor() -> Monitor {
        Monitor::new("a:1", Arc::new(Silent))
    }

    fn fail(monitor: &Monitor, code: RDKafkaErrorCode, reason: &str) {
        monitor.error(KafkaError::Global(code), reason);
    }

    #[test]
    fn refused_credentials_are_certain_at_once() {
        let monitor = monitor();
        fail(
            &monitor,
            RDKafkaErrorCode::Authentication,
            "sasl_ssl://a:1/bootstrap: SASL: nope (after 3ms in state AUTH)",
        );
        let verdict = monitor.verdict();
        let expected = Error::Authentication { brokers: "a:1".into(), reason: "SASL: nope".into() };
        assert_eq!(verdict, Some(expected));
    }

    #[test]
    fn one_unknown_host_among_others_is_no_verdict() {
        let monitor = monitor();
        fail(&monitor, RDKafkaErrorCode::Resolve, "unknown");
        assert_eq!(monitor.verdict(), None);
        fail(&monitor, RDKafkaErrorCode::AllBrokersDown, "all down");
        assert!(matches!(monitor.verdict(), Some(Error::UnknownHost { .. })));
    }

    #[test]
    fn trouble_is_forgotten_once_the_connection_works() {
        let monitor = monitor();
        fail(&monitor, RDKafkaErrorCode::SSL, "bad certificate");
        fail(&monitor, RDKafkaErrorCode::AllBrokersDown, "all down");
        assert!(matches!(monitor.verdict(), Some(Error::Tls { .. })));
        monitor.reached();
        assert_eq!(monitor.verdict(), None);
    }
}
