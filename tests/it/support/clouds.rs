//! The same audit events as three clouds would put them into a topic.

use kubetide::generate::wire::{WireFormat, wrap};
use serde_json::Value;

/// Whose wire form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    Eks,
    Aks,
    Gke,
}

impl Cloud {
    pub const ALL: [Cloud; 3] = [Cloud::Eks, Cloud::Aks, Cloud::Gke];

    /// Record values that carry these events, in order: EKS gzipped subscription batches, AKS `records` arrays, GKE one
    /// entry for each event. GKE has no entry for a request that was merely received.
    pub fn wrap(self, cluster: &str, events: &[Value]) -> Vec<Vec<u8>> {
        const BATCH: usize = 8;
        let wire = match self {
            Cloud::Eks => WireFormat::EksGzip,
            Cloud::Aks => WireFormat::Aks,
            Cloud::Gke => WireFormat::Gke,
        };
        let texts: Vec<String> = events.iter().map(Value::to_string).collect();
        let batches = texts.chunks(BATCH).map(|batch| batch.iter().map(String::as_bytes).collect::<Vec<_>>());
        batches.flat_map(|batch| wrap(wire, &batch, cluster)).collect()
    }
}
