//! Lines that do not begin as JSON: what container runtimes and exports put in front of it, and what is no JSON at all.

use super::decoder::{Around, Decoder, excerpt, starts_json, trim};
use super::inflate::starts_like_base64;
use super::time::rfc3339_ms;
use crate::model::{EventSink, RejectReason, SkipReason};

/// Longest prefix that is taken for framing: a time, a node's name, a syslog header.
const PREFIX_BYTES_MAX: usize = 256;

const CUT_BY_RUNTIME: &str =
    "; the container runtime split this line (tag P): let the collector join partial lines before it sends them";

/// What one line is.
enum Line<'a> {
    /// A line of a CRI log: its time, whether more pieces follow, and the piece.
    Cri {
        time_ms: Option<i64>,
        partial: bool,
        piece: &'a [u8],
    },
    /// JSON after a prefix, which may be a time.
    Prefixed {
        time_ms: Option<i64>,
        json: &'a [u8],
    },
    /// A log line of a Kubernetes component.
    Klog,
    Other,
}

impl<S: EventSink + ?Sized> Decoder<'_, S> {
    /// Unwraps the lines that a text begins with, up to the first that begins as JSON or base64; returns the text from
    /// there. Lines that are nothing we know are rejected together.
    pub(super) fn lines<'a>(&mut self, text: &'a [u8], around: &Around) -> &'a [u8] {
        let mut at = 0;
        let mut unknown_from = None;
        let mut pieces: Vec<u8> = Vec::new();
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let at_json = starts_json(rest) || starts_like_base64(rest);
            if at_json && at > 0 {
                break;
            }
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
            match classify(trim(rest.get(..length).unwrap_or(rest))) {
                // Unknown lines in a row are one thing: a stack trace, a table, binary data.
                Line::Other => unknown_from = unknown_from.or(Some(at)),
                line => {
                    self.unknown_lines(text, unknown_from.take(), at);
                    self.known_line(&line, &mut pieces, around);
                }
            }
            at += length;
        }
        self.unknown_lines(text, unknown_from, at);
        if !pieces.is_empty() {
            self.content(&pieces, &Around { note: CUT_BY_RUNTIME, ..around.deeper() });
        }
        text.get(at..).unwrap_or_default()
    }

    fn known_line(&mut self, line: &Line<'_>, pieces: &mut Vec<u8>, around: &Around) {
        match *line {
            Line::Cri { partial: true, piece, .. } => pieces.extend_from_slice(piece),
            Line::Cri { partial: false, piece, time_ms } if pieces.is_empty() => {
                self.content(piece, &around.deeper_at(time_ms));
            }
            Line::Cri { partial: false, piece, time_ms } => {
                pieces.extend_from_slice(piece);
                self.content(pieces, &around.deeper_at(time_ms));
                pieces.clear();
            }
            Line::Prefixed { time_ms, json } => self.content(json, &around.deeper_at(time_ms)),
            Line::Klog => self.skip(SkipReason::Category),
            Line::Other => {}
        }
    }

    /// Rejects a run of unknown lines.
    fn unknown_lines(&mut self, text: &[u8], from: Option<usize>, to: usize) {
        let lines = from.and_then(|from| text.get(from..to)).map(trim).unwrap_or_default();
        if lines.is_empty() {
            return;
        }
        let detail = format!(
            "neither JSON nor anything that it is wrapped in, begins with {}: another log in the same topic, or the rest of a line that a collector or container runtime split",
            excerpt(lines)
        );
        self.reject(RejectReason::NotJson, detail, lines);
    }
}

fn classify(line: &[u8]) -> Line<'_> {
    if let Some(cri) = cri(line) {
        return cri;
    }
    if is_klog(line) {
        return Line::Klog;
    }
    let head = line.get(..PREFIX_BYTES_MAX).unwrap_or(line);
    let json = head.windows(2).position(|pair| matches!(pair, [b' ' | b'\t' | b'}', b'{']));
    match json.and_then(|space| line.split_at_checked(space + 1)) {
        // Another log's text around some object is no framing: framing has no quotes and no braces but its last.
        Some((prefix, json)) if !prefix.contains(&b'"') && json.get(1) == Some(&b'"') => {
            let word = prefix.split(|byte| *byte == b' ').next().unwrap_or_default();
            Line::Prefixed { time_ms: rfc3339_ms(word), json }
        }
        _ => Line::Other,
    }
}

/// `<RFC 3339 time> stdout|stderr P|F <piece>`.
fn cri(line: &[u8]) -> Option<Line<'_>> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let time_ms = Some(rfc3339_ms(words.next()?)?);
    let stream = words.next()?;
    let tag = words.next()?;
    let piece = words.next().unwrap_or_default();
    let is_cri = matches!(stream, b"stdout" | b"stderr") && matches!(tag, b"P" | b"F");
    is_cri.then_some(Line::Cri { time_ms, partial: tag == b"P", piece })
}

/// `I0304 10:15:31.000001 …`: how Kubernetes components log.
fn is_klog(line: &[u8]) -> bool {
    let Some((b'I' | b'W' | b'E' | b'F', rest)) = line.split_first() else { return false };
    let is_digits =
        |from: usize, to: usize| rest.get(from..to).is_some_and(|digits| digits.iter().all(u8::is_ascii_digit));
    is_digits(0, 4) && rest.get(4) == Some(&b' ') && is_digits(5, 7) && rest.get(7) == Some(&b':')
}
