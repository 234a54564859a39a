//! Unwraps one record: what a run of bytes is, layer by layer, down to events.
//!
//! `content` takes bytes of unknown nature (the payload, what came out of gzip or base64, a string inside an
//! envelope); `value` takes one JSON value; `object` tells its form and hands it to the family that knows it. Each
//! layer is a copy of [`Around`] one level deeper, so that envelopes inside envelopes are bounded.

use std::sync::Arc;

use serde::de::IgnoredAny;

use super::inflate::{self, InflateError};
use super::native::{self, Ending, Walked};
use super::origin::Origins;
use super::shape::{Form, Shape};
use super::{Format, FormatOptions};
use crate::json::{Cursor, JsonError, Text};
use crate::model::{Cloud, EventContext, EventSink, Lane, Origin, RawRecord, RejectReason, SkipReason};

/// Rejects told one by one; a record with more is dead-lettered once more as a whole instead, so that a list of a
/// million wrong numbers does not become a million dead letters.
const REJECTS_MAX: usize = 1_000;
/// How often in one run of bytes a value that its line does not close is looked for across lines.
const ACROSS_LINES_MAX: usize = 4;
/// A buffer that grew beyond this is not kept.
const BUFFER_KEPT_BYTES: usize = 4 << 20;
const BUFFERS_KEPT: usize = 8;
/// What CloudWatch puts where it cuts a message.
const TRUNCATED: &[u8] = b"[Truncated...]";

/// What the envelopes unwrapped so far say about what is inside.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    pub origin: Option<Arc<Origin>>,
    /// Cloud of events that `origin` does not place.
    pub cloud: Option<Cloud>,
    pub time_ms: Option<i64>,
    pub no_groups: bool,
    /// Objects are items of an EventList.
    pub items: bool,
    /// What may be wrong with the text inside and how to mend it, for rejects.
    pub note: &'static str,
    /// Envelopes so far.
    pub depth: usize,
}

impl Around {
    /// The same, one envelope further in.
    pub fn deeper(&self) -> Around {
        Around { depth: self.depth + 1, items: false, ..self.clone() }
    }

    /// One envelope further in, and it gives a time.
    pub fn deeper_at(&self, time_ms: Option<i64>) -> Around {
        Around { time_ms: time_ms.or(self.time_ms), ..self.deeper() }
    }
}

/// Unwraps one record.
pub(super) struct Decoder<'r, S: EventSink + ?Sized> {
    pub options: &'r FormatOptions,
    pub origins: &'r mut Origins,
    pub record: &'r RawRecord,
    pub lane: &'r Lane,
    buffers: &'r mut Vec<Vec<u8>>,
    sink: &'r mut S,
    /// The record as it came.
    payload: &'r [u8],
    /// Elements told so far.
    index: u32,
    rejected: usize,
    /// Bytes that came out of compressed parts so far.
    inflated: usize,
}

