//! The six steps from input to delivery. Each is blind to the other five: they meet in `model`, and only `flow` knows
//! their order.

pub mod source;

pub mod format;

pub mod batch;

pub mod evaluate;

pub mod alert;

pub mod sink;
