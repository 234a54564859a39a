//! The one home of Kafka client settings: addresses, properties, what a failure means, and what is told about it.
//!
//! `source::kafka` and `sink::kafka` build their clients here, so that both read an address alike, trust the same
//! authorities, keep secrets out of URLs, and say the same single sentence when a broker cannot be used.
//!
//! | part | for |
//! |---|---|
//! | [`Address`] | `kafka://host:port[,host:port]/topic[,topic]?option=…` |
//! | [`Properties`] | librdkafka's properties: our defaults, the user's over them, secrets from files or the environment |
//! | [`Error`] | what went wrong with a broker and what to check |
//! | [`Monitor`] | librdkafka's log and errors: told once, counted always |
//! | [`reach`] | answers within seconds whether a topic can be used |
//! | [`InternalTopic`] | a topic of our own: makes it, writes its partitions |
//! | [`Events`] | what operators count; the telemetry implements it |

mod address;
mod error;
mod events;
mod internal;
mod monitor;
mod properties;
mod reach;

pub use address::{Address, AddressError};
pub use error::Error;
pub use events::{Consuming, Events, Silent};
pub use internal::{InternalTopic, InternalTopicOptions, PARTITIONS, Refused};
pub use monitor::Monitor;
pub use properties::{Properties, SECRETS};
pub use reach::{REACH_TIMEOUT, reach};