impl<'r, S: EventSink + ?Sized> Decoder<'r, S> {
    pub fn new(
        options: &'r FormatOptions,
        origins: &'r mut Origins,
        buffers: &'r mut Vec<Vec<u8>>,
        record: &'r RawRecord,
        lane: &'r Lane,
        sink: &'r mut S,
    ) -> Decoder<'r, S> {
        Decoder { options, origins, record, lane, buffers, sink, payload: b"", index: 0, rejected: 0, inflated: 0 }
    }

    /// Unwraps the record's payload.
    pub fn record(mut self, payload: &'r [u8]) {
        self.payload = payload;
        self.content(payload, &Around::default());
        if self.index == 0 {
            self.skip(SkipReason::Empty);
        }
        if self.rejected > REJECTS_MAX {
            let more = self.rejected - REJECTS_MAX;
            let detail = format!("{more} more elements of this record could not be read; this is the whole record");
            self.sink.reject(RejectReason::Malformed, detail, self.index, payload);
        }
    }

    /// An element that is rightly not evaluated.
    pub fn skip(&mut self, reason: SkipReason) {
        self.index = self.index.saturating_add(1);
        self.sink.skip(reason);
    }

    /// An element that cannot be read.
    pub fn reject(&mut self, reason: RejectReason, detail: impl Into<String>, bytes: &[u8]) {
        self.rejected += 1;
        if self.rejected <= REJECTS_MAX {
            let whole = trim(self.payload);
            let whole = [Some(whole), whole.strip_suffix(TRUNCATED).map(trim)];
            // All but the edges of the record: kept as it came.
            let bytes = if whole.contains(&Some(bytes)) { self.payload } else { bytes };
            self.sink.reject(reason, detail.into(), self.index, bytes);
        }
        self.index = self.index.saturating_add(1);
    }

    /// Whether the source's configuration lets a cloud's envelope through; if not, the element is rejected.
    pub fn admits(&mut self, cloud: Cloud, bytes: &[u8]) -> bool {
        let format = self.options.format;
        let admitted = format == Format::Auto || format.cloud() == cloud && format != Format::Native;
        if !admitted {
            let (cloud, format) = (cloud.as_str(), format.as_str());
            let detail = format!(
                "an envelope of {cloud}, but this source's format is `{format}`: set it to `auto` or `{cloud}`"
            );
            self.reject(RejectReason::UnknownFormat, detail, bytes);
        }
        admitted
    }

    /// An empty buffer.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Takes a buffer back for the next user.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= BUFFER_KEPT_BYTES && self.buffers.len() < BUFFERS_KEPT {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    /// Rejects what is wrapped too deep.
    fn too_deep(&mut self, bytes: &[u8], around: &Around) -> bool {
        let limit = self.options.limits.unwrap;
        if around.depth <= limit {
            return false;
        }
        let detail = format!("wrapped more than {limit} times: raise `unwrap` if a pipeline really does that");
        self.reject(RejectReason::TooDeep, detail, bytes);
        true
    }

    /// Unwraps bytes of unknown nature, which may hold several values.
    pub fn content(&mut self, bytes: &[u8], around: &Around) {
        let mut rest = bytes;
        // A damaged event is found again below, within its line.
        if native::starts_as_event(bytes)
            && around.depth <= self.options.limits.unwrap
            && let Some(end) = self.whole_event(bytes, around)
        {
            rest = bytes.get(end..).unwrap_or_default();
        }
        rest = trim_start(rest);
        // The last bytes of gzip are the high bytes of a length, mostly NULs: nothing that may be trimmed.
        let zipped = rest.starts_with(&inflate::GZIP);
        rest = if zipped { rest } else { trim(rest) };
        if rest.is_empty() || self.too_deep(rest, around) {
            return;
        }
        if zipped {
            return self.gzip(rest, around);
        }
        if rest == b"null" {
            return self.skip(SkipReason::Empty);
        }
        while !rest.is_empty() {
            rest = if starts_json(rest) { self.json_run(rest, around) } else { self.text_run(rest, around) };
            rest = trim_start(rest);
        }
    }

    /// Unwraps the JSON values that a text begins with; returns the text from where it is no longer JSON.
    fn json_run<'a>(&mut self, text: &'a [u8], around: &Around) -> &'a [u8] {
        let mut at = 0;
        let mut segment_end = 0;
        let mut across_lines = ACROSS_LINES_MAX;
        loop {
            let rest = text.get(at..).unwrap_or_default();
            let skipped = rest.len() - trim_start(rest).len();
            at += skipped;
            let rest = rest.get(skipped..).unwrap_or_default();
            if !starts_json(rest) {
                return rest;
            }
            if segment_end <= at {
                segment_end = at + next_start(rest);
            }
            let segment = text.get(at..segment_end).unwrap_or(rest);
            let mut cursor = Cursor::new(segment);
            if let Ok(raw) = cursor.raw() {
                if rest.starts_with(b"\"") {
                    // A bare string is an envelope of its own; one under a key is part of that key's.
                    self.value(raw.bytes(), &around.deeper());
                } else {
                    self.value(raw.bytes(), around);
                }
                at += cursor.position();
                continue;
            }
            // Not closed within its line: written over several lines, or cut.
            if segment.len() < rest.len() && across_lines > 0 {
                across_lines -= 1;
                if let Some(end) = value_end(rest) {
                    self.value(rest.get(..end).unwrap_or(rest), around);
                    at += end;
                    continue;
                }
            }
            self.damaged(segment, around);
            at = segment_end;
        }
    }

    /// A value that does not end.
    fn damaged(&mut self, text: &[u8], around: &Around) {
        let trimmed = trim(text);
        let head = trimmed.strip_suffix(TRUNCATED).unwrap_or(trimmed);
        if matches!(trim(head), b"" | b"[") {
            return;
        }
        self.value(head, around);
    }

    /// Unwraps lines that do not begin as JSON; returns the text from the first line that does.
    fn text_run<'a>(&mut self, text: &'a [u8], around: &Around) -> &'a [u8] {
        if inflate::starts_like_base64(text) {
            let end = text.iter().position(|byte| !inflate::is_base64_byte(*byte) && !byte.is_ascii_whitespace());
            let run = text.get(..end.unwrap_or(text.len())).unwrap_or(text);
            let end = memchr::memmem::find(run, b"\nH4sI").map_or(run.len(), |line| line + 1);
            let (run, rest) = text.split_at(end);
            self.base64(run, around);
            return rest;
        }
        self.lines(text, around)
    }

    /// Decodes base64 and unwraps what comes out.
    pub fn base64(&mut self, text: &[u8], around: &Around) {
        match inflate::unbase64(text) {
            Some(bytes) => self.content(&bytes, &around.deeper()),
            None => {
                let detail = "looks like base64 but does not decode: cut, or changed on its way";
                self.reject(RejectReason::Undecodable, detail, text);
            }
        }
    }

    /// A string that its envelope encodes in base64, or that something decoded already.
    pub fn encoded(&mut self, text: Text<'_>, around: &Around) {
        let decoded = text.decode();
        let plain = trim(decoded.as_bytes());
        match plain.first() {
            Some(b'{' | b'[') => self.content(plain, around),
            _ => self.base64(plain, around),
        }
    }

    fn gzip(&mut self, bytes: &[u8], around: &Around) {
        let limit = self.options.limits.decompressed_bytes;
        let mut out = self.buffer();
        let result = inflate::gunzip(bytes, limit.saturating_sub(self.inflated), &mut out);
        self.inflated = self.inflated.saturating_add(out.len());
        if matches!(result, Err(InflateError::TooLarge { .. })) {
            let detail = format!(
                "gzip of which more than {limit} bytes come out: raise `decompressed_bytes` or send smaller batches"
            );
            self.reject(RejectReason::TooLarge, detail, bytes);
            return;
        }
        self.content(&out, &around.deeper());
        self.give_back(out);
        if let Err(error) = result {
            let detail = format!("{error}: cut or damaged on its way; what came out before that was read");
            self.reject(RejectReason::Undecodable, detail, bytes);
        }
    }

    /// Unwraps one JSON value, whole or cut.
    pub fn value(&mut self, text: &[u8], around: &Around) {
        if self.too_deep(text, around) {
            return;
        }
        match text.first() {
            Some(b'{') => self.object(text, around),
            Some(b'[') => self.array(text, around),
            Some(b'"') => match Cursor::new(text).text() {
                Ok(Some(inside)) => self.content(inside.decode().as_bytes(), around),
                _ => self.content(cut_string(text).as_bytes(), around),
            },
            _ if text == b"null" => self.skip(SkipReason::Empty),
            _ => {
                let detail = format!("expected an audit event or a list of them, found {}", excerpt(text));
                self.reject(RejectReason::UnknownFormat, detail, text);
            }
        }
    }

    fn array(&mut self, text: &[u8], around: &Around) {
        let inside = around.deeper();
        self.elements(text, |decoder, element| decoder.value(element, &inside));
    }

    /// Calls back for each element of an array, for a cut last one too. Text between elements that is no value is
    /// rejected by itself.
    pub fn elements(&mut self, array: &[u8], mut each: impl FnMut(&mut Self, &[u8])) {
        let Some((b'[', mut rest)) = array.split_first() else {
            if !array.is_empty() {
                let detail = format!("expected a list, found {}", excerpt(array));
                self.reject(RejectReason::UnknownFormat, detail, array);
            }
            return;
        };
        loop {
            rest = trim_start(rest);
            if rest.is_empty() {
                return;
            }
            let mut cursor = Cursor::new(rest);
            match cursor.raw() {
                Ok(raw) => {
                    each(self, raw.bytes());
                    rest = cursor.rest();
                }
                Err(JsonError::Cut) => {
                    let head = trim(rest);
                    return each(self, head.strip_suffix(TRUNCATED).unwrap_or(head));
                }
                Err(JsonError::Malformed { .. }) => {
                    let end = memchr::memchr2(b',', b'{', rest).unwrap_or(rest.len());
                    let (garbage, after) = rest.split_at(end);
                    let detail = format!("no JSON value between the elements of a list: {}", excerpt(garbage));
                    self.reject(RejectReason::Malformed, detail, garbage);
                    rest = after;
                }
            }
        }
    }

    fn object(&mut self, text: &[u8], around: &Around) {
        if native::starts_as_event(text) || around.items && native::starts_as_item(text) {
            return self.event(text, around);
        }
        let shape = Shape::read(text);
        match shape.form() {
            Form::Event => self.event(text, around),
            Form::EventList => {
                let inside = Around { items: true, ..around.deeper() };
                self.elements(shape.items.unwrap_or_default(), |decoder, item| decoder.value(item, &inside));
            }
            Form::CoreEvent | Form::OtherLogEntry => self.skip(SkipReason::Foreign),
            Form::OpenShiftOther => self.skip(SkipReason::Category),
            Form::CloudWatch => self.cloud_watch(text, &shape, around),
            Form::Lambda => self.lambda(text, &shape, around),
            Form::Records => {
                let inside = around.deeper();
                let records = shape.records.or(shape.kinesis_records).unwrap_or_default();
                self.elements(records, |decoder, record| decoder.value(record, &inside));
            }
            Form::Data => self.data(text, &shape, around),
            Form::LogEntry => self.log_entry(text, &shape, around),
            Form::AzureRecord => self.azure_record(text, &shape, around),
            Form::AzureRow => self.azure_row(text, &shape, around),
            Form::PubSub => self.pub_sub(text, &shape, around),
            Form::Connect => self.value(shape.payload.unwrap_or_default(), &around.deeper()),
            Form::Otlp => self.otlp(&shape, around),
            Form::AnyValue => self.any_value(text, &shape, around),
            Form::Wrapper => self.wrapper(text, &shape, around),
            Form::Rancher => {
                let detail = "Rancher's own API audit log is not a Kubernetes audit log: send the audit log of the cluster's kube-apiserver";
                self.reject(RejectReason::Unsupported, detail, text);
            }
            Form::Unknown => self.unknown(text, &shape, around),
        }
    }

    fn unknown(&mut self, text: &[u8], shape: &Shape<'_>, around: &Around) {
        match shape.damage {
            Some(error) => {
                let detail = format!("{}{}", broken(error, "an object of unknown form"), around.note);
                self.reject(RejectReason::Malformed, detail, text);
            }
            None => {
                let detail = format!("no audit event of a known form; its keys are {}", keys(text));
                self.reject(RejectReason::UnknownFormat, detail, text);
            }
        }
    }

    /// Hands on the event that the text begins with unless it is damaged; returns where it ends.
    fn whole_event(&mut self, text: &[u8], around: &Around) -> Option<usize> {
        let walked = native::walk(text);
        let end = match walked.ending {
            Ending::Complete => walked.end,
            Ending::NotEvaluated => {
                let mut cursor = Cursor::new(text);
                cursor.skip().ok()?;
                cursor.position()
            }
            Ending::Damaged(_) => return None,
        };
        self.walked(text.get(..end).unwrap_or(text), &walked, around);
        Some(end)
    }

    /// Hands on one canonical event.
    pub fn event(&mut self, text: &[u8], around: &Around) {
        let walked = native::walk(text);
        self.walked(text, &walked, around);
    }

    fn walked(&mut self, text: &[u8], walked: &Walked<'_>, around: &Around) {
        let limit = self.options.limits.event_bytes;
        match walked.ending {
            Ending::NotEvaluated => self.skip(SkipReason::Stage),
            _ if walked.fields.text.len() > limit => {
                let detail = format!(
                    "an event of {} bytes, the limit is {limit}: raise `event_bytes` or log less of it in the audit policy",
                    walked.fields.text.len()
                );
                self.reject(RejectReason::TooLarge, detail, text);
            }
            Ending::Complete if walked.says_something() => self.emit(walked, around),
            Ending::Complete => {
                let detail = "an audit event without verb, requestURI, user, objectRef and auditID";
                self.reject(RejectReason::Malformed, detail, text);
            }
            Ending::Damaged(_) if walked.has_head() => self.emit(walked, around),
            Ending::Damaged(error) => {
                let detail = format!(
                    "{} before its verb or URI and its user or auditID could be read{}",
                    broken(error, "an audit event"),
                    around.note
                );
                self.reject(RejectReason::Malformed, detail, text);
            }
        }
    }

    fn emit(&mut self, walked: &Walked<'_>, around: &Around) {
        let origin = match &around.origin {
            Some(origin) => Arc::clone(origin),
            None => {
                let cloud = match around.cloud.or(self.options.cloud) {
                    Some(cloud) => cloud,
                    None if walked.openshift => Cloud::OpenShift,
                    None => self.options.format.cloud(),
                };
                let hint = walked.cluster.map(|cluster| cluster.decode());
                self.origins.bare(cloud, hint.as_deref(), self.options, self.record, self.lane)
            }
        };
        let context =
            EventContext { origin, index: self.index, envelope_time_ms: around.time_ms, no_groups: around.no_groups };
        self.index = self.index.saturating_add(1);
        self.sink.event(&walked.fields, &context);
    }
}

