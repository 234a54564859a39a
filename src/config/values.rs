//! Values that know more than their TOML type: parsed text, references to secrets, the listener's address.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use crate::telemetry::logging;

/// Text that is parsed when the configuration is read, so that a mistake is shown with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T>(pub T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Parsed).map_err(|error| de::Error::custom(format!("`{text}` does not parse: {error}")))
    }
}

impl<T: fmt::Display> Serialize for Parsed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<T> JsonSchema for Parsed<T> {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

/// A level or a list of log directives that has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The text, for [`logging::init`].
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        LogFilter("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = logging::LogError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        logging::check_filter(text).map(|()| LogFilter(text.to_owned()))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A regular expression that names a cluster: its group `cluster`, or its first group.
#[derive(Debug, Clone)]
pub struct ClusterPattern(regex::Regex);

impl ClusterPattern {
    /// The pattern itself; its first group names the cluster.
    pub fn regex(&self) -> &regex::Regex {
        &self.0
    }

    /// The cluster that a topic's name gives, if the pattern matches it.
    pub fn cluster<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let found = self.0.captures(topic)?;
        found.name("cluster").or_else(|| found.get(1)).map(|group| group.as_str())
    }
}

impl PartialEq for ClusterPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for ClusterPattern {}

impl FromStr for ClusterPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let regex = regex::Regex::new(text).map_err(|error| error.to_string())?;
        if regex.captures_len() < 2 {
            return Err("it needs a group for the cluster's name, as in `^audit-(?<cluster>.+)$`".to_owned());
        }
        Ok(ClusterPattern(regex))
    }
}

impl fmt::Display for ClusterPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Where the HTTP pages are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listen {
    /// On [`Listen::DEFAULT`] when some source is live, nowhere when all sources end by themselves.
    #[default]
    Auto,
    Off,
    At(SocketAddr),
}

impl Listen {
    /// Loopback, on the port that Prometheus exporters of this kind use.
    pub const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);

    /// The address to bind, if any. `live` is whether some source goes on for ever.
    pub fn address(self, live: bool) -> Option<SocketAddr> {
        match self {
            Listen::Auto => live.then_some(Listen::DEFAULT),
            Listen::Off => None,
            Listen::At(address) => Some(address),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Listen::Auto),
            "off" => Ok(Listen::Off),
            address => address
                .parse()
                .map(Listen::At)
                .map_err(|_| "expected `auto`, `off` or an address such as `0.0.0.0:9464`".to_owned()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Auto => f.write_str("auto"),
            Listen::Off => f.write_str("off"),
            Listen::At(address) => write!(f, "{address}"),
        }
    }
}

/// Why a secret could not be read. Never says what it is.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the secret in {}: {source}; mount it or correct the path", file.display())]
    File { file: PathBuf, source: std::io::Error },
    #[error("the environment variable {0}, which holds a secret, is not set or is not UTF-8")]
    Env(String),
}

/// Where a secret is: `{ file = "/run/secrets/token" }` or `{ env = "TOKEN" }`. The secret itself is never kept here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    File(PathBuf),
    Env(String),
}

impl Secret {
    /// Reads the secret, without a line end at its end. Read it when it is used: files change when secrets rotate.
    ///
    /// # Errors
    /// When the file cannot be read or the variable is not set.
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Secret::File(file) => std::fs::read_to_string(file)
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|source| SecretError::File { file: file.clone(), source }),
            Secret::Env(name) => std::env::var(name).map_err(|_| SecretError::Env(name.clone())),
        }
    }

    fn from_json(value: &serde_json::Value) -> Option<Secret> {
        let map = value.as_object().filter(|map| map.len() == 1)?;
        let (key, text) = map.iter().next()?;
        let text = text.as_str().filter(|text| !text.is_empty())?.to_owned();
        match key.as_str() {
            "file" => Some(Secret::File(text.into())),
            "env" => Some(Secret::Env(text)),
            _ => None,
        }
    }
}

const SECRET_FORM: &str = "expected `{ file = \"PATH\" }` or `{ env = \"NAME\" }`";

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, as the derived one repeats a string it does not expect, and that string is somebody's password.
        let value = serde_json::Value::deserialize(deserializer)?;
        Secret::from_json(&value).ok_or_else(|| {
            de::Error::custom(format!("a secret does not stand in the configuration itself: {SECRET_FORM}"))
        })
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        secret_schema()
    }
}

/// Marks a schema whose values must not be shown.
pub(super) const SECRET_MARK: &str = "x-secret";

fn secret_schema() -> Schema {
    json_schema!({
        "description": "Where a secret is: exactly one of a file or an environment variable.",
        "type": "object",
        "properties": {
            "file": {"type": "string", "description": "File that holds it; a line end at the end is not part of it."},
            "env": {"type": "string", "description": "Environment variable that holds it."}
        },
        "additionalProperties": false,
        "minProperties": 1,
        "maxProperties": 1,
        "x-secret": true
    })
}

/// An address: in the open, or, where it holds a secret itself as chat webhooks do, a reference to where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Address {
    Open(String),
    Hidden(Secret),
}

impl Address {
    /// The address itself.
    ///
    /// # Errors
    /// When it is kept elsewhere and cannot be read.
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Address::Open(text) => Ok(text.clone()),
            Address::Hidden(secret) => secret.read(),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) if !text.trim().is_empty() => Ok(Address::Open(text)),
            other => Secret::from_json(&other).map(Address::Hidden).ok_or_else(|| {
                de::Error::custom(format!(
                    "expected an address such as `-` or `kafka://host:9092/topic`, or {SECRET_FORM}"
                ))
            }),
        }
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, generator.subschema_for::<Secret>()]})
    }
}

/// librdkafka properties by name. Dotted keys may be written plainly (`sasl.username = "me"`), as TOML nests them and
/// this joins them again; a secret is `sasl.password = { file = "PATH" }` or `{ env = "NAME" }`, which reads
/// `sasl.password.file` here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Names and values in order of names, secrets as `name.file` or `name.env`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn collect(&mut self, prefix: &str, value: &serde_json::Value) -> Result<(), String> {
        use serde_json::Value::{Bool, Number, Object, String as Text};
        let text = match value {
            Object(map) => {
                let join = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
                return map.iter().try_for_each(|(key, value)| self.collect(&join(key), value));
            }
            Text(text) => text.clone(),
            Bool(flag) => flag.to_string(),
            Number(number) => number.to_string(),
            _ => return Err(format!("kafka property `{prefix}` has to be text, a number or a boolean")),
        };
        if is_secret_property(prefix) {
            return Err(format!(
                "`{prefix}` is a secret and does not stand in the configuration itself: {SECRET_FORM}"
            ));
        }
        self.0.insert(prefix.to_owned(), text);
        Ok(())
    }
}

/// Whether a librdkafka property holds a secret.
pub(super) fn is_secret_property(name: &str) -> bool {
    ["password", "secret", "passphrase", "key.pem", "keystore.pem"].iter().any(|end| name.ends_with(end))
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if !value.is_object() {
            return Err(de::Error::custom("expected a table of librdkafka properties"));
        }
        let mut properties = Properties::default();
        properties.collect("", &value).map_err(de::Error::custom)?;
        Ok(properties)
    }
}

impl JsonSchema for Properties {
    fn schema_name() -> Cow<'static, str> {
        "Properties".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "additionalProperties": {"type": ["string", "integer", "number", "boolean", "object"]}})
    }
}
