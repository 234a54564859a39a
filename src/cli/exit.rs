//! Exit codes: 0 ok, 1 findings (a test failed, a warning was denied, a rule
//! could not be converted), 2 the user's rules or input are wrong,
//! 3 configuration or environment.

use std::fmt;
use std::process::ExitCode;

/// Why a command ends without having done its work.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The user's rules or input are wrong.
    pub fn rules(message: impl Into<String>) -> Failure {
        Failure { code: 2, message: message.into() }
    }

    /// The configuration is wrong, or something around the program is missing.
    pub fn environment(message: impl Into<String>) -> Failure {
        Failure { code: 3, message: message.into() }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::environment(format!("{error:#}"))
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Failure {
        Failure::environment(error.to_string())
    }
}