/// Whether a text begins as JSON that may hold events: an object, a list, or a string that takes the whole line (or would,
/// were it not cut). A quote alone is no sign: the rest of a split line may begin with one.
pub(super) fn starts_json(text: &[u8]) -> bool {
    match text.first() {
        Some(b'{' | b'[') => true,
        Some(b'"') => {
            let mut cursor = Cursor::new(text);
            match cursor.text() {
                Ok(_) => {
                    let after = cursor.rest().iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | 0));
                    matches!(after, None | Some(b'\n'))
                }
                Err(_) => {
                    let inside = text.get(1..).unwrap_or_default();
                    inside.starts_with(b"{") || inflate::starts_like_base64(inside)
                }
            }
        }
        _ => false,
    }
}

/// Where the next value begins on a line of its own, or the end.
fn next_start(text: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', text)
        .map(|newline| newline + 1)
        .find(|start| matches!(text.get(*start), Some(b'{' | b'[')))
        .unwrap_or(text.len())
}

/// Where a value that is written over several lines ends, if it is valid JSON.
fn value_end(text: &[u8]) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

/// The inside of a string literal whose end was cut off, an incomplete escape dropped.
fn cut_string(literal: &[u8]) -> String {
    let inside = literal.get(1..).unwrap_or_default();
    let tail_from = inside.len().saturating_sub(6);
    let mut end = inside.len();
    let mut at =
        tail_from + inside.get(tail_from..).map_or(0, |tail| memchr::memchr(b'\\', tail).unwrap_or(tail.len()));
    // A backslash before the tail may itself be escaped: step back over the run of them.
    while at > 0 && inside.get(at - 1) == Some(&b'\\') {
        at -= 1;
    }
    while at < inside.len() {
        let length = match (inside.get(at), inside.get(at + 1)) {
            (Some(b'\\'), Some(b'u')) => 6,
            (Some(b'\\'), _) => 2,
            _ => 1,
        };
        if at + length > inside.len() {
            end = at;
        }
        at += length;
    }
    let mut closed = Vec::with_capacity(end + 2);
    closed.push(b'"');
    closed.extend_from_slice(inside.get(..end).unwrap_or(inside));
    closed.push(b'"');
    match Cursor::new(&closed).text() {
        Ok(Some(text)) => text.decode().into_owned(),
        _ => String::new(),
    }
}

