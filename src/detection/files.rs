//! Where detection files are: directories and files of the user, and the pack that is part of the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use include_dir::{Dir, include_dir};

use super::diagnostic::{Code, Diagnostic, Span};
use super::pack::SourceFile;

static SHIPPED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/detections");

/// A file longer than this is not read: the largest sensible detection with tests has a tenth of it.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Deeper folders are not entered, so that a link to a parent ends.
const DEPTH_MAX: usize = 12;

/// What reading gave.
#[derive(Debug, Default)]
pub struct Read {
    pub files: Vec<SourceFile>,
    /// Files that could not be read.
    pub diagnostics: Vec<Diagnostic>,
    /// A path that was asked for does not exist or cannot be read at all.
    pub unreadable_path: bool,
}

/// The pack that is part of the binary, under paths that begin with `detections/`.
pub fn shipped() -> Vec<SourceFile> {
    let mut files = Vec::new();
    collect(&SHIPPED, false, &mut files);
    files.sort_by(|left, right| left.path.cmp(&right.path));
    files
}

/// The same without the tests of its detections, which are most of their text: to be read where nobody runs them.
pub fn shipped_untested() -> Vec<SourceFile> {
    let mut files = shipped();
    files.iter_mut().for_each(|file| file.text = without_tests(&file.text).into());
    files
}

/// The text of a file without what stands under its key `tests`.
fn without_tests(text: &str) -> String {
    let mut inside = false;
    let lines = text.split_inclusive('\n').filter(|line| {
        if line.starts_with(|first: char| first.is_ascii_alphabetic()) {
            inside = line.starts_with("tests:");
        }
        !inside
    });
    lines.collect()
}

/// Lists and samples of the shipped pack, for detections that are not part of it.
pub fn shipped_support() -> Vec<SourceFile> {
    let mut files = Vec::new();
    for name in ["lists", "samples"] {
        if let Some(folder) = SHIPPED.get_dir(name) {
            collect(folder, true, &mut files);
        }
    }
    files
}

fn collect(folder: &Dir<'_>, support: bool, files: &mut Vec<SourceFile>) {
    for file in folder.files() {
        let path = file.path().to_string_lossy();
        if let (true, Some(text)) = (wanted(file.path()), file.contents_utf8()) {
            files.push(SourceFile { path: format!("detections/{path}").into(), text: text.into(), support });
        }
    }
    folder.dirs().for_each(|inner| collect(inner, support, files));
}

/// Reads files and, recursively, directories, each in the order of names. What cannot be read is reported and skipped.
pub fn read(paths: &[PathBuf]) -> Read {
    let mut read = Read::default();
    for path in paths {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => walk(path, 0, &mut read),
            Ok(_) => read_file(path, &mut read),
            Err(error) => {
                read.unreadable_path = true;
                read.diagnostics.push(unreadable(path, &error.to_string()));
            }
        }
    }
    read
}

fn walk(folder: &Path, depth: usize, read: &mut Read) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return read.diagnostics.push(unreadable(folder, &error.to_string())),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            if depth < DEPTH_MAX {
                walk(&path, depth + 1, read);
            }
        } else if wanted(&path) {
            read_file(&path, read);
        }
    }
}

/// Detections, lists and exceptions are YAML; JSON files are samples.
fn wanted(path: &Path) -> bool {
    let parent = path.parent().and_then(Path::file_name);
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("yaml" | "yml") => true,
        Some("json") => parent.is_some_and(|name| name == "samples"),
        _ => false,
    }
}

fn read_file(path: &Path, read: &mut Read) {
    match read_text(path) {
        Ok(text) => read.files.push(SourceFile { path: shown(path), text: text.into(), support: false }),
        Err(reason) => read.diagnostics.push(unreadable(path, &reason)),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("it has {length} bytes, at most {FILE_BYTES_MAX} are read"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes)
        .map_err(|error| format!("it is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()))
}

fn shown(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

fn unreadable(path: &Path, reason: &str) -> Diagnostic {
    Diagnostic::new(Code::Unreadable, &shown(path), Span::WHOLE, format!("cannot read {}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_their_tests_shipped_detections_are_the_same() {
        let with = crate::detection::load(&shipped()).set.detections;
        let loaded = crate::detection::load(&shipped_untested());
        assert_eq!(loaded.diagnostics.iter().filter(|one| one.level == crate::detection::Level::Error).count(), 0);
        let without = loaded.set.detections;
        assert_eq!(with.len(), without.len());
        for (with, without) in with.iter().zip(&without) {
            let shape = |detection: &crate::detection::Detection| {
                (detection.sql.clone(), detection.triage.clone(), detection.entity.clone(), detection.suppress)
            };
            assert_eq!((&with.id, shape(with)), (&without.id, shape(without)));
            assert_eq!(
                format!("{:?} {:?}", with.plan, with.memory),
                format!("{:?} {:?}", without.plan, without.memory)
            );
            assert!(!with.tests.is_empty() && without.tests.is_empty(), "{}", with.id);
        }
    }

    #[test]
    fn one_unreadable_file_does_not_hide_its_neighbours() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("written");
        put("a.yaml", b"id: a");
        put("b.yaml", b"\xff\xfe");
        put("c.yaml", &vec![b'#'; 2 << 20]);
        put("notes.txt", b"x");
        put("other.json", b"{}");
        fs::create_dir(folder.path().join("samples")).expect("created");
        put("samples/x.json", b"{}");
        let read = read(&[folder.path().to_path_buf()]);
        let names: Vec<&str> = read.files.iter().filter_map(|file| file.path.rsplit('/').next()).collect();
        assert_eq!(names, ["a.yaml", "x.json"]);
        assert_eq!(read.diagnostics.len(), 2);
        assert!(!read.unreadable_path);
    }

    #[test]
    fn a_path_that_does_not_exist_is_told_apart() {
        assert!(read(&[PathBuf::from("no/such/path")]).unreadable_path);
    }

    #[test]
    fn the_shipped_pack_is_in_the_binary() {
        assert!(shipped().iter().any(|file| &*file.path == "detections/samples/pod-create.json"));
        assert!(shipped_support().iter().all(|file| file.support));
    }
}
