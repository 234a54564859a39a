//! Where state is kept, and where it is when nobody says so.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::Config;

/// Name of the directory that is used where none is given.
const FOLDER: &str = "kubetide-state";

/// The value of the key `state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateAddress {
    Off,
    At(String),
}

impl FromStr for StateAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "" => Err("expected a directory, an address such as s3://bucket/folder, or `off`".to_owned()),
            "off" => Ok(StateAddress::Off),
            address => Ok(StateAddress::At(address.to_owned())),
        }
    }
}

impl fmt::Display for StateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StateAddress::Off => "off",
            StateAddress::At(address) => address,
        })
    }
}

/// Where the state of a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatePlace {
    /// Nothing outlives the process.
    Nowhere,
    /// Where somebody asked for it.
    Given(String),
    /// Where it is unless somebody asks for something else; a run goes on without if it cannot be had.
    Default(PathBuf),
}

impl Config {
    /// Where the state of a run with this configuration is. `environment` gives variables by name.
    pub fn state_place(&self, environment: impl Fn(&str) -> Option<String>) -> StatePlace {
        match &self.state {
            Some(super::Parsed(StateAddress::Off)) => StatePlace::Nowhere,
            Some(super::Parsed(StateAddress::At(address))) => StatePlace::Given(address.clone()),
            None if self.sources.iter().any(|source| source.url.starts_with("kafka://")) => {
                default_folder(environment).map_or(StatePlace::Nowhere, StatePlace::Default)
            }
            None => StatePlace::Nowhere,
        }
    }
}

/// `kubetide-state` in the folder for state of the user who runs this.
pub fn default_folder(environment: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    // A relative path is to be ignored, says the specification of these variables.
    let absolute = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(base.join(FOLDER))
}

#[cfg(test)]
mod tests {
    use super::super::{Parsed, SourceConfig};
    use super::*;

    fn place(state: Option<&str>, source: &str, environment: &[(&str, &str)]) -> StatePlace {
        let config = Config {
            state: state.map(|text| Parsed(text.parse().expect("an address"))),
            sources: vec![SourceConfig::new(source)],
            ..Config::default()
        };
        config.state_place(|name| Some(environment.iter().find(|(known, _)| *known == name)?.1.to_owned()))
    }

    #[test]
    fn only_kafka_has_a_place_by_default() {
        let home = [("HOME", "/home/me"), ("XDG_STATE_HOME", "")];
        assert_eq!(place(None, "audit.log", &home), StatePlace::Nowhere);
        assert_eq!(
            place(None, "kafka://b:9092/t", &home),
            StatePlace::Default("/home/me/.local/state/kubetide-state".into())
        );
        assert_eq!(
            place(None, "kafka://b:9092/t", &[("XDG_STATE_HOME", "/state"), ("HOME", "/home/me")]),
            StatePlace::Default("/state/kubetide-state".into())
        );
        assert_eq!(place(None, "kafka://b:9092/t", &[("XDG_STATE_HOME", "relative")]), StatePlace::Nowhere);
    }

    #[test]
    fn what_is_asked_for_holds() {
        assert_eq!(place(Some("off"), "kafka://b:9092/t", &[("HOME", "/home/me")]), StatePlace::Nowhere);
        assert_eq!(place(Some("s3://b/x"), "audit.log", &[]), StatePlace::Given("s3://b/x".to_owned()));
        assert!(" ".parse::<StateAddress>().is_err());
    }
}
