//! What several test modules share.

pub mod broker;
pub mod clouds;
pub mod process;
pub mod receiver;
pub mod site;
