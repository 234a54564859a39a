//! Kubetide: SQL detections over Kubernetes audit logs.
//!
//! A **source** yields raw records, lane by lane; **format** turns each into audit events or a dead letter;
//! **batch** builds Arrow columns of those that some detection reads; **evaluate** runs every detection over a batch
//! and yields matches; **alert** gives each match its identity, applies exceptions and suppression; **sink** delivers;
//! once all is delivered, the **flow** commits positions.
//!
//! The `mod` lines below are in reading order, from the doors down to the ground; each part may use what stands
//! below it, never what stands above (`ARCHITECTURE.md`).

pub mod cli;

pub mod config;

pub mod http;

pub mod flow;

pub mod stage;

pub mod detection;

pub mod generate;

pub mod kafka;
pub mod sql;
pub mod state;

pub mod model;

pub mod json;

pub mod clock;
pub mod options;
pub mod telemetry;
