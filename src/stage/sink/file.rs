//! A file of lines: appended, rotated, durable on `flush`.
//!
//! - A line is written whole or not at all: after a failed write the file is cut back to the last whole line before the
//!   next attempt, and a line that a crash tore is cut off when the file is opened.
//! - `flush` is fsync, of the folder too when a file was created in it.
//! - One writer: the file is locked, so that two processes (or two sinks of one) never mix their lines.
//! - Rotated files are named after the moment of rotation, `alerts-20261124T221133123Z.ndjson`, and sort by it.
//! - A file that was moved away or deleted under us is noticed at `flush` and begun anew.
//! - Pipes and devices are written to as they are, without any of this.
//! - A write that fails is repeated for a minute; then, and at once where a device is full, the sink fails.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, NaiveDateTime};

use super::retry::until_done;
use super::{AlertSink, FileTarget, RetryPolicy, SinkError, SinkFuture, SinkStats};
use crate::model::Alert;

/// Appends alerts as NDJSON of OCSF.
#[derive(Debug)]
pub struct FileSink {
    lines: Lines,
}

impl FileSink {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// The folder is missing, the file cannot be written to, somebody else writes to it, or it ends in something that
    /// is no line of JSON.
    pub fn open(target: &FileTarget, retry: RetryPolicy, stats: Arc<SinkStats>) -> Result<Self, SinkError> {
        Ok(FileSink { lines: Lines::open(target, Access::Group, retry, stats)? })
    }
}

impl AlertSink for FileSink {
    fn deliver<'a>(&'a mut self, alerts: &'a [Alert]) -> SinkFuture<'a> {
        Box::pin(self.lines.append(alerts.iter().map(|alert| alert.ocsf.clone()).collect()))
    }

    fn flush(&mut self) -> SinkFuture<'_> {
        Box::pin(self.lines.sync())
    }
}

/// Who may read a file that is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Owner and group (and what the umask takes away from that).
    Group,
    /// The owner alone: original bytes may hold secrets.
    Owner,
}

/// A file of lines for asynchronous use, with retry.
#[derive(Debug)]
pub(super) struct Lines {
    name: String,
    /// False for pipes and devices.
    regular: bool,
    file: Arc<Mutex<LineFile>>,
    retry: RetryPolicy,
    stats: Arc<SinkStats>,
}

impl Lines {
    pub(super) fn open(
        target: &FileTarget,
        access: Access,
        retry: RetryPolicy,
        stats: Arc<SinkStats>,
    ) -> Result<Self, SinkError> {
        let file = LineFile::open(target.clone(), access, crate::clock::now_ms)?;
        let regular = file.regular;
        Ok(Lines { name: target.path.display().to_string(), regular, file: Arc::new(Mutex::new(file)), retry, stats })
    }

    /// Writes lines (without their newlines), all or none.
    pub(super) async fn append(&self, lines: Vec<Bytes>) -> Result<(), SinkError> {
        let count = lines.len();
        let lines: Arc<[Bytes]> = lines.into();
        until_done(&self.name, self.retry, self.retry.file_patience, &self.stats, || {
            let lines = Arc::clone(&lines);
            self.locked(move |file| file.append(&lines))
        })
        .await?;
        self.stats.delivered(count);
        Ok(())
    }

    pub(super) async fn sync(&self) -> Result<(), SinkError> {
        // Never repeated: after a failed fsync the system may have forgotten the data and say yes the second time.
        self.locked(LineFile::sync).await.map_err(|error| SinkError { retry: false, ..error })
    }

    /// Runs `work` on a thread that may block.
    fn locked<W>(&self, work: W) -> impl Future<Output = Result<(), SinkError>> + Send + use<W>
    where
        W: FnOnce(&mut LineFile) -> io::Result<()> + Send + 'static,
    {
        let file = Arc::clone(&self.file);
        let name = self.name.clone();
        let regular = self.regular;
        async move {
            let job =
                tokio::task::spawn_blocking(move || work(&mut file.lock().unwrap_or_else(PoisonError::into_inner)));
            match job.await {
                Ok(result) => result.map_err(|error| SinkError {
                    // A device that is full stays so: there is nothing in it that could be deleted.
                    retry: regular || error.kind() != io::ErrorKind::StorageFull,
                    ..SinkError::external(format!("cannot write to `{name}`: {error}"))
                }),
                Err(error) => Err(SinkError::internal(format!("writing to `{name}` failed: {error}"))),
            }
        }
    }
}

