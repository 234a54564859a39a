//! Which stages run, in what order, and who commits: the only part that knows.
//!
//! * [`work`] takes one chunk through format, batch and evaluate; any number of threads do so side by side.
//! * [`live`] puts their results back in order, makes alerts, delivers, and makes the checkpoints.
//! * [`keeping`] puts what is remembered into a snapshot and back, [`snapshots`] writes it beside the run.
//! * [`exchange`] passes on what other instances remember, [`shares`] is what this one remembers of all.
//! * [`replay`] takes a few records through all stages at once: a detection's own tests, `explain`.
//! * [`reload`] lets one set of detections follow another while events flow.
//! * [`breaker`] takes detections out of force that harm the others.
//! * [`mutants`] asks of those tests which changes of a query they would notice.

pub mod breaker;
pub mod exchange;
pub mod keeping;
pub mod lanes;
pub mod live;
pub mod mutants;
pub mod reload;
pub mod replay;
pub mod shares;
pub mod snapshots;
pub mod work;

#[cfg(test)]
mod tests;
