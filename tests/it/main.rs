//! Tests of the program from outside. One binary: each further one would link DataFusion and librdkafka again.

mod kafka;
mod support;
