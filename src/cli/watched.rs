//! Files of detections that may change: what they hold, and which of them hold something else now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::detection::files;

/// Paths of files as the user knows them.
pub(super) type Files = BTreeSet<Arc<str>>;

/// Path and text of every file: what is saved without a change is none, and no clock of a file system is trusted.
pub(super) type Seen = BTreeMap<Arc<str>, Arc<str>>;

/// What the files hold now.
pub(super) fn look(paths: &[PathBuf]) -> Seen {
    texts(files::read(paths))
}

/// What files held when they were read.
pub(super) fn texts(read: files::Read) -> Seen {
    read.files.into_iter().map(|file| (file.path, file.text)).collect()
}

/// Files that are new, gone, or of another text.
pub(super) fn changes(before: &Seen, now: &Seen) -> Files {
    let other = |here: &Seen, there: &Seen| -> Files {
        here.iter().filter(|(path, text)| there.get(*path) != Some(text)).map(|(path, _)| Arc::clone(path)).collect()
    };
    &other(before, now) | &other(now, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(files: &[(&str, &str)]) -> Seen {
        files.iter().map(|(path, text)| (Arc::from(*path), Arc::from(*text))).collect()
    }

    #[test]
    fn new_gone_and_edited_files_are_changes() {
        let before = seen(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let now = seen(&[("a", "1"), ("b", "2"), ("d", "1")]);
        let changed = changes(&before, &now);
        assert_eq!(changed.iter().map(|path| &**path).collect::<Vec<_>>(), ["b", "c", "d"]);
        assert!(changes(&now, &now).is_empty());
    }
}
