//! What people write after `--alerts` and `--dead-letters`.
//!
//! | form | sink |
//! |---|---|
//! | `-` | standard output (dead letters: standard error) |
//! | `alerts.ndjson`, `file:///var/log/alerts.ndjson` | file; options `?rotate=100MB&every=1d&keep=7` |
//! | `kafka://host:port[,host:port]/topic` | Kafka topic; `?property=value` is passed to librdkafka |
//! | `https://host/path?query` | webhook; the query is the receiver's, our options follow a `#`: `#token_file=…&timeout=10s&concurrency=8&ca_file=…` |
//!
//! Secrets never stand in a URL, as it shows in process lists and logs: a token is named by its file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::options::{bytes, count, decode, duration, pairs, unknown};

/// A sink's address, parsed. `Display` gives it back without options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkUrl {
    /// `-`.
    Standard,
    File(FileTarget),
    Kafka(KafkaTarget),
    Http(HttpTarget),
}

/// A file of lines and when to begin a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTarget {
    pub path: PathBuf,
    /// Begin a new file before this one grows beyond so many bytes.
    pub rotate_bytes: Option<u64>,
    /// Begin a new file when the UTC clock passes a multiple of this.
    pub rotate_every: Option<Duration>,
    /// Number of rotated files to keep; all where absent.
    pub keep: Option<usize>,
}

impl FileTarget {
    /// A file that is never rotated.
    pub fn plain(path: impl Into<PathBuf>) -> Self {
        FileTarget { path: path.into(), rotate_bytes: None, rotate_every: None, keep: None }
    }
}

/// A Kafka topic to write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaTarget {
    /// `host:port[,host:port]`, as `bootstrap.servers` takes it.
    pub brokers: String,
    pub topic: String,
    /// The URL's query, percent-decoded, in order.
    pub properties: Vec<(String, String)>,
}

/// Where to POST to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// Address with the receiver's own query, without our options.
    pub url: String,
    /// File that holds the bearer token.
    pub token_file: Option<PathBuf>,
    /// PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Time allowed for one request; the options' default where absent.
    pub timeout: Option<Duration>,
    /// Requests under way at once; the options' default where absent.
    pub concurrency: Option<usize>,
}

/// A sink's address that cannot be used: what is wrong with it and what a right one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is not a sink: {problem}; {help}")]
pub struct UrlError {
    pub url: String,
    pub problem: String,
    pub help: String,
}

const KAFKA_EXAMPLE: &str = "write it as kafka://broker-1:9092,broker-2:9092/alerts?compression.type=zstd";
const HTTP_EXAMPLE: &str = "write it as https://siem.example.com/hook#token_file=/run/secrets/token&timeout=10s";
const FILE_EXAMPLE: &str = "write it as alerts.ndjson?rotate=100MB&every=1d&keep=7 or file:///var/log/alerts.ndjson";
const SCHEMES: [&str; 4] = ["file", "kafka", "http", "https"];

impl FromStr for SinkUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let fail = |(problem, help): Problem| UrlError { url: without_secrets(text), problem, help: help.to_owned() };
        if text.is_empty() {
            return Err(fail(("it is empty".into(), FILE_EXAMPLE)));
        }
        if text == "-" {
            return Ok(SinkUrl::Standard);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return file(text, false).map(SinkUrl::File).map_err(fail);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => file(rest, true).map(SinkUrl::File).map_err(fail),
            "kafka" => kafka(rest).map(SinkUrl::Kafka).map_err(fail),
            "http" | "https" => http(text).map(SinkUrl::Http).map_err(fail),
            other => Err(fail((unknown("scheme", other, &SCHEMES), FILE_EXAMPLE))),
        }
    }
}

impl fmt::Display for SinkUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkUrl::Standard => f.write_str("-"),
            SinkUrl::File(target) => write!(f, "{}", target.path.display()),
            SinkUrl::Kafka(target) => write!(f, "kafka://{}/{}", target.brokers, target.topic),
            // The query of many webhooks is a secret in itself.
            SinkUrl::Http(target) => f.write_str(target.url.split('?').next().unwrap_or_default()),
        }
    }
}

