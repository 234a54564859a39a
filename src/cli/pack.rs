//! The detections that a command works on: the shipped pack and a site's own files.

use std::path::PathBuf;
use std::sync::Arc;

use anstream::eprint;

use super::diagnostics::{Format, Report};
use super::exit::Failure;
use crate::detection::{DetectionSet, Diagnostic, Level, SourceFile, files, load};

/// What loading gave.
#[derive(Debug)]
pub struct Pack {
    pub set: DetectionSet,
    /// What cannot be used, in the order of files and places; warnings are left out.
    pub errors: Vec<Diagnostic>,
    /// A path that was named cannot be read at all.
    pub unreadable: bool,
    /// The files that are not part of the program.
    pub own: Vec<Arc<str>>,
}

/// Reads and loads, the shipped pack without its tests; what is wrong is among the errors.
pub fn read_pack(shipped: bool, paths: &[PathBuf]) -> Pack {
    with_own(if shipped { files::shipped_untested() } else { files::shipped_support() }, paths)
}

fn with_own(mut sources: Vec<SourceFile>, paths: &[PathBuf]) -> Pack {
    let read = files::read(paths);
    let own = read.files.iter().map(|file| Arc::clone(&file.path)).collect();
    sources.extend(read.files);
    let loaded = load(&sources);
    let all = read.diagnostics.into_iter().chain(loaded.diagnostics);
    let errors = all.filter(|diagnostic| diagnostic.level == Level::Error).collect();
    Pack { set: loaded.set, errors, unreadable: read.unreadable_path, own }
}

/// Reads and loads; warnings do not stop it.
///
/// # Errors
/// Exit code 2 with every error of every file printed, 3 where a path cannot be read at all.
pub fn load_pack(shipped: bool, paths: &[PathBuf]) -> Result<DetectionSet, Failure> {
    told(with_own(if shipped { files::shipped() } else { files::shipped_support() }, paths))
}

/// The same without the tests of the shipped pack.
///
/// # Errors
/// Those of [`load_pack`].
pub fn load_untested(shipped: bool, paths: &[PathBuf]) -> Result<DetectionSet, Failure> {
    told(read_pack(shipped, paths))
}

fn told(pack: Pack) -> Result<DetectionSet, Failure> {
    let Pack { set, errors, unreadable, .. } = pack;
    let count = errors.len();
    if count > 0 {
        eprint!("{}", Report { diagnostics: errors, checked: Vec::new() }.render(Format::Human, true));
    }
    if unreadable {
        return Err(Failure::environment("a path that was named cannot be read"));
    }
    if count > 0 {
        let plural = if count == 1 { "" } else { "s" };
        return Err(Failure::rules(format!(
            "{count} error{plural} in detection files; `kubetide lint` shows warnings too"
        )));
    }
    Ok(set)
}
