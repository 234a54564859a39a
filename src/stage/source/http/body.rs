//! Bodies of requests: inflating them, and whether they are one record or lines.

use std::io::{self, Read};
use std::ops::Range;

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use serde::de::IgnoredAny;

/// Largest window that a zstd body may ask for, as a power of two: the memory it costs us.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// `Content-Encoding`s that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
    Zstd,
}

impl Encoding {
    /// What the headers say. `Err` is text for the sender.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, String> {
        let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if memchr::memmem::find(&kind.to_ascii_lowercase(), b"protobuf").is_some() {
            return Err("protobuf is not understood; send JSON".into());
        }
        let said = headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
        match said.as_deref() {
            None | Some("" | "identity") => Ok(Encoding::Plain),
            Some("gzip" | "x-gzip") => Ok(Encoding::Gzip),
            Some("zstd") => Ok(Encoding::Zstd),
            Some(other) => Err(format!("content-encoding {other} is not understood; send gzip, zstd or none")),
        }
    }
}

/// Inflates; `None` where the result is larger than `limit`. `Err` is text for the sender.
pub(super) fn inflate(encoding: Encoding, bytes: &Bytes, limit: u64) -> Result<Option<Bytes>, String> {
    let result = match encoding {
        Encoding::Plain => return Ok(Some(bytes.clone())),
        Encoding::Gzip => read_limited(flate2::read::MultiGzDecoder::new(&bytes[..]), limit),
        Encoding::Zstd => zstd::stream::read::Decoder::new(&bytes[..]).and_then(|mut decoder| {
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            read_limited(decoder, limit)
        }),
    };
    result.map_err(|error| format!("body does not inflate as its content-encoding says: {error}"))
}

fn read_limited(reader: impl Read, limit: u64) -> io::Result<Option<Bytes>> {
    let mut inflated = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut inflated)?;
    Ok((inflated.len() as u64 <= limit).then(|| inflated.into()))
}

/// Whether a body is NDJSON: its type says so, or its first line is a whole JSON value and another follows.
pub(super) fn is_lines(content_type: Option<&HeaderValue>, bytes: &[u8]) -> bool {
    let kind = content_type.map(|value| value.as_bytes().to_ascii_lowercase()).unwrap_or_default();
    let says = [&b"ndjson"[..], b"jsonl", b"json-seq", b"json-lines"];
    if says.iter().any(|word| memchr::memmem::find(&kind, word).is_some()) {
        return true;
    }
    let bytes = bytes.trim_ascii();
    let Some(end) = memchr::memchr(b'\n', bytes) else { return false };
    bytes.get(..end).is_some_and(|first| serde_json::from_slice::<IgnoredAny>(first).is_ok())
}

/// Where the lines are, empty ones left out.
pub(super) fn lines(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]);
    for end in ends {
        if bytes.get(start..end).is_some_and(|line| !line.trim_ascii().is_empty()) {
            ranges.push(start..end);
        }
        start = end + 1;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_from_pretty_printed_json() {
        assert!(is_lines(None, b"{\"a\":1}\n{\"a\":2}\n"));
        assert!(!is_lines(None, b"{\n  \"a\": 1\n}\n"));
        assert!(!is_lines(None, b"{\"kind\":\"EventList\"}\n"));
        assert!(is_lines(Some(&HeaderValue::from_static("application/x-ndjson")), b"{\"a\":1}"));
        assert_eq!(lines(b"ab\n\r\n\ncd"), vec![0..2, 6..8]);
        assert_eq!(lines(b"ab\n"), vec![0..2]);
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![b' '; 1 << 20]).expect("memory");
        let bomb: Bytes = encoder.finish().expect("memory").into();
        assert_eq!(inflate(Encoding::Gzip, &bomb, 1 << 10), Ok(None));
        assert!(inflate(Encoding::Gzip, &bomb, 1 << 20).expect("whole").is_some());
        assert!(inflate(Encoding::Gzip, &bomb.slice(..bomb.len() / 2), 1 << 20).is_err());
        assert!(inflate(Encoding::Zstd, &bomb, 1 << 20).is_err());
    }
}