/// What is wrong, and an example of the right form.
type Problem = (String, &'static str);

fn file(text: &str, is_url: bool) -> Result<FileTarget, Problem> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let path = if is_url {
        let path = path.strip_prefix("localhost").unwrap_or(path);
        if !path.starts_with('/') {
            return Err(("a file URL has three slashes before the path".into(), FILE_EXAMPLE));
        }
        decode(path).map_err(|problem| (problem, FILE_EXAMPLE))?
    } else {
        path.to_owned()
    };
    if path.is_empty() || path.ends_with('/') {
        return Err(("it names no file".into(), FILE_EXAMPLE));
    }
    let mut target = FileTarget::plain(path);
    for (key, value) in pairs(query).map_err(|problem| (problem, FILE_EXAMPLE))? {
        let problem = match key.as_str() {
            "rotate" => bytes(&value).map(|v| target.rotate_bytes = Some(v)),
            "every" => duration(&value).map(|v| target.rotate_every = Some(v)),
            "keep" => count(&value).map(|v| target.keep = Some(v)),
            other => Err(unknown("option", other, &["rotate", "every", "keep"])),
        };
        problem.map_err(|problem| (problem, FILE_EXAMPLE))?;
    }
    if target.keep.is_some() && target.rotate_bytes.is_none() && target.rotate_every.is_none() {
        return Err(("`keep` needs `rotate` or `every` beside it".into(), FILE_EXAMPLE));
    }
    Ok(target)
}

fn kafka(rest: &str) -> Result<KafkaTarget, Problem> {
    let fail = |problem: String| (problem, KAFKA_EXAMPLE);
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (brokers, topic) = address.split_once('/').ok_or_else(|| fail("it names no topic after the brokers".into()))?;
    for broker in brokers.split(',') {
        check_broker(broker).map_err(fail)?;
    }
    let topic = topic.trim_end_matches('/');
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() {
        return Err(fail("it names no topic after the brokers".into()));
    }
    if topic.contains(',') {
        return Err(fail("a sink writes to one topic".into()));
    }
    if topic.len() > 249 || !topic.chars().all(legal) {
        return Err(fail(format!("`{topic}` cannot be a topic: letters, digits, `.`, `_` and `-`, at most 249")));
    }
    let properties = pairs(query).map_err(fail)?;
    Ok(KafkaTarget { brokers: brokers.to_owned(), topic: topic.to_owned(), properties })
}

fn check_broker(broker: &str) -> Result<(), String> {
    if broker.contains('@') {
        return Err("credentials do not belong in a URL: give them by configuration or environment".into());
    }
    let (host, port) = broker.rsplit_once(':').unwrap_or((broker, ""));
    // `[::1]` alone also has colons.
    if host.is_empty() || port.is_empty() || port.ends_with(']') {
        return Err(format!("broker `{broker}` needs a host and a port"));
    }
    port.parse::<u16>().map(|_| ()).map_err(|_| format!("`{port}` is not a port"))
}

fn http(text: &str) -> Result<HttpTarget, Problem> {
    let fail = |problem: String| (problem, HTTP_EXAMPLE);
    let (address, options) = text.split_once('#').unwrap_or((text, ""));
    let parsed = reqwest::Url::parse(address).map_err(|e| fail(e.to_string()))?;
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(fail("credentials do not belong in a URL: put the token into a file and name it".into()));
    }
    if parsed.host_str().is_none_or(str::is_empty) {
        return Err(fail("it names no host".into()));
    }
    let mut target =
        HttpTarget { url: parsed.to_string(), token_file: None, ca_file: None, timeout: None, concurrency: None };
    for (key, value) in pairs(options).map_err(fail)? {
        match key.as_str() {
            "token_file" => target.token_file = Some(value.into()),
            "ca_file" => target.ca_file = Some(value.into()),
            "timeout" => target.timeout = Some(duration(&value).map_err(fail)?),
            "concurrency" => target.concurrency = Some(count(&value).map_err(fail)?.max(1)),
            other => return Err(fail(unknown("option", other, &["token_file", "ca_file", "timeout", "concurrency"]))),
        }
    }
    Ok(target)
}

