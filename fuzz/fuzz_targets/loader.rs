//! Any text as one file of a pack: a detection, a list, exceptions or a sample.
#![no_main]

use kubetide::detection::{SourceFile, lint, load};
use libfuzzer_sys::fuzz_target;

/// The folder says what a file is; the first byte chooses it.
const PATHS: [&str; 4] = ["execution/fuzzed.yaml", "lists/fuzzed.yaml", "exceptions/fuzzed.yaml", "samples/fuzzed.json"];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let path = PATHS[usize::from(*first) % PATHS.len()];
    let loaded = load(&[SourceFile { path: path.into(), text: text.into(), support: false }]);
    let today = chrono::NaiveDate::from_ymd_opt(2026, 1, 1).expect("a date");
    let lines = text.lines().count() as u32;
    // What is wrong stands somewhere in the file, or is about all of it.
    for found in loaded.diagnostics.iter().chain(&lint(&loaded, today)) {
        assert!(found.span.line <= lines.max(1) + 1, "line {} of {lines}: {}", found.span.line, found.message);
        assert!(!found.message.is_empty());
    }
});
