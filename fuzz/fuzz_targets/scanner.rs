//! The cursor against a plain parser: both must agree where a value ends.
#![no_main]

use kubetide::json::Cursor;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|bytes: &[u8]| {
    let mut cursor = Cursor::new(bytes);
    let skipped = cursor.skip().map(|()| cursor.position());
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
    let starts_value = bytes.trim_ascii_start().first().is_some_and(|byte| matches!(byte, b'{' | b'[' | b'"'));
    if starts_value && let Some(Ok(_)) = values.next() {
        assert_eq!(skipped, Ok(values.byte_offset()));
    }
});
