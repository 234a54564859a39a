//! OCSF 1.8 Detection Finding (class 2004) as it goes over the wire; field order is the order of reading.
//!
//! Only what Kubetide fills is here. Absent values are left out: the schema knows no nulls.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{Activity, Severity};

/// Version of the OCSF schema that these types follow.
pub const OCSF_VERSION: &str = "1.8.0";

#[derive(Debug, Serialize)]
pub struct DetectionFinding<'a> {
    pub activity_id: u8,
    pub activity_name: &'static str,
    pub category_uid: u8,
    pub category_name: &'static str,
    pub class_uid: u32,
    pub class_name: &'static str,
    pub type_uid: u32,
    pub type_name: &'static str,
    pub time: i64,
    pub start_time: i64,
    pub end_time: i64,
    pub severity_id: u8,
    pub severity: &'static str,
    pub status_id: u8,
    pub status: &'static str,
    pub is_alert: bool,
    pub count: u64,
    pub message: &'a str,
    pub metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud: Option<Cloud>,
    pub finding_info: FindingInfo<'a>,
    pub evidences: Vec<Evidence>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub observables: Vec<Observable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<Remediation<'a>>,
    pub unmapped: Map<String, Value>,
}

#[derive(Debug, Serialize)]
pub struct Metadata<'a> {
    pub version: &'static str,
    pub uid: &'a str,
    pub event_code: &'a str,
    pub product: Product,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub profiles: &'static [&'static str],
    pub log_provider: &'static str,
    pub log_name: &'static str,
}

#[derive(Debug, Serialize)]
pub struct Product {
    pub name: &'static str,
    pub vendor_name: &'static str,
    pub version: &'static str,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Cloud {
    pub provider: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Account {
    pub uid: String,
    pub type_id: u8,
    #[serde(rename = "type")]
    pub kind: &'static str,
}

#[derive(Debug, Serialize)]
pub struct FindingInfo<'a> {
    pub uid: &'a str,
    pub title: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub desc: &'a str,
    pub types: [&'a str; 1],
    pub created_time: i64,
    pub first_seen_time: i64,
    pub last_seen_time: i64,
    pub analytic: Analytic<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attacks: Vec<Attack>,
    pub related_events: Vec<RelatedEvent<'a>>,
    pub related_events_count: u64,
    pub data_sources: [&'static str; 1],
}

#[derive(Debug, Serialize)]
pub struct Analytic<'a> {
    pub uid: &'a str,
    pub name: &'a str,
    pub type_id: u8,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub state_id: u8,
    pub state: &'static str,
}

#[derive(Debug, Serialize)]
pub struct Attack {
    pub version: &'static str,
    pub tactic: Term,
    pub technique: Term,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_technique: Option<Term>,
}

/// An id of ATT&CK and what it is called.
#[derive(Debug, Serialize)]
pub struct Term {
    pub uid: Arc<str>,
    pub name: Arc<str>,
}

#[derive(Debug, Serialize)]
pub struct RelatedEvent<'a> {
    pub uid: &'a str,
    pub created_time: i64,
}

#[derive(Debug, Serialize)]
pub struct Evidence {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// The identity that the request ran as, where it is not the actor's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<Api>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_endpoint: Option<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_request: Option<HttpRequest>,
    pub data: Value,
}

#[derive(Debug, Serialize)]
pub struct Actor {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorizations: Vec<Authorization>,
}

#[derive(Debug, Serialize)]
pub struct Session {
    pub credential_uid: String,
}

#[derive(Debug, Serialize)]
pub struct Authorization {
    pub decision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

#[derive(Debug, Serialize)]
pub struct Policy {
    pub name: &'static str,
    pub desc: String,
}

#[derive(Debug, Serialize)]
pub struct User {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    pub type_id: u8,
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
pub struct Group {
    pub name: String,
}

#[derive(Debug, Serialize)]
pub struct Api {
    pub operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub request: Request,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
}

#[derive(Debug, Serialize)]
pub struct Request {
    pub uid: String,
}

#[derive(Debug, Serialize)]
pub struct Response {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Endpoint {
    pub ip: String,
}

#[derive(Debug, Serialize)]
pub struct HttpRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Url>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub x_forwarded_for: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Url {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_string: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Resource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub role_id: u8,
    pub role: &'static str,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Observable {
    /// Path of the attribute that it repeats.
    pub name: &'static str,
    pub type_id: u8,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub value: String,
}

#[derive(Debug, Serialize)]
pub struct Remediation<'a> {
    pub desc: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub references: &'a [String],
}

/// `activity_id`, `activity_name`, `type_uid`, `type_name`.
pub fn activity(activity: Activity) -> (u8, &'static str, u32, &'static str) {
    match activity {
        Activity::Create => (1, "Create", 200_401, "Detection Finding: Create"),
        Activity::Update => (2, "Update", 200_402, "Detection Finding: Update"),
    }
}

/// Caption of `severity_id`.
pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Informational => "Informational",
        Severity::Low => "Low",
        Severity::Medium => "Medium",
        Severity::High => "High",
        Severity::Critical => "Critical",
    }
}