/// The file itself; blocking.
#[derive(Debug)]
struct LineFile {
    target: FileTarget,
    access: Access,
    now_ms: fn() -> i64,
    file: File,
    /// False for pipes and devices.
    regular: bool,
    /// Bytes up to the end of the last whole line.
    size: u64,
    /// `size` where the current call began in this file.
    mark: u64,
    /// Whether bytes beyond `size` may exist, of a write that failed.
    torn: bool,
    /// When it was last written to, for rotation by time.
    written_ms: i64,
}

impl LineFile {
    fn open(target: FileTarget, access: Access, now_ms: fn() -> i64) -> Result<Self, SinkError> {
        let explain = |error: io::Error| SinkError::user(explain_open(&target.path, &error));
        let mut file = open_append(&target.path, access).map_err(explain)?;
        let meta = file.metadata().map_err(explain)?;
        let regular = meta.is_file();
        let mut size = 0;
        if regular {
            try_lock(&file).map_err(explain)?;
            size = mend_tail(&mut file, &target.path)?;
        }
        let written = meta.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let written_ms = match written {
            Some(since) if size > 0 => since.as_millis() as i64,
            _ => now_ms(),
        };
        let line_file = LineFile { target, access, now_ms, file, regular, size, mark: size, torn: false, written_ms };
        line_file.sync_folder().map_err(|error| SinkError::user(explain_open(&line_file.target.path, &error)))?;
        Ok(line_file)
    }

    fn append(&mut self, lines: &[Bytes]) -> io::Result<()> {
        self.mark = self.size;
        let result = self.append_all(lines);
        // All or none within one file: the caller repeats the whole call. What a rotation has completed stays, and is
        // then written twice: repeats are harmless, as every line carries its id, and loss is not.
        if result.is_err() && self.mark < self.size {
            self.size = self.mark;
            self.torn = true;
        }
        result
    }

    fn append_all(&mut self, lines: &[Bytes]) -> io::Result<()> {
        let mut pending = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
        for line in lines {
            let length = line.len() as u64 + 1;
            if self.must_rotate(pending.len() as u64, length) {
                self.write(&pending)?;
                pending.clear();
                self.rotate()?;
            }
            pending.extend_from_slice(line);
            pending.push(b'\n');
        }
        self.write(&pending)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.torn && self.regular {
            self.file.set_len(self.size)?;
        }
        self.torn = true;
        self.file.write_all(bytes)?;
        self.torn = false;
        self.size += bytes.len() as u64;
        self.written_ms = (self.now_ms)();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if !self.regular {
            return self.file.flush();
        }
        self.file.sync_all()?;
        if self.moved_away() {
            tracing::warn!(sink = %self.target.path.display(), "file was moved or deleted by somebody else, beginning a new one");
            self.begin()?;
        }
        Ok(())
    }

