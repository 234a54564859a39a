//! librdkafka's properties: our defaults, the user's over them, secrets only from files or the environment.
//!
//! Three ways lead to a value: `name=value` (an address's option or the configuration file), `name.file=PATH` and
//! `name.env=VARIABLE`. A secret can come by the last two only. Where nothing is given, `sasl.username` and
//! `sasl.password` are also looked up as `KUBETIDE_KAFKA_SASL_USERNAME` and `KUBETIDE_KAFKA_SASL_PASSWORD`.
//!
//! | service | properties |
//! |---|---|
//! | Azure Event Hubs | `sasl.username=$ConnectionString`, `sasl.password.file=…` (the connection string); the rest follows |
//! | Amazon MSK with SCRAM | `sasl.username=…`, `sasl.password.file=…` |
//! | TLS only | `security.protocol=SSL`, a client certificate by `ssl.certificate.location` and `ssl.key.location` |

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::error::Error;

/// Properties whose value never stands in an address or a configuration file.
pub const SECRETS: [&str; 7] = [
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
];

/// User name that Azure Event Hubs expects with a connection string.
const EVENT_HUBS_USER: &str = "$ConnectionString";

/// A checked set of properties for one client.
#[derive(Clone, Default)]
pub struct Properties(BTreeMap<String, String>);

impl std::fmt::Debug for Properties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.0.iter().map(|(k, v)| (k, if SECRETS.contains(&k.as_str()) { "…" } else { v.as_str() }));
        f.debug_map().entries(shown).finish()
    }
}

impl Properties {
    /// Takes what the user gives, resolving files and variables, and fills in what TLS and SASL need.
    ///
    /// # Errors
    /// A secret given in the open, a file that cannot be read, a variable that is not set.
    pub fn new(brokers: &str, given: &[(String, String)]) -> Result<Properties, Error> {
        Properties::with_environment(brokers, given, |name| std::env::var(name).ok())
    }

