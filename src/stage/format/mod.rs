//! Format: unwraps raw records into canonical audit events.
//!
//! **Input** is one raw record: a Kafka value, a line of a file, a request body, in any form of Kubernetes audit log
//! that clouds, distributions and collectors produce, wrapped any number of times. **Output** is calls of an
//! [`EventSink`], in the order of the record.
//!
//! What holds:
//!
//! * The form is told by content, never by the topic's name, record by record and element by element.
//! * Every element ends in exactly one call: an event, a skip with a reason, or a reject with a reason and the
//!   element's bytes. Every record causes at least one call. One bad element never loses its neighbours.
//! * A cut event is delivered with `cut` set if what was done and by whom can still be read.
//! * An event's body is neither parsed nor validated, so neither its depth nor its shape can hide the event.
//! * What is spent on a record is bounded by [`Limits`], and no input makes it panic.
//! * Nothing is kept from one record to the next but origins and empty buffers.
//!
//! Reading order: [`native`] is the hot path, `decoder` unwraps, `shape` tells forms apart, `eks`, `aks`, `gke` and
//! `collector` know one family of envelopes each.

mod aks;
mod collector;
mod decoder;
mod eks;
mod gke;
mod gke_target;
mod inflate;
mod lines;
pub mod native;
mod origin;
mod query;
mod shape;
mod time;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Cloud, EventSink, Lane, RawRecord};
use decoder::Decoder;
use origin::Origins;

/// What records look like.
///
/// Collectors' wrappers, compression and lists are unwrapped whatever is set. A fixed form refuses the other clouds'
/// envelopes and gives bare events its cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Found out for each record.
    #[default]
    Auto,
    /// `audit.k8s.io` events and lists of them, bare or in a log collector's wrapper.
    Native,
    /// CloudWatch Logs envelopes of Amazon EKS.
    Eks,
    /// Azure Monitor records of AKS.
    Aks,
    /// Cloud Logging entries of GKE.
    Gke,
    /// Events from OpenShift's log forwarder.
    OpenShift,
}

impl Format {
    /// The word used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Auto => "auto",
            Format::Native => "native",
            Format::Eks => "eks",
            Format::Aks => "aks",
            Format::Gke => "gke",
            Format::OpenShift => "openshift",
        }
    }

    /// The cloud of events that no envelope places.
    fn cloud(self) -> Cloud {
        match self {
            Format::Auto | Format::Native => Cloud::Other,
            Format::Eks => Cloud::Eks,
            Format::Aks => Cloud::Aks,
            Format::Gke => Cloud::Gke,
            Format::OpenShift => Cloud::OpenShift,
        }
    }
}

/// What may be spent on one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest event, in bytes of its JSON text.
    pub event_bytes: usize,
    /// Most that may come out of a record's compressed parts together.
    pub decompressed_bytes: usize,
    /// Deepest value that is rewritten from another form (OTLP). Bodies that are only passed on may be deeper.
    pub depth: usize,
    /// Most envelopes around one event: each list, encoding, compression and string counts.
    pub unwrap: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { event_bytes: 10 << 20, decompressed_bytes: 64 << 20, depth: 128, unwrap: 6 }
    }
}

/// What a source's configuration says about its records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FormatOptions {
    pub format: Format,
    pub limits: Limits,
    /// Cloud of events that no envelope places; by default what `format` implies.
    pub cloud: Option<Cloud>,
    /// Account, subscription or project where no envelope names it.
    pub account: Option<Arc<str>>,
    /// Region where no envelope names it: EKS's and AKS's do not.
    pub region: Option<Arc<str>>,
}

/// Unwraps records; one for each worker.
#[derive(Debug, Default)]
pub struct Formats {
    options: FormatOptions,
    origins: Origins,
    /// Empty buffers for what is decompressed or rewritten.
    buffers: Vec<Vec<u8>>,
}

impl Formats {
    /// Unwraps as the options say.
    pub fn new(options: FormatOptions) -> Formats {
        Formats { options, origins: Origins::default(), buffers: Vec::new() }
    }

    /// Hands everything in a record's payload to the sink, in order. `record` and `lane` name the cluster where the
    /// payload does not.
    pub fn decode<S: EventSink + ?Sized>(&mut self, payload: &[u8], record: &RawRecord, lane: &Lane, sink: &mut S) {
        Decoder::new(&self.options, &mut self.origins, &mut self.buffers, record, lane, sink).record(payload);
    }
}
