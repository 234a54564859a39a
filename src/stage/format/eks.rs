//! EKS: CloudWatch Logs subscriptions, and what Lambda, Kinesis and Firehose wrap them in.

use super::decoder::{Around, Decoder};
use super::origin::Parts;
use super::shape::{Shape, text};
use crate::json::{Cursor, JsonError};
use crate::model::{Cloud, EventSink, RejectReason, SkipReason};

/// Log streams of the audit log; `kube-apiserver-<hex>` beside them is klog text.
const AUDIT_STREAM: &[u8] = b"kube-apiserver-audit-";

const CUT_BY_CLOUDWATCH: &str =
    "; CloudWatch cuts long messages and the rest is not delivered: nothing can bring it back";

impl<S: EventSink + ?Sized> Decoder<'_, S> {
    /// A CloudWatch Logs envelope: log group, stream and a batch of messages.
    pub(super) fn cloud_watch(&mut self, envelope: &[u8], shape: &Shape<'_>, around: &Around) {
        if text(shape.message_type).is_some_and(|kind| kind.raw() == b"CONTROL_MESSAGE") {
            return self.skip(SkipReason::HealthCheck);
        }
        if !self.admits(Cloud::Eks, envelope) {
            return;
        }
        let events = shape.log_events.unwrap_or_default();
        if text(shape.log_stream).is_some_and(|stream| !stream.raw().starts_with(AUDIT_STREAM)) {
            return self.elements(events, |decoder, _| decoder.skip(SkipReason::Category));
        }
        let group = text(shape.log_group).map(|group| group.decode()).unwrap_or_default();
        let account = text(shape.owner).map(|owner| owner.decode());
        let cluster = group.strip_prefix("/aws/eks/").and_then(|rest| rest.strip_suffix("/cluster"));
        let origin = match cluster {
            Some(cluster) => self.origins.get(Parts {
                cloud: Cloud::Eks,
                account: account.as_deref().or(self.options.account.as_deref()),
                region: self.options.region.as_deref(),
                resource_group: None,
                cluster,
            }),
            None => self.origins.bare(Cloud::Eks, None, self.options, self.record, self.lane),
        };
        let inside = Around { origin: Some(origin), note: CUT_BY_CLOUDWATCH, ..around.clone() };
        self.elements(events, |decoder, event| decoder.log_event(event, &inside));
    }

    fn log_event(&mut self, event: &[u8], around: &Around) {
        let mut time_ms = None;
        let mut message = None;
        let walked = Cursor::new(event).object(|cursor, key| {
            match key.raw() {
                b"timestamp" => time_ms = cursor.integer()?,
                b"message" => {
                    message = Some(cursor.rest());
                    message = Some(cursor.raw()?.bytes());
                }
                _ => {}
            }
            Ok::<_, JsonError>(())
        });
        match (message, walked) {
            (Some(message), _) => self.value(message, &around.deeper_at(time_ms)),
            (None, walked) => {
                let detail = match walked {
                    Ok(true) => "a CloudWatch log event without `message`".to_owned(),
                    Ok(false) => "a CloudWatch log event that is no object".to_owned(),
                    Err(error) => format!("a CloudWatch log event that breaks off before its `message`: {error}"),
                };
                self.reject(RejectReason::Malformed, detail, event);
            }
        }
    }

    /// What a Lambda function is handed: `{"awslogs":{"data":"H4sI…"}}`.
    pub(super) fn lambda(&mut self, envelope: &[u8], shape: &Shape<'_>, around: &Around) {
        let data = shape.awslogs.and_then(|awslogs| text(Shape::read(awslogs).data));
        match data {
            Some(data) => self.encoded(data, &around.deeper()),
            None => self.reject(RejectReason::Malformed, "`awslogs` without a whole string in `data`", envelope),
        }
    }

    /// One record of a Firehose or Kinesis batch: `data`, `Data` or `kinesis.data`.
    pub(super) fn data(&mut self, element: &[u8], shape: &Shape<'_>, around: &Around) {
        let kinesis = shape.kinesis.and_then(|kinesis| Shape::read(kinesis).data);
        let data = shape.data.or(shape.kinesis_data).or(kinesis);
        match (text(data), data) {
            (Some(data), _) => self.encoded(data, around),
            (None, Some(data)) if data.starts_with(b"{") => self.value(data, &around.deeper()),
            _ => self.reject(RejectReason::Malformed, "`data` is neither a whole string nor an object", element),
        }
    }
}