    /// Whether the next line of `length` bytes belongs into a new file, when `pending` bytes are still to be written.
    fn must_rotate(&self, pending: u64, length: u64) -> bool {
        let size = self.size + pending;
        if !self.regular || size == 0 {
            return false;
        }
        let too_large = self.target.rotate_bytes.is_some_and(|max| size + length > max);
        let period = |at_ms: i64, every: Duration| at_ms.div_euclid((every.as_millis() as i64).max(1));
        let too_old = self
            .target
            .rotate_every
            .is_some_and(|every| period((self.now_ms)(), every) != period(self.written_ms, every));
        too_large || too_old
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let mut older = self.rotated_files()?;
        // Behind the newest even if the clock went back: by their names the oldest are removed.
        let at_ms = older.last().map_or(i64::MIN, |&(newest_ms, _)| newest_ms + 1).max((self.now_ms)());
        let rotated = self.rotated_name(at_ms);
        match fs::rename(&self.target.path, &rotated) {
            // An earlier attempt came as far as this, or somebody else moved it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
        self.begin()?;
        older.push((at_ms, rotated));
        let surplus = self.target.keep.map_or(0, |keep| older.len().saturating_sub(keep));
        if let Err(error) = older.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path)) {
            tracing::warn!(sink = %self.target.path.display(), %error, "cannot remove old rotated files");
        }
        Ok(())
    }

    /// Opens a fresh file under the name.
    fn begin(&mut self) -> io::Result<()> {
        let file = open_append(&self.target.path, self.access)?;
        try_lock(&file)?;
        self.size = file.metadata()?.len();
        self.mark = self.size;
        self.file = file;
        self.torn = false;
        self.written_ms = (self.now_ms)();
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        if self.regular { File::open(folder(&self.target.path))?.sync_all() } else { Ok(()) }
    }

    fn rotated_name(&self, at_ms: i64) -> PathBuf {
        let (stem, extension) = name_parts(&self.target.path);
        let time = DateTime::from_timestamp_millis(at_ms).unwrap_or_default();
        let mut name = stem;
        name.push(format!("-{}Z", time.format(TIME_FORMAT)));
        name.push(extension);
        self.target.path.with_file_name(name)
    }

    /// Rotated files with their times, oldest first.
    fn rotated_files(&self) -> io::Result<Vec<(i64, PathBuf)>> {
        let mut files: Vec<(i64, PathBuf)> = fs::read_dir(folder(&self.target.path))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter_map(|path| self.rotated_ms(&path).map(|at_ms| (at_ms, path)))
            .collect();
        files.sort();
        Ok(files)
    }

    /// The time in a name that [`Self::rotated_name`] made.
    fn rotated_ms(&self, path: &Path) -> Option<i64> {
        let (stem, extension) = name_parts(&self.target.path);
        let name = path.file_name()?.to_str()?;
        let rest = name.strip_prefix(stem.to_str()?)?.strip_prefix('-')?;
        let time = rest.strip_suffix(extension.to_str()?)?.strip_suffix('Z')?;
        Some(NaiveDateTime::parse_from_str(time, TIME_FORMAT).ok()?.and_utc().timestamp_millis())
    }

    #[cfg(unix)]
    fn moved_away(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (fs::metadata(&self.target.path), self.file.metadata()) {
            (Ok(named), Ok(open)) => (named.dev(), named.ino()) != (open.dev(), open.ino()),
            (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    #[cfg(not(unix))]
    fn moved_away(&self) -> bool {
        false
    }
}

/// To the millisecond, so that names sort by time.
const TIME_FORMAT: &str = "%Y%m%dT%H%M%S%3f";

/// `alerts` and `.ndjson`.
fn name_parts(path: &Path) -> (OsString, OsString) {
    let stem = path.file_stem().unwrap_or_default().to_owned();
    let mut extension = OsString::new();
    if let Some(text) = path.extension() {
        extension.push(".");
        extension.push(text);
    }
    (stem, extension)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open_append(path: &Path, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Read to find a torn line; a pipe or device opened for reading too would keep its other end from ever closing.
    let regular = fs::metadata(path).map_or(true, |meta| meta.is_file());
    options.append(true).create(true).read(regular);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(match access {
            Access::Group => 0o640,
            Access::Owner => 0o600,
        });
    }
    #[cfg(not(unix))]
    let _ = access;
    options.open(path)
}

fn explain_open(path: &Path, error: &io::Error) -> String {
    let path_text = path.display();
    if path.is_dir() {
        return format!(
            "cannot write to `{path_text}`: it is a folder; name a file in it, such as `{path_text}/alerts.ndjson`"
        );
    }
    let folder = folder(path);
    if error.kind() == io::ErrorKind::NotFound && !folder.exists() {
        return format!("cannot write to `{path_text}`: folder `{}` does not exist; create it first", folder.display());
    }
    format!("cannot write to `{path_text}`: {error}")
}

fn try_lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "it is being written to by another sink or process; give each its own file",
        )),
        // Some network file systems have no locks.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes the file end in a whole line and gives its size: what a crash tore off is cut, a missing newline is added.
