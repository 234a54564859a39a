//! The six steps from input to delivery. Each is blind to the other five: they meet in `model`, and only `flow` knows
//! their order.

pub mod source;
