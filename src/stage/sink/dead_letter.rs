//! Dead letters: records that could not be read, kept with the reason so that somebody can mend and replay them.
//!
//! One line of JSON each:
//!
//! | key | value |
//! |---|---|
//! | `lane`, `offset`, `index` | where it was; `index` is the element inside its record |
//! | `reason`, `detail` | the kind of fault, and what is wrong and how to mend it |
//! | `size`, `blake3` | of the original bytes, also where they are cut |
//! | `text` or `base64` | the original bytes, as text where they are UTF-8 |
//! | `cut` | true where they do not fit into the sink's limit |
//!
//! Nothing is lost silently: a letter that cannot be stored is an error, and the lane stops. Files are readable by
//! their owner only, as original bytes may hold secrets.

use std::io::Write;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;

use super::file::{Access, Lines};
use super::webhook::{Answer, Poster};
use super::{DeadLetterSink, FileTarget, HttpTarget, RetryPolicy, SinkError, SinkFuture, SinkStats, WebhookOptions};
use crate::model::DeadLetter;

/// Longest line in files, on standard error and to webhooks, bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Longest `detail`, bytes.
const DETAIL_BYTES_MAX: usize = 4_096;

#[derive(Serialize)]
struct Line<'a> {
    lane: &'a str,
    offset: u64,
    index: u32,
    reason: &'a str,
    detail: &'a str,
    size: usize,
    blake3: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// A dead letter as one line of JSON, without newline, no longer than `bytes_max`.
///
/// The original is cut where it has to be; everything about it (position, size, hash) is always whole.
pub fn encode(letter: &DeadLetter, bytes_max: usize) -> Bytes {
    let hash = blake3::hash(&letter.bytes).to_hex();
    let mut line = Line {
        lane: &letter.lane,
        offset: letter.offset,
        index: letter.index,
        reason: letter.reason,
        detail: prefix(&letter.detail, DETAIL_BYTES_MAX),
        size: letter.bytes.len(),
        blake3: &hash,
        cut: true,
        text: Some(""),
        base64: None,
    };
    let budget = bytes_max.saturating_sub(json(&line).len());
    match std::str::from_utf8(&letter.bytes) {
        Ok(text) => {
            let kept = escaped_prefix(text, budget);
            line.cut = kept.len() < text.len();
            line.text = Some(kept);
        }
        Err(_) => {
            // Four characters for three bytes; the key is two bytes longer than `text`.
            let room = budget.saturating_sub(2) / 4 * 3;
            let kept = letter.bytes.get(..room).unwrap_or(&letter.bytes);
            line.cut = kept.len() < letter.bytes.len();
            line.text = None;
            line.base64 = Some(STANDARD.encode(kept));
        }
    }
    json(&line).into()
}

fn json(line: &Line<'_>) -> Vec<u8> {
    serde_json::to_vec(line).expect("strings and numbers always serialise")
}

/// The longest beginning that takes at most `bytes_max` bytes as it is.
fn prefix(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The longest beginning that takes at most `bytes_max` bytes inside a JSON string.
fn escaped_prefix(text: &str, bytes_max: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            c => c.len_utf8(),
        };
        if used > bytes_max {
            return text.get(..at).unwrap_or_default();
        }
    }
    text
}

/// Dead letters into a file.
#[derive(Debug)]
pub struct FileDeadLetters {
    lines: Lines,
}

impl FileDeadLetters {
    /// Opens or creates the file, for its owner only.
    ///
    /// # Errors
    /// As [`super::FileSink::open`].
    pub fn open(target: &FileTarget, retry: RetryPolicy, stats: Arc<SinkStats>) -> Result<Self, SinkError> {
        Ok(FileDeadLetters { lines: Lines::open(target, Access::Owner, retry, stats)? })
    }
}

impl DeadLetterSink for FileDeadLetters {
    fn deliver<'a>(&'a mut self, letters: &'a [DeadLetter]) -> SinkFuture<'a> {
        Box::pin(self.lines.append(letters.iter().map(|letter| encode(letter, LINE_BYTES_MAX)).collect()))
    }

    fn flush(&mut self) -> SinkFuture<'_> {
        Box::pin(self.lines.sync())
    }
}

/// Dead letters to standard error, so that standard output stays clean.
#[derive(Debug)]
pub struct StderrDeadLetters {
    stats: Arc<SinkStats>,
}

impl StderrDeadLetters {
    /// Standard error of this process.
    pub fn new(stats: Arc<SinkStats>) -> Self {
        StderrDeadLetters { stats }
    }
}

impl DeadLetterSink for StderrDeadLetters {
    fn deliver<'a>(&'a mut self, letters: &'a [DeadLetter]) -> SinkFuture<'a> {
        let mut bytes = Vec::new();
        for letter in letters {
            bytes.extend_from_slice(&encode(letter, LINE_BYTES_MAX));
            bytes.push(b'\n');
        }
        Box::pin(async move {
            let job = tokio::task::spawn_blocking(move || std::io::stderr().lock().write_all(&bytes));
            let written = job.await.map_err(|e| SinkError::internal(format!("writing dead letters failed: {e}")))?;
            written.map_err(|error| SinkError {
                retry: false,
                ..SinkError::external(format!("cannot write dead letters to standard error: {error}"))
            })?;
            self.stats.delivered(letters.len());
            Ok(())
        })
    }

