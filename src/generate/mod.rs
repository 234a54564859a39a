//! Made-up audit load, and the envelopes that clouds put around audit events.
//!
//! For benches, demonstrations and the tests of detections. Nothing of a real cluster is in it, nothing here reads a
//! clock or a file, and the same seed gives the same bytes.
//!
//! * [`wire`] wraps canonical events as EKS, AKS and GKE deliver them.

mod json;
pub mod wire;
