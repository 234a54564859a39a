//! The command line: one file a command.

pub mod config;
pub mod diagnostics;
pub mod lint;
pub mod schema;
