//! The steps of the data path, each blind to the others: they meet in `model`, and only the flow knows their order.

pub mod sink;
