//! A canonical audit event between format and batch: borrowed spans of its JSON, and where it came from.

use std::sync::Arc;

use crate::json::{Raw, Text};

/// Which cloud an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cloud {
    Aks,
    Eks,
    Gke,
    OpenShift,
    Other,
}

impl Cloud {
    pub const ALL: [Cloud; 5] = [Cloud::Aks, Cloud::Eks, Cloud::Gke, Cloud::OpenShift, Cloud::Other];

    /// The value of the `cloud` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Cloud::Aks => "aks",
            Cloud::Eks => "eks",
            Cloud::Gke => "gke",
            Cloud::OpenShift => "openshift",
            Cloud::Other => "other",
        }
    }
}

/// Where events come from; shared by all events of one cluster and format.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub cloud: Cloud,
    pub account: Option<Arc<str>>,
    pub region: Option<Arc<str>>,
    /// Resource group (AKS); part of `cluster_id` only.
    pub resource_group: Option<Arc<str>>,
    pub cluster: Arc<str>,
}

impl Origin {
    /// `account/region/group/name` with unknown parts left out: the key of everything kept for a cluster.
    pub fn cluster_id(&self) -> String {
        let parts = [&self.account, &self.region, &self.resource_group];
        let mut id = String::new();
        for part in parts.into_iter().flatten() {
            id.push_str(part);
            id.push('/');
        }
        id.push_str(&self.cluster);
        id
    }
}

/// The top level of one audit event, as spans of its text. `None` means that the key is absent (or was cut off).
#[derive(Debug, Clone, Copy, Default)]
pub struct EventFields<'a> {
    /// The whole event, as evidence.
    pub text: &'a [u8],
    pub audit_id: Option<Text<'a>>,
    pub level: Option<Text<'a>>,
    pub stage: Option<Text<'a>>,
    pub verb: Option<Text<'a>>,
    pub uri: Option<Text<'a>>,
    pub user: Option<Raw<'a>>,
    pub impersonated_user: Option<Raw<'a>>,
    pub source_ips: Option<Raw<'a>>,
    pub user_agent: Option<Text<'a>>,
    pub object_ref: Option<Raw<'a>>,
    pub response_status: Option<Raw<'a>>,
    pub request_object: Option<Raw<'a>>,
    pub response_object: Option<Raw<'a>>,
    pub request_time: Option<Text<'a>>,
    pub stage_time: Option<Text<'a>>,
    pub annotations: Option<Raw<'a>>,
    /// The text ended before the event did.
    pub cut: bool,
}

/// What the record around an event says about it.
#[derive(Debug, Clone)]
pub struct EventContext {
    pub origin: Arc<Origin>,
    /// Index of the event inside its record.
    pub index: u32,
    /// Time given by the envelope, milliseconds since the epoch.
    pub envelope_time_ms: Option<i64>,
    /// User groups, query string and extra are not delivered by this cloud.
    pub no_groups: bool,
}

/// Why a record (or an element of it) is not evaluated though nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SkipReason {
    /// `RequestReceived`: a later stage of the same request is evaluated.
    Stage,
    /// Another log category or log stream in the same topic.
    Category,
    /// CloudWatch's `CONTROL_MESSAGE`.
    HealthCheck,
    /// Null or empty value.
    Empty,
    /// Another product's record, such as a cloud's own activity log.
    Foreign,
}

impl SkipReason {
    pub const ALL: [SkipReason; 5] =
        [SkipReason::Stage, SkipReason::Category, SkipReason::HealthCheck, SkipReason::Empty, SkipReason::Foreign];

    /// Value of the metric label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            SkipReason::Stage => "stage",
            SkipReason::Category => "category",
            SkipReason::HealthCheck => "health_check",
            SkipReason::Empty => "empty",
            SkipReason::Foreign => "foreign",
        }
    }
}

/// Why a record (or an element of it) goes to the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// Not JSON and nothing that it could be unwrapped to.
    NotJson,
    /// JSON, but broken beyond what can be salvaged.
    Malformed,
    /// JSON that is no audit event of a known form.
    UnknownFormat,
    /// An audit event of a form that is known and not supported (Rancher's API log).
    Unsupported,
    /// gzip or base64 that does not decode.
    Undecodable,
    /// Larger than the limit, before or after decompression.
    TooLarge,
    /// Nested deeper than the limit.
    TooDeep,
}

impl RejectReason {
    pub const ALL: [RejectReason; 7] = [
        RejectReason::NotJson,
        RejectReason::Malformed,
        RejectReason::UnknownFormat,
        RejectReason::Unsupported,
        RejectReason::Undecodable,
        RejectReason::TooLarge,
        RejectReason::TooDeep,
    ];

    /// Value of the metric label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            RejectReason::NotJson => "not_json",
            RejectReason::Malformed => "malformed",
            RejectReason::UnknownFormat => "unknown_format",
            RejectReason::Unsupported => "unsupported",
            RejectReason::Undecodable => "undecodable",
            RejectReason::TooLarge => "too_large",
            RejectReason::TooDeep => "too_deep",
        }
    }
}

/// Takes what format finds in a record, in order.
///
/// Every element of a record ends in exactly one of the three calls, so that nothing is lost between them.
pub trait EventSink {
    /// One audit event whose stage is evaluated.
    fn event(&mut self, fields: &EventFields<'_>, context: &EventContext);
    /// Something that is rightly not evaluated.
    fn skip(&mut self, reason: SkipReason);
    /// Something that cannot be read: `bytes` are the element's original bytes, `detail` says what, where and how to mend it.
    fn reject(&mut self, reason: RejectReason, detail: String, index: u32, bytes: &[u8]);
}
