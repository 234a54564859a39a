//! The one integration binary: every further one would link DataFusion and librdkafka again.

mod kafka;
mod supply;
mod support;
