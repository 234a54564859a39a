//! The one place that sets up DataFusion: the session, our functions, and planning of detections and predicates.
//!
//! A [`Planner`] turns SQL text into something that runs many times: [`EventPlan`] for a detection's query over the
//! table `audit`, [`Predicate`] for an exception's condition. Everything that can be wrong with the text is found here,
//! once, at load, as a [`SqlError`] that says where in the text and how to mend it; nothing is planned per batch.
//!
//! What SQL may do is decided here too ([`session`], [`check`]): no clock, no chance, no files, no statement other than
//! a SELECT, bounded size and depth. Planning runs on a thread with a large stack, as DataFusion recurses over
//! expressions.

mod canonical;
mod check;
mod error;
mod filter;
mod functions;
mod general;
mod guard;
mod lineage;
mod lists;
mod locate;
pub mod mutate;
mod panes;
mod pattern;
mod plan;
mod program;
mod session;
mod spelling;
mod table;
mod window;

pub use error::SqlError;
pub use functions::{FUNCTIONS, FunctionInfo, Span, WINDOW_FUNCTIONS};
pub use general::GeneralPlan;
pub use lineage::Groups;
pub use lists::Lists;
pub use plan::{Conjunct, EventPlan, Planner, Predicate, Shape};
pub use program::{Bound, Program, comparison};
pub use spelling::canonical_text;
pub use window::WindowPlan;

/// The engine and its version: what it keeps inside a plan, another version may not understand.
pub fn engine() -> String {
    format!("datafusion {}", datafusion::DATAFUSION_VERSION)
}

#[cfg(test)]
pub(crate) mod tests;
