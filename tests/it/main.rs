//! The one integration binary: every further one would link DataFusion and librdkafka again.

mod cli;
mod corpora;
mod faults;
mod kafka;
mod kafka_run;
mod reload;
mod supply;
mod support;
mod tidy;
mod wire;