    fn with_environment(
        brokers: &str,
        given: &[(String, String)],
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Properties, Error> {
        let mut map = BTreeMap::new();
        for (name, value) in given {
            let (name, value) = resolve(name, value, &environment)?;
            map.insert(name, value);
        }
        for (name, variable) in
            [("sasl.username", "KUBETIDE_KAFKA_SASL_USERNAME"), ("sasl.password", "KUBETIDE_KAFKA_SASL_PASSWORD")]
        {
            if let (false, Some(value)) = (map.contains_key(name), environment(variable)) {
                map.insert(name.to_owned(), value);
            }
        }
        map.insert("bootstrap.servers".to_owned(), brokers.to_owned());
        let mut properties = Properties(map);
        properties.fill_security();
        properties.set_default("client.id", "kubetide");
        properties.set_default("socket.keepalive.enable", "true");
        Ok(properties)
    }

    /// Properties of a producer that loses nothing and repeats nothing.
    ///
    /// # Errors
    /// As [`Properties::new`], and a property that delivery rests on was given another value.
    pub fn for_producer(brokers: &str, given: &[(String, String)]) -> Result<Properties, Error> {
        let mut properties = Properties::new(brokers, given)?;
        properties.require("enable.idempotence", "true", "a repeated record would be an alert twice")?;
        properties.set_default("acks", "all");
        // Azure Event Hubs, which this user name is the mark of, does not take zstd.
        let event_hubs = properties.get("sasl.username") == Some(EVENT_HUBS_USER);
        properties.set_default("compression.type", if event_hubs { "none" } else { "zstd" });
        properties.set_default("linger.ms", "5");
        // Java's choice of partition, so that other producers put the same key into the same partition.
        properties.set_default("partitioner", "murmur2_random");
        properties.set_default("queue.buffering.max.kbytes", "32768");
        // Without limit: giving up would lose the record, as its input may be committed by then.
        if properties.get("delivery.timeout.ms").is_none() {
            properties.set_default("message.timeout.ms", "0");
        }
        Ok(properties)
    }

    /// Value of a property.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Gives a property a value unless the user did.
    pub fn set_default(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// Gives a property the one value that we work with; a user's other value is refused, not silently replaced.
    ///
    /// # Errors
    /// The user gave another value.
    pub fn require(&mut self, name: &str, value: &str, why: &str) -> Result<(), Error> {
        match self.0.insert(name.to_owned(), value.to_owned()) {
            Some(given) if given != value => Err(Error::Property {
                property: name.to_owned(),
                problem: format!("has to be `{value}`, not `{given}`: {why}"),
            }),
            _ => Ok(()),
        }
    }

    /// For the client library.
    pub(crate) fn to_config(&self) -> ClientConfig {
        let mut config: ClientConfig = self.0.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        // What librdkafka says goes to tracing, whose filter decides; debug contexts are off unless asked for.
        config.set_log_level(if self.get("debug").is_some() { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        config
    }

    /// Credentials without a protocol mean SASL over TLS; the library's own default would send them in the clear.
    fn fill_security(&mut self) {
        if let Some(user) = self.get("sasl.username").map(str::to_owned) {
            self.set_default("security.protocol", "SASL_SSL");
            let named = self.get("sasl.mechanisms").is_some();
            if !named {
                self.set_default("sasl.mechanism", if user == EVENT_HUBS_USER { "PLAIN" } else { "SCRAM-SHA-512" });
            }
            if user == EVENT_HUBS_USER {
                // Its front end drops idle connections after four minutes.
                self.set_default("metadata.max.age.ms", "180000");
                self.set_default("connections.max.idle.ms", "180000");
            }
        }
        let tls = self.get("security.protocol").is_some_and(|p| p.to_ascii_uppercase().ends_with("SSL"));
        let authorities = ["ssl.ca.location", "ssl.ca.pem"].iter().any(|name| self.get(name).is_some());
        if tls && !authorities {
            // OpenSSL is built in and has no path of its own: look where distributions keep theirs.
            self.set_default("ssl.ca.location", "probe");
        }
    }
}

/// One given property, its file or variable read.
fn resolve(name: &str, value: &str, environment: impl Fn(&str) -> Option<String>) -> Result<(String, String), Error> {
    let fail = |property: &str, problem: String| Error::Property { property: property.to_owned(), problem };
    if let Some(property) = name.strip_suffix(".file") {
        let text = std::fs::read_to_string(value).map_err(|e| fail(name, format!("cannot read `{value}`: {e}")))?;
        return Ok((property.to_owned(), text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    if let Some(property) = name.strip_suffix(".env") {
        let text = environment(value).ok_or_else(|| fail(name, format!("variable `{value}` is not set")))?;
        return Ok((property.to_owned(), text));
    }
    if SECRETS.contains(&name) {
        let problem = format!("a secret does not belong here; put it into a file and write {name}.file=PATH");
        return Err(fail(name, problem));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn make(pairs: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Properties, Error> {
        let find = |name: &str| environment.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        Properties::with_environment("a:1", &given(pairs), find)
    }

    #[test]
    fn secrets_come_from_files_or_the_environment_only() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "from file\n").expect("writable");
        let path = file.path().to_string_lossy().into_owned();
        let properties = make(&[("sasl.password.file", &path)], &[]).expect("good");
        assert_eq!(properties.get("sasl.password"), Some("from file"));
        let properties = make(&[("sasl.password.env", "P")], &[("P", "from env")]).expect("good");
        assert_eq!(properties.get("sasl.password"), Some("from env"));
        let error = make(&[("sasl.password", "hunter2")], &[]).expect_err("in the open").to_string();
        assert!(error.contains("sasl.password.file=PATH") && !error.contains("hunter2"), "{error}");
        let error = make(&[("sasl.password.env", "P")], &[]).expect_err("not set").to_string();
        assert!(error.contains("`P` is not set"), "{error}");
    }

    #[test]
    fn credentials_mean_sasl_over_tls() {
        let properties = make(&[("sasl.username", "u")], &[("KUBETIDE_KAFKA_SASL_PASSWORD", "p")]).expect("good");
        assert_eq!(properties.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(properties.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert_eq!(properties.get("sasl.password"), Some("p"));
        assert_eq!(properties.get("ssl.ca.location"), Some("probe"));
        let hubs = make(&[("sasl.username", "$ConnectionString")], &[]).expect("good");
        assert_eq!(hubs.get("sasl.mechanism"), Some("PLAIN"));
        let plain = make(&[], &[]).expect("good");
        assert_eq!(plain.get("security.protocol"), None);
    }

    #[test]
    fn a_property_we_depend_on_cannot_be_changed() {
        let mut properties = make(&[("enable.auto.commit", "true")], &[]).expect("good");
        let error = properties.require("enable.auto.commit", "false", "we commit").expect_err("refused").to_string();
        assert!(error.contains("has to be `false`, not `true`"), "{error}");
    }

    #[test]
    fn debug_output_hides_secrets() {
        let properties = make(&[("sasl.password.env", "P")], &[("P", "hunter2")]).expect("good");
        assert!(!format!("{properties:?}").contains("hunter2"));
    }

    #[test]
    fn librdkafka_names_the_unknown_property() {
        let properties = make(&[("no.such.thing", "1")], &[]).expect("not checked yet");
        let created = properties.to_config().create::<rdkafka::consumer::BaseConsumer>();
        let error = created.map(|_| ()).map_err(Error::of_creation).expect_err("unknown").to_string();
        assert!(error.contains("no.such.thing"), "{error}");
    }
}
