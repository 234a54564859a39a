//! The command line: one file a command.

pub mod config;
pub mod diagnostics;
pub mod exit;
pub mod explain;
pub mod lint;
pub mod pack;
pub mod run;
pub mod schema;
pub mod test;
