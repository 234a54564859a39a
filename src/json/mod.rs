//! A JSON reader for the hot path: walks one text once, borrows from it, skips what nobody reads.
//!
//! * [`Text`] is the inside of a string literal, unescaped only when asked.
//! * [`Raw`] is the span of one whole value.
//! * [`Cursor`] walks a value: `object` and `array` call back for each element, and whatever the callback does not
//!   consume is skipped by bracket matching, some ten times faster than parsing.
//!
//! [`write`] goes the other way: JSON at the end of a buffer.
//!
//! Skipped values are not validated; only their end is found. A text that ends too early is reported as
//! [`JsonError::Cut`], everything else that is wrong as [`JsonError::Malformed`].

mod cursor;
mod scan;
pub mod write;

pub use cursor::{Cursor, JsonError, Kind, Raw, Text, text_of};
