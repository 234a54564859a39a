//! Sets tracing up: lines go to stderr, as text for people or as JSON for collectors. stdout belongs to data.
//!
//! Text from events may be hostile; the formatter escapes control sequences, so a user agent cannot repaint a terminal.

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(LogError::Format(other.to_owned())),
        }
    }
}

impl LogFormat {
    /// The word in configuration and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("unknown log format {0:?}, use `text` or `json`")]
    Format(String),
    #[error(
        "log level {filter:?} is not understood: {detail}; use error, warn, info, debug or trace, \
         or directives such as `info,kubetide::kafka=debug`"
    )]
    Filter { filter: String, detail: String },
    #[error("logging is already set up")]
    Twice(#[source] TryInitError),
}

/// Checks a level or a list of directives, without setting anything up.
///
/// # Errors
/// [`LogError::Filter`] when it does not parse.
pub fn check_filter(filter: &str) -> Result<(), LogError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let refuse = |detail: String| LogError::Filter { filter: filter.to_owned(), detail };
    // A lone word is the name of a module to the parser, so that `inof` would silence everything.
    for word in filter.split(',').map(str::trim).filter(|word| !word.contains('=')) {
        if !["off", "error", "warn", "info", "debug", "trace"].contains(&word.to_ascii_lowercase().as_str()) {
            return Err(refuse(format!("`{word}` is no level")));
        }
    }
    EnvFilter::builder().parse(filter).map_err(|error| refuse(error.to_string()))
}

/// Sends log lines of the given level and above to stderr, for the whole process.
///
/// # Errors
/// When the filter does not parse or logging is set up already.
pub fn init(filter: &str, format: LogFormat) -> Result<(), LogError> {
    let builder = tracing_subscriber::fmt().with_env_filter(parse(filter)?).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).with_target(false).finish().try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).finish().try_init(),
    }
    .map_err(LogError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_understood_and_typos_are_not() {
        for filter in ["info", "WARN", "off", "info,kubetide::kafka=debug", "kubetide=trace"] {
            check_filter(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        }
        for filter in ["inof", "info,kubetide=loud"] {
            let error = check_filter(filter).expect_err(filter).to_string();
            assert!(error.contains(filter) && error.contains("use error, warn"), "{error}");
        }
        assert!("jsno".parse::<LogFormat>().is_err());
    }
}