/// The address as it may be shown in an error: without user:password and without the query.
fn without_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let start = rest.get(..authority_end).and_then(|authority| authority.rfind('@')).map_or(0, |at| at + 1);
    let shown = rest.get(start..).unwrap_or_default();
    format!("{scheme}://{}", shown.split('?').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> SinkUrl {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    fn wrong(text: &str, part: &str) {
        let error = text.parse::<SinkUrl>().expect_err(text).to_string();
        assert!(error.contains(part), "{error}");
        assert!(error.contains("write it as"), "{error}");
    }

    #[test]
    fn dash_is_standard_output() {
        assert_eq!(ok("-"), SinkUrl::Standard);
    }

    #[test]
    fn files_take_rotation_options() {
        assert_eq!(ok("a/b.ndjson"), SinkUrl::File(FileTarget::plain("a/b.ndjson")));
        let expected = FileTarget {
            path: "/var/log/a b.ndjson".into(),
            rotate_bytes: Some(100_000_000),
            rotate_every: Some(Duration::from_secs(86_400)),
            keep: Some(7),
        };
        assert_eq!(ok("file:///var/log/a%20b.ndjson?rotate=100MB&every=1d&keep=7"), SinkUrl::File(expected));
    }

    #[test]
    fn file_mistakes_are_named() {
        wrong("", "it is empty");
        wrong("alerts.ndjson?rotat=1MB", "did you mean `rotate`");
        wrong("alerts.ndjson?rotate=lots", "`lots` is not a size");
        wrong("alerts.ndjson?rotate=0", "is not a size");
        wrong("alerts.ndjson?every=1week", "is not a time");
        wrong("alerts.ndjson?keep=3", "needs `rotate`");
        wrong("alerts.ndjson?keep", "has no `=`");
        wrong("file://relative", "three slashes");
        wrong("folder/", "names no file");
        wrong("file:///a%zz", "hexadecimal");
    }

    #[test]
    fn kafka_keeps_properties_in_order() {
        let SinkUrl::Kafka(target) = ok("kafka://a:9092,[::1]:9093/alerts?x.y=1%2C2&security.protocol=SASL_SSL") else {
            panic!("not kafka")
        };
        assert_eq!(target.brokers, "a:9092,[::1]:9093");
        assert_eq!(target.topic, "alerts");
        let expected = [("x.y", "1,2"), ("security.protocol", "SASL_SSL")];
        assert_eq!(target.properties, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn kafka_mistakes_are_named() {
        wrong("kafka://a:9092", "names no topic");
        wrong("kafka://a:9092/", "names no topic");
        wrong("kafka://a/alerts", "needs a host and a port");
        wrong("kafka://a:90922/alerts", "not a port");
        wrong("kafka://a:9092/one,two", "one topic");
        wrong("kafka://a:9092/sp ace", "cannot be a topic");
        wrong("kafka://user:pass@a:9092/alerts", "credentials");
        wrong("kafak://a:9092/alerts", "did you mean `kafka`");
    }

    #[test]
    fn webhook_options_follow_the_hash_and_the_query_stays_the_receivers() {
        let SinkUrl::Http(target) =
            ok("https://siem.example.com/hook?team=a#token_file=/run/t&timeout=500ms&concurrency=2")
        else {
            panic!("not http")
        };
        assert_eq!(target.url, "https://siem.example.com/hook?team=a");
        assert_eq!(target.token_file, Some("/run/t".into()));
        assert_eq!(target.timeout, Some(Duration::from_millis(500)));
        assert_eq!(target.concurrency, Some(2));
        assert_eq!(SinkUrl::Http(target).to_string(), "https://siem.example.com/hook");
    }

    #[test]
    fn webhook_mistakes_are_named() {
        wrong("https://", "empty host");
        wrong("http://host/hook#token=abc", "did you mean `token_file`");
        wrong("http://user:secret@host/hook", "credentials do not belong in a URL");
    }

    #[test]
    fn errors_do_not_repeat_secrets() {
        for text in ["http://user:hunter2@host/hook", "kafka://u:hunter2@a:9092/t", "https:///?sig=hunter2#x"] {
            if let Err(error) = text.parse::<SinkUrl>() {
                assert!(!error.to_string().contains("hunter2"), "{error}");
            }
        }
    }
}
