//! The steps from input to delivery. Each is blind to the others: they meet in `model`, and only `flow` knows
//! their order.

pub mod source;

pub mod format;

pub mod batch;

pub mod evaluate;

pub mod exchange;

pub mod memory;

pub mod alert;

pub mod sink;