/// What is wrong with a value, for a reject's detail.
fn broken(error: JsonError, what: &str) -> String {
    match error {
        JsonError::Cut => format!("{what} is cut"),
        JsonError::Malformed { at } => format!("{what} is no valid JSON at byte {at}"),
    }
}

/// The first keys of an object, for a reject's detail.
fn keys(text: &[u8]) -> String {
    let mut names = Vec::new();
    let walked = Cursor::new(text).object(|_, key| {
        if names.len() == 8 {
            return Err(JsonError::Cut);
        }
        names.push(excerpt(key.raw()));
        Ok(())
    });
    if walked.is_err() {
        names.push("…".to_owned());
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The beginning of a text, quoted, for a reject's detail.
pub(super) fn excerpt(text: &[u8]) -> String {
    const SHOWN_BYTES: usize = 40;
    let head = text.get(..SHOWN_BYTES).unwrap_or(text);
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", head.escape_ascii())
}

/// What may stand around values: white space, NUL padding, a byte order mark, commas and closing brackets of a list that
/// was split into lines.
pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    let mut rest = text;
    loop {
        match rest {
            [b' ' | b'\n' | b'\r' | b'\t' | 0 | b',' | b']', tail @ ..] => rest = tail,
            [0xEF, 0xBB, 0xBF, tail @ ..] => rest = tail,
            _ => return rest,
        }
    }
}

/// As [`trim_start`], and white space and NULs at the end.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let mut rest = trim_start(text);
    while let [head @ .., b' ' | b'\n' | b'\r' | b'\t' | 0] = rest {
        rest = head;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_string_loses_only_its_broken_escape() {
        for (literal, expected) in [
            (r#""abc"#, "abc"),
            (r#""abc\"#, "abc"),
            (r#""abc\\"#, "abc\\"),
            (r#""abc\\\"#, "abc\\"),
            (r#""abc\u00"#, "abc"),
            (r#""abc\u0041"#, "abcA"),
            (r#""abc\n\u004"#, "abc\n"),
            (r#"""#, ""),
            (r#""\\\\\\\\\u1"#, "\\\\\\\\"),
        ] {
            assert_eq!(cut_string(literal.as_bytes()), expected, "{literal}");
        }
    }

    #[test]
    fn values_are_found_on_lines_of_their_own() {
        assert_eq!(next_start(b"{\n  \"a\": 1\n}\n{"), 13);
        assert_eq!(next_start(b"{}"), 2);
    }
}
