//! Canonical audit events in the envelopes of clouds.
//!
//! **Input** is whole `audit.k8s.io/v1` events as JSON text. **Output** is values as they would stand in Kafka, or lines
//! of a file. What an envelope says beside the event (account, region, times) is made up or taken from the event, so
//! that equal input gives equal bytes.
//!
//! EKS and AKS carry the event's text unchanged. GKE does not: `gke` loses what Google loses.

mod gke;

use std::io::Write as _;

use chrono::DateTime;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::json::write::{Object, escape, string};
use crate::json::{Cursor, JsonError, Text};

/// How events are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WireFormat {
    /// Bare events, one for each value, as an API server's log backend writes them.
    Native,
    /// An `EventList`, as an API server's webhook backend posts it.
    EventList,
    /// A CloudWatch subscription batch as JSON text.
    Eks,
    /// The same batch compressed, as Kinesis hands it on.
    EksGzip,
    /// An Event Hubs message of Azure Monitor records, each with its event as a string.
    Aks,
    /// Cloud Logging entries, one for each value.
    Gke,
}

impl WireFormat {
    /// The form that a detection's test means by `as: <name>`, and the generator by `--cloud <name>`.
    pub fn from_name(name: &str) -> Option<WireFormat> {
        Some(match name {
            "native" => WireFormat::Native,
            "eks" => WireFormat::Eks,
            "aks" => WireFormat::Aks,
            "gke" => WireFormat::Gke,
            _ => return None,
        })
    }
}

const ACCOUNT: &str = "111122223333";
const SUBSCRIPTION: &str = "00000000-1111-2222-3333-444444444444";

/// Wraps events, in order, as values of one cluster. Formats that batch put all of them into one value; no events give
/// no values. GKE has no entry for a request that was merely received.
pub fn wrap(wire: WireFormat, events: &[&[u8]], cluster: &str) -> Vec<Vec<u8>> {
    if events.is_empty() {
        return Vec::new();
    }
    match wire {
        WireFormat::Native => events.iter().map(|event| event.to_vec()).collect(),
        WireFormat::EventList => vec![event_list(events)],
        WireFormat::Eks => vec![eks(events, cluster)],
        WireFormat::EksGzip => vec![gzip(&eks(events, cluster))],
        WireFormat::Aks => vec![aks(events, cluster)],
        WireFormat::Gke => events.iter().filter_map(|event| gke::entry(event, cluster)).collect(),
    }
}

fn event_list(events: &[&[u8]]) -> Vec<u8> {
    let mut out = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // Items have neither kind nor version of their own.
        let mut item = Object::open(&mut out);
        each_member(event, |key, value| {
            if !matches!(key.raw(), b"kind" | b"apiVersion") {
                item.raw_key(key.raw());
                item.out.extend_from_slice(value);
            }
        });
        item.close();
    }
    out.extend_from_slice(b"]}");
    out
}

fn eks(events: &[&[u8]], cluster: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(envelope_size(events));
    let stream = hash(&[cluster.as_bytes()]);
    let mut envelope = Object::open(&mut out);
    envelope.str("messageType", "DATA_MESSAGE");
    envelope.str("owner", ACCOUNT);
    envelope.str("logGroup", &format!("/aws/eks/{cluster}/cluster"));
    envelope.str("logStream", &format!("kube-apiserver-audit-{stream:016x}{:016x}", stream.rotate_left(29)));
    envelope.raw("subscriptionFilters", br#"["audit-to-kafka"]"#.as_slice());
    envelope.key("logEvents");
    envelope.out.push(b'[');
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            envelope.out.push(b',');
        }
        let seen = Seen::read(event);
        let time_ms = seen.time_ms();
        let number = hash(&[event.get(..256).unwrap_or(event), &index.to_le_bytes()]);
        let mut log_event = Object::open(envelope.out);
        log_event.str("id", &format!("3{time_ms:018}{:037}", u128::from(number)));
        log_event.raw("timestamp", time_ms.to_string().as_bytes());
        log_event.key("message");
        string(log_event.out, event);
        log_event.close();
    }
    envelope.out.push(b']');
    envelope.close();
    out
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    encoder.write_all(text).expect("a vector takes every byte");
    encoder.finish().expect("a vector takes every byte")
}

fn aks(events: &[&[u8]], cluster: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(envelope_size(events));
    let upper = cluster.to_uppercase();
    let resource_id = format!(
        "/SUBSCRIPTIONS/{SUBSCRIPTION}/RESOURCEGROUPS/{upper}-RG/PROVIDERS/MICROSOFT.CONTAINERSERVICE/MANAGEDCLUSTERS/{upper}"
    );
    let namespace = format!("{:016x}00000001", hash(&[cluster.as_bytes()]));
    out.extend_from_slice(br#"{"records":["#);
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let seen = Seen::read(event);
        let mut record = Object::open(&mut out);
        record.str("time", &seven_decimals(&seen.stage_time()));
        record.str("category", "kube-audit");
        record.str("operationName", "Microsoft.ContainerService/managedClusters/diagnosticLogs/Read");
        record.str("ccpNamespace", &namespace);
        record.str("resourceId", &resource_id);
        let mut properties = record.object("properties");
        properties.key("log");
        properties.out.push(b'"');
        escape(properties.out, event);
        properties.out.extend_from_slice(b"\\n\"");
        properties.str("stream", "stdout");
        properties.str("pod", "kube-apiserver-6b9f7c8d5-x2k4p");
        properties.close();
        record.str("Cloud", "AzureCloud");
        record.str("Environment", "prod");
        record.close();
    }
    out.extend_from_slice(b"]}");
    out
}

/// Azure writes seven decimals.
fn seven_decimals(time: &str) -> String {
    match time.strip_suffix('Z').and_then(|time| time.split_once('.')) {
        Some((seconds, decimals)) => format!("{seconds}.{decimals:0<7}Z"),
        None => time.to_owned(),
    }
}

fn envelope_size(events: &[&[u8]]) -> usize {
    events.iter().map(|event| event.len() + event.len() / 4 + 640).sum()
}

/// Calls back for each member of an event with the text of its value; stops where the event is broken.
fn each_member<'a>(event: &'a [u8], mut each: impl FnMut(Text<'a>, &'a [u8])) {
    let _broken: Result<bool, JsonError> = Cursor::new(event).object(|cursor, key| {
        each(key, cursor.raw()?.bytes());
        Ok(())
    });
}

/// What envelopes repeat of an event.
#[derive(Default)]
struct Seen<'a> {
    stage: Option<Text<'a>>,
    request: Option<Text<'a>>,
}

impl<'a> Seen<'a> {
    fn read(event: &'a [u8]) -> Seen<'a> {
        let mut seen = Seen::default();
        let _broken: Result<bool, JsonError> = Cursor::new(event).object(|cursor, key| {
            match key.raw() {
                b"stageTimestamp" => seen.stage = cursor.text()?,
                b"requestReceivedTimestamp" => seen.request = cursor.text()?,
                _ => {}
            }
            Ok(())
        });
        seen
    }

    fn stage_time(&self) -> String {
        self.stage.or(self.request).map(|time| time.decode().into_owned()).unwrap_or_default()
    }

    /// Milliseconds since the epoch; 0 where the event has no time.
    fn time_ms(&self) -> i64 {
        DateTime::parse_from_rfc3339(&self.stage_time()).map_or(0, |time| time.timestamp_millis())
    }
}

/// FNV-1a over all parts: names that look random and are the same every time.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut value: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().copied().flatten() {
        value = (value ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    value
}

#[cfg(test)]
mod tests;
