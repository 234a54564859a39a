//! The command line: one file a command.

pub mod config;
pub mod coverage;
pub mod diagnostics;
pub mod exit;
pub mod explain;
pub mod generate;
pub mod import;
pub mod lint;
pub mod new;
pub mod pack;
pub mod reference;
pub mod run;
mod run_exchange;
mod run_reload;
mod run_state;
pub mod schema;
pub mod state;
pub mod test;
mod watched;
mod yaml;
