//! The one integration binary: every further one would link DataFusion and librdkafka again.

mod supply;
