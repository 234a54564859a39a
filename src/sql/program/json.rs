//! Paths into JSON text, as `json_get_str(column, 'key', 0)` and its kin take them.

use crate::json::{Cursor, JsonError, Kind, Raw};

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// What ends a walk: it found its value, or the text is broken.
enum Stop<'a> {
    Found(Raw<'a>),
    Broken,
}

impl From<JsonError> for Stop<'_> {
    fn from(_: JsonError) -> Self {
        Stop::Broken
    }
}

fn found<'a>(walked: Result<bool, Stop<'a>>) -> Option<Raw<'a>> {
    match walked {
        Err(Stop::Found(value)) => Some(value),
        Err(Stop::Broken) | Ok(_) => None,
    }
}

fn element(mut cursor: Cursor<'_>, index: usize) -> Option<Raw<'_>> {
    let mut left = index;
    found(cursor.array(|cursor| match left.checked_sub(1) {
        None => Err(Stop::Found(cursor.raw()?)),
        Some(fewer) => {
            left = fewer;
            Ok(())
        }
    }))
}

/// The value at the end of a path: the first of equal keys, and none where the text breaks before it.
pub(super) fn find<'a>(text: &'a str, path: &[Step]) -> Option<Raw<'a>> {
    let mut at = Cursor::new(text.as_bytes()).raw().ok()?;
    for step in path {
        let mut cursor = at.cursor();
        at = match (step, at.kind()) {
            (Step::Key(name), Kind::Object) => found(cursor.object(|cursor, key| match key.is(name) {
                true => Err(Stop::Found(cursor.raw()?)),
                false => Ok(()),
            }))?,
            (Step::Key(spelled), Kind::Array) => element(cursor, spelled.parse().ok()?)?,
            (Step::Index(index), Kind::Array) => element(cursor, *index)?,
            _ => return None,
        };
    }
    Some(at)
}

/// The value as a whole number, where it is spelled as one.
pub(super) fn integer(value: Raw<'_>) -> Option<i64> {
    std::str::from_utf8(value.bytes()).ok()?.parse().ok()
}

/// The value as a boolean.
pub(super) fn boolean(value: Raw<'_>) -> Option<bool> {
    match value.bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}