///
/// A tail that is no beginning of a JSON object is not ours: then the file is left alone.
fn mend_tail(file: &mut File, path: &Path) -> Result<u64, SinkError> {
    let fail = |error: io::Error| SinkError::user(format!("cannot read the end of `{}`: {error}", path.display()));
    let size = file.seek(SeekFrom::End(0)).map_err(fail)?;
    let start = last_line_start(file, size).map_err(fail)?;
    if start == size {
        return Ok(size);
    }
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(start)).and_then(|_| file.read_to_end(&mut tail)).map_err(fail)?;
    if serde_json::from_slice::<serde::de::IgnoredAny>(&tail).is_ok() {
        file.write_all(b"\n").map_err(fail)?;
        return Ok(size + 1);
    }
    // A crash of the host can leave zeros where data never arrived.
    if tail.first().is_some_and(|&byte| byte != b'{' && byte != 0) {
        let message = "ends in a line that is not JSON, so it is not a file of this program; name another file";
        return Err(SinkError::user(format!("`{}` {message}", path.display())));
    }
    tracing::warn!(sink = %path.display(), bytes = size - start, "cut off a line that a crash left unfinished");
    file.set_len(start).map_err(fail)?;
    Ok(start)
}

/// Offset after the last newline.
fn last_line_start(file: &mut File, size: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 * 1024;
    let mut end = size;
    let mut block = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        block.resize((end - begin) as usize, 0);
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut block)?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use tempfile::TempDir;

    use super::*;
    use crate::stage::sink::samples::{alert, alerts};

    fn folder() -> TempDir {
        tempfile::tempdir().expect("a folder for the test")
    }

    fn open(path: &Path) -> Result<FileSink, SinkError> {
        FileSink::open(&FileTarget::plain(path), RetryPolicy::default(), Arc::default())
    }

    fn open_error(path: &Path) -> String {
        open(path).expect_err("refused").to_string()
    }

    fn lines(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    /// Names in a folder, sorted, with their contents.
    fn contents(folder: &TempDir) -> Vec<(String, String)> {
        let mut files: Vec<(String, String)> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                (entry.file_name().into_string().expect("text"), fs::read_to_string(entry.path()).expect("text"))
            })
            .collect();
        files.sort();
        files
    }

    #[tokio::test]
    async fn alerts_are_appended_over_restarts() {
        let folder = folder();
        let path = folder.path().join("alerts.ndjson");
        for round in ["a", "b"] {
            let mut sink = open(&path).expect("writable");
            sink.deliver(&alerts(round, 2)).await.expect("written");
            sink.flush().await.expect("durable");
        }
        let expected: String = ["a0", "a1", "b0", "b1"]
            .iter()
            .map(|uid| String::from_utf8_lossy(&alert(uid).ocsf).into_owned() + "\n")
            .collect();
        assert_eq!(fs::read_to_string(&path).expect("text"), expected);
    }

    #[test]
    fn a_torn_last_line_is_cut_and_a_whole_one_ended() {
        let folder = folder();
        let path = folder.path().join("alerts.ndjson");
        for (found, left) in [
            ("{\"a\":1}\n{\"b\":", "{\"a\":1}\n"),
            ("{\"a\":", ""),
            ("{\"a\":1}\n\0\0\0", "{\"a\":1}\n"),
            ("{\"a\":1}\n{\"b\":2}", "{\"a\":1}\n{\"b\":2}\n"),
            ("{\"a\":1}\n", "{\"a\":1}\n"),
        ] {
            fs::write(&path, found).expect("written");
            drop(open(&path).expect(found));
            assert_eq!(fs::read_to_string(&path).expect("text"), left);
        }
        let long = format!("{{\"a\":1}}\n{{\"b\":\"{}", "x".repeat(200_000));
        fs::write(&path, long).expect("written");
        drop(open(&path).expect("long"));
        assert_eq!(fs::read_to_string(&path).expect("text"), "{\"a\":1}\n");
    }

    #[test]
    fn files_of_somebody_else_are_left_alone() {
        let folder = folder();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "my notes").expect("written");
        assert!(open_error(&path).contains("not a file of this program"));
        assert_eq!(fs::read_to_string(&path).expect("text"), "my notes");
    }

    #[test]
    fn what_cannot_be_opened_is_explained() {
        let folder = folder();
        let missing = folder.path().join("no/such/alerts.ndjson");
        assert!(open_error(&missing).contains("no/such` does not exist; create it first"));
        assert!(open_error(folder.path()).contains("it is a folder; name a file in it"));
        let path = folder.path().join("alerts.ndjson");
        let _first = open(&path).expect("free");
        assert!(open_error(&path).contains("written to by another sink or process"));
    }

    /// The clock of the rotation tests; each test runs in its own thread, so each has its own.
    fn now() -> i64 {
        NOW.with(|now| now.load(Ordering::Relaxed))
    }

    thread_local! {
        static NOW: AtomicI64 = const { AtomicI64::new(1_795_558_293_000) };
    }

    fn rotating(folder: &TempDir, bytes: Option<u64>, every: Option<Duration>, keep: Option<usize>) -> LineFile {
        let path = folder.path().join("alerts.ndjson");
        let target = FileTarget { path, rotate_bytes: bytes, rotate_every: every, keep };
        LineFile::open(target, Access::Group, now).expect("writable")
    }

    #[test]
    fn size_rotates_before_the_limit_and_keeps_the_newest() {
        let folder = folder();
        let mut file = rotating(&folder, Some(4), None, Some(2));
        fs::write(folder.path().join("alerts-2026.ndjson"), "not ours").expect("written");
        file.append(&lines(&["1", "2", "3", "4", "5"])).expect("written");
        file.append(&lines(&["6", "7", "too long", "9"])).expect("written");
        let found = contents(&folder);
        let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["not ours", "7\n", "too long\n", "9\n"], "{found:?}");
    }

    #[test]
    fn time_rotates_when_the_clock_passes_a_multiple() {
        let folder = folder();
        let mut file = rotating(&folder, None, Some(Duration::from_secs(3_600)), None);
        file.append(&lines(&["1"])).expect("written");
        file.append(&lines(&["2"])).expect("written");
        NOW.with(|now| now.fetch_add(3_600_000, Ordering::Relaxed));
        file.append(&lines(&["3"])).expect("written");
        let texts: Vec<String> = contents(&folder).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["1\n2\n", "3\n"]);
    }

    #[test]
    fn a_failed_write_leaves_no_half_line() {
        let folder = folder();
        let mut file = rotating(&folder, None, None, None);
        file.append(&lines(&["whole"])).expect("written");
        // As after a write that stopped in the middle.
        file.file.write_all(b"ha").expect("written");
        file.torn = true;
        file.append(&lines(&["next"])).expect("written");
        assert_eq!(fs::read_to_string(folder.path().join("alerts.ndjson")).expect("text"), "whole\nnext\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let folder = folder();
        let mut file = rotating(&folder, None, None, None);
        file.append(&lines(&["old"])).expect("written");
        fs::rename(folder.path().join("alerts.ndjson"), folder.path().join("moved")).expect("renamed");
        file.sync().expect("durable");
        file.append(&lines(&["new"])).expect("written");
        let expected = [("alerts.ndjson".to_owned(), "new\n".to_owned()), ("moved".to_owned(), "old\n".to_owned())];
        assert_eq!(contents(&folder), expected);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_full_device_is_one_error_at_once() {
        let stats = Arc::new(SinkStats::default());
        let target = FileTarget::plain("/dev/full");
        let mut sink = FileSink::open(&target, RetryPolicy::default(), Arc::clone(&stats)).expect("there");
        let error = sink.deliver(&alerts("f", 1)).await.expect_err("nothing fits");
        assert!(error.message.contains("cannot write to `/dev/full`") && !error.retry, "{error:?}");
        assert_eq!((stats.read().retried, stats.read().delivered), (0, 0));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_given_up_after_a_while() {
        let folder = folder();
        let patience = Duration::from_millis(20);
        let retry = RetryPolicy {
            delay_min: Duration::from_millis(1),
            delay_max: Duration::from_millis(2),
            file_patience: patience,
        };
        let stats = Arc::new(SinkStats::default());
        let target = FileTarget::plain(folder.path().join("alerts.ndjson"));
        let mut sink = FileSink::open(&target, retry, Arc::clone(&stats)).expect("writable");
        // As a file is that has become read-only.
        let read_only = File::open(&target.path).expect("there");
        sink.lines.file.lock().expect("no panic").file = read_only;
        let error = sink.deliver(&alerts("f", 1)).await.expect_err("it cannot be written to");
        assert!(error.message.contains("cannot write to"), "{error}");
        assert!(stats.read().retried > 3 && stats.read().delivered == 0, "{:?}", stats.read());
    }
}
