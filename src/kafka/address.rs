//! `kafka://host:port[,host:port]/topic[,topic]?option=value&…`

use std::str::FromStr;

/// Brokers, topics and options as written, percent-decoded. What an option means is decided by who uses the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `host:port[,host:port]`, as `bootstrap.servers` takes it.
    pub brokers: String,
    /// At least one.
    pub topics: Vec<String>,
    /// In the order of writing.
    pub options: Vec<(String, String)>,
}

/// An address that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{address}` is no Kafka address: {problem}; write it as kafka://broker-1:9092,broker-2:9092/audit?group=kubetide"
)]
pub struct AddressError {
    /// The address without its options, which may hold what should not be repeated.
    pub address: String,
    pub problem: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        parse(text).map_err(|problem| AddressError { address: shown(text), problem })
    }
}

fn parse(text: &str) -> Result<Address, String> {
    let rest = text.strip_prefix("kafka://").ok_or("it does not begin with kafka://")?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (brokers, topics) = place.split_once('/').ok_or("it names no topic after the brokers")?;
    for broker in brokers.split(',') {
        check_broker(broker)?;
    }
    let topics: Vec<String> = topics.trim_end_matches('/').split(',').map(str::to_owned).collect();
    for topic in &topics {
        check_topic(topic)?;
    }
    let options = crate::options::pairs(query)?;
    Ok(Address { brokers: brokers.to_owned(), topics, options })
}

fn check_broker(broker: &str) -> Result<(), String> {
    if broker.contains('@') {
        return Err("credentials do not belong into an address, they show in process lists; \
                    use sasl.username and sasl.password.file"
            .to_owned());
    }
    let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.map(str::parse::<u16>) {
        Some(Ok(_)) => Ok(()),
        _ => Err(format!("broker `{broker}` needs a host and a port")),
    }
}

fn check_topic(topic: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match topic {
        "" => Err("it names no topic after the brokers".to_owned()),
        _ if topic.len() > 249 || !topic.chars().all(legal) => {
            Err(format!("`{topic}` cannot be a topic: letters, digits, `.`, `_` and `-`, at most 249"))
        }
        _ => Ok(()),
    }
}

/// The address without credentials and options.
fn shown(text: &str) -> String {
    let place = text.split('?').next().unwrap_or_default();
    match (place.split_once("://"), place.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, after))) => format!("{scheme}://{after}"),
        _ => place.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str, part: &str) {
        let error = text.parse::<Address>().expect_err(text).to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn brokers_topics_and_options_are_read() {
        let address: Address = "kafka://a:9092,[::1]:9093/one,two.x?group=g&ssl.ca.location=%2Fetc%2Fca.pem&a.b=1+1"
            .parse()
            .expect("good");
        assert_eq!(address.brokers, "a:9092,[::1]:9093");
        assert_eq!(address.topics, ["one", "two.x"]);
        let expected = [("group", "g"), ("ssl.ca.location", "/etc/ca.pem"), ("a.b", "1+1")];
        assert_eq!(address.options, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn mistakes_are_named() {
        wrong("http://a:1/t", "does not begin");
        wrong("kafka://a:9092", "names no topic");
        wrong("kafka://a:9092/", "names no topic");
        wrong("kafka://a:9092/one,,two", "names no topic");
        wrong("kafka://a/t", "needs a host and a port");
        wrong("kafka://:9092/t", "needs a host and a port");
        wrong("kafka://a:99999/t", "needs a host and a port");
        wrong("kafka://a:1/sp ace", "cannot be a topic");
        wrong("kafka://a:1/t?group", "has no `=`");
        wrong("kafka://a:1/t?group=%x1", "hexadecimal");
    }

    #[test]
    fn errors_do_not_repeat_secrets() {
        let error = "kafka://me:hunter2@a:1/t?x=hunter2".parse::<Address>().expect_err("credentials").to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.contains("sasl.password.file"), "{error}");
    }
}