    fn flush(&mut self) -> SinkFuture<'_> {
        Box::pin(async { Ok(()) })
    }
}

/// Dead letters to a webhook, one POST each.
#[derive(Debug)]
pub struct WebhookDeadLetters {
    poster: Poster,
}

impl WebhookDeadLetters {
    /// Checks the configuration; connects when there is something to send.
    ///
    /// # Errors
    /// As [`super::WebhookSink::open`].
    pub fn open(
        target: &HttpTarget,
        options: &WebhookOptions,
        retry: RetryPolicy,
        stats: Arc<SinkStats>,
    ) -> Result<Self, SinkError> {
        Ok(WebhookDeadLetters { poster: Poster::new(target, options, retry, stats)? })
    }
}

impl DeadLetterSink for WebhookDeadLetters {
    fn deliver<'a>(&'a mut self, letters: &'a [DeadLetter]) -> SinkFuture<'a> {
        Box::pin(async move {
            for letter in letters {
                // Lanes may have any name, header values may not.
                let identity = format!("{}\0{}\0{}", letter.lane, letter.offset, letter.index);
                let key = format!("{}:{}", blake3::hash(identity.as_bytes()).to_hex(), letter.index);
                match self.poster.post(&key, encode(letter, LINE_BYTES_MAX)).await? {
                    Answer::Taken => self.poster.stats.delivered(1),
                    Answer::Rejected(why) => {
                        let place = format!("{} offset {} index {}", letter.lane, letter.offset, letter.index);
                        let message = format!("`{}` rejects the dead letter of {place}: {why}", self.poster.name);
                        return Err(SinkError { retry: false, ..SinkError::external(message) });
                    }
                }
            }
            Ok(())
        })
    }

    fn flush(&mut self) -> SinkFuture<'_> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::stage::sink::samples::letter;

    fn line(bytes: &[u8], bytes_max: usize) -> Value {
        let line = encode(&letter(bytes.to_vec()), bytes_max);
        assert!(line.len() <= bytes_max, "{} bytes", line.len());
        assert!(!line.contains(&b'\n'));
        serde_json::from_slice(&line).expect("JSON")
    }

    #[test]
    fn text_is_kept_as_text() {
        let expected = serde_json::json!({
            "lane": "audit/3", "offset": 42, "index": 1, "reason": "malformed", "detail": "expected `,` at byte 17",
            "size": 9, "blake3": blake3::hash(b"{\"a\" \"b\n").to_hex().as_str(), "text": "{\"a\" \"b\n",
        });
        let mut expected = expected;
        expected["size"] = 8.into();
        assert_eq!(line(b"{\"a\" \"b\n", LINE_BYTES_MAX), expected);
    }

    #[test]
    fn other_bytes_are_kept_as_base64() {
        let kept = line(&[0x1f, 0x8b, 0xff], LINE_BYTES_MAX);
        assert_eq!(kept["base64"], "H4v/");
        assert!(kept.get("text").is_none() && kept.get("cut").is_none());
    }

    #[test]
    fn whatever_its_size_it_fits_and_says_what_is_missing() {
        for original in ["x".repeat(3_000), "\u{1}\"é".repeat(1_000), "日本".repeat(700)] {
            let kept = line(original.as_bytes(), 1_000);
            assert_eq!(kept["cut"], true);
            assert_eq!(kept["size"], original.len());
            assert_eq!(kept["blake3"], blake3::hash(original.as_bytes()).to_hex().as_str());
            let text = kept["text"].as_str().expect("text");
            assert!(original.starts_with(text) && text.len() > 100);
        }
        let kept = line(&[0xff; 3_000], 1_000);
        assert_eq!(kept["cut"], true);
        assert!(STANDARD.decode(kept["base64"].as_str().expect("text")).expect("base64").len() > 400);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let long = DeadLetter { detail: "é".repeat(10_000), ..letter("x") };
        assert!(encode(&long, LINE_BYTES_MAX).len() < 5_000);
    }

    #[tokio::test]
    async fn files_hold_one_line_each_for_their_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("dead.ndjson");
        let stats = Arc::new(SinkStats::default());
        let mut sink = FileDeadLetters::open(&FileTarget::plain(&path), RetryPolicy::default(), Arc::clone(&stats))
            .expect("writable");
        sink.deliver(&[letter("one\ntwo"), letter(vec![0xff])]).await.expect("written");
        sink.flush().await.expect("durable");
        assert_eq!(std::fs::read_to_string(&path).expect("text").lines().count(), 2);
        assert_eq!(stats.read().delivered, 2);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        }
    }
}
