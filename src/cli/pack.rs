//! The detections that a command works on: the shipped pack and a site's own files.

use std::path::PathBuf;

use anstream::eprint;

use super::diagnostics::{Format, Report};
use super::exit::Failure;
use crate::detection::{DetectionSet, Level, files, load};

/// Reads and loads; warnings do not stop it.
///
/// # Errors
/// Exit code 2 with every error of every file printed, 3 where a path cannot be read at all.
pub fn load_pack(shipped: bool, paths: &[PathBuf]) -> Result<DetectionSet, Failure> {
    let mut sources = if shipped { files::shipped() } else { files::shipped_support() };
    let read = files::read(paths);
    sources.extend(read.files);
    let loaded = load(&sources);
    let errors: Vec<_> = read
        .diagnostics
        .into_iter()
        .chain(loaded.diagnostics)
        .filter(|diagnostic| diagnostic.level == Level::Error)
        .collect();
    let report = Report { diagnostics: errors, checked: Vec::new() };
    let count = report.count(Level::Error);
    if count > 0 {
        eprint!("{}", report.render(Format::Human, true));
    }
    if read.unreadable_path {
        return Err(Failure::environment("a path that was named cannot be read"));
    }
    if count > 0 {
        let plural = if count == 1 { "" } else { "s" };
        return Err(Failure::rules(format!(
            "{count} error{plural} in detection files; `kubetide lint` shows warnings too"
        )));
    }
    Ok(loaded.set)
}
