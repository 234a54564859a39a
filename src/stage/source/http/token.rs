//! The bearer token that senders must show.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::clock::Instant;
use crate::stage::source::SourceError;

/// A wrong token makes us look into the file again, as it may have been rotated, but not more often than this.
const REREAD_PAUSE: Duration = Duration::from_secs(1);

/// Hash of a token, with the file it is from.
pub(super) struct Token {
    file: PathBuf,
    known: Mutex<Known>,
}

struct Known {
    /// Comparing hashes takes the same time wherever they differ, and `blake3::Hash` compares in constant time.
    hash: blake3::Hash,
    read_at: Instant,
}

impl Token {
    pub(super) fn read(file: &Path) -> Result<Self, SourceError> {
        let fail = |problem: String| {
            SourceError::configuration(format!("cannot use token file `{}`: {problem}", file.display()))
        };
        let text = fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
        let hash = hash(&text).ok_or_else(|| fail("it is empty".into()))?;
        Ok(Token { file: file.to_owned(), known: Mutex::new(Known { hash, read_at: Instant::now() }) })
    }

    /// Whether the headers show the token.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some((scheme, shown)) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '))
        else {
            return false;
        };
        let Some(shown) = hash(shown).filter(|_| scheme.eq_ignore_ascii_case("bearer")) else { return false };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if shown == known.hash {
            return true;
        }
        if known.read_at.elapsed() < REREAD_PAUSE {
            return false;
        }
        known.read_at = Instant::now();
        if let Some(fresh) = fs::read_to_string(&self.file).ok().and_then(|text| hash(&text)) {
            known.hash = fresh;
        }
        shown == known.hash
    }
}

fn hash(token: &str) -> Option<blake3::Hash> {
    let token = token.trim();
    (!token.is_empty()).then(|| blake3::hash(token.as_bytes()))
}
