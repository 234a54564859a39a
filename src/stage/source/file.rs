//! Files, directories, globs and standard input: newline-delimited records, plain or compressed.
//!
//! Each file is a lane whose offsets are byte positions in the uncompressed text. Compression is told by the first bytes,
//! not by the name. Without `follow` a source ends at the end of its files; with it, files that grow, are rotated or cut
//! short are read on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::{Intake, Source, SourceError, Stop, buffers};
use crate::clock::Instant;
use crate::model::{Chunk, Lane, Position, RawRecord};

/// When a chunk is closed, and how large a record may be.
#[derive(Debug, Clone)]
pub struct FileLimits {
    pub chunk_events: usize,
    pub chunk_bytes: usize,
    pub chunk_age: Duration,
    /// Longest record; what is longer is handed on cut, to be refused with its head as evidence.
    pub record_bytes: usize,
}

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(200);

/// What a source reads.
#[derive(Debug)]
enum Input {
    Stdin,
    Files { paths: Vec<PathBuf>, follow: bool },
}

/// Reads files or standard input.
#[derive(Debug)]
pub struct FileSource {
    input: Input,
    limits: FileLimits,
    cluster: Option<Arc<str>>,
}

impl FileSource {
    /// Standard input.
    pub fn stdin(limits: FileLimits, cluster: Option<Arc<str>>) -> FileSource {
        FileSource { input: Input::Stdin, limits, cluster }
    }

    /// A file, a directory (its files in name order, not deeper) or a glob.
    ///
    /// # Errors
    /// Where the name matches no file: a silent pass would look like a quiet cluster.
    pub fn open(
        name: &str,
        follow: bool,
        limits: FileLimits,
        cluster: Option<Arc<str>>,
    ) -> Result<FileSource, SourceError> {
        let path = Path::new(name);
        let mut paths = Vec::new();
        if path.is_dir() {
            let entries = std::fs::read_dir(path)
                .map_err(|error| SourceError::configuration(format!("cannot list the directory {name}: {error}")))?;
            paths.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
        } else if path.exists() {
            paths.push(path.to_owned());
        } else {
            let matches = glob::glob(name)
                .map_err(|error| SourceError::configuration(format!("{name} is neither a file nor a glob: {error}")))?;
            paths.extend(matches.flatten().filter(|path| path.is_file()));
        }
        if paths.is_empty() {
            let help = if path.is_dir() { "the directory holds no files" } else { "there is no such file" };
            return Err(SourceError::configuration(format!("nothing to read at {name}: {help}")));
        }
        paths.sort();
        Ok(FileSource { input: Input::Files { paths, follow }, limits, cluster })
    }
}

/// `eu-prod` of `/logs/eu-prod.ndjson.gz`.
fn stem(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split('.').find(|part| !part.is_empty()).unwrap_or("file").to_owned()
}

impl Source for FileSource {
    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> Result<(), SourceError> {
        match self.input {
            Input::Stdin => {
                let lanes = lanes([("stdin".into(), "stdin".into())], &self.cluster);
                let mut splitter = Splitter::new(0, lanes, self.limits.clone(), intake);
                read_stdin(&mut splitter, &stop)
            }
            Input::Files { paths, follow } => {
                let names = paths.iter().map(|path| (path.display().to_string().into(), stem(path).into()));
                let lanes = lanes(names, &self.cluster);
                if follow {
                    return follow_files(&paths, &lanes, &self.limits, &intake, &stop);
                }
                read_files(&paths, &lanes, &self.limits, &intake, &stop)
            }
        }
    }
}

fn lanes(names: impl IntoIterator<Item = (Arc<str>, Arc<str>)>, cluster: &Option<Arc<str>>) -> Arc<[Lane]> {
    let lane = |(name, fallback_cluster)| Lane { name, fallback_cluster, cluster: cluster.clone() };
    names.into_iter().map(lane).collect()
}

/// Files that could not be read, of which the error tells the names.
const FAILURES_TOLD: usize = 10;

/// Reads files one after the other; one that cannot be read does not keep the others from being read.
fn read_files(
    paths: &[PathBuf],
    lanes: &Arc<[Lane]>,
    limits: &FileLimits,
    intake: &Intake,
    stop: &Stop,
) -> Result<(), SourceError> {
    let mut failed = Vec::new();
    for (lane, path) in paths.iter().enumerate() {
        let mut splitter = Splitter::new(lane as u32, Arc::clone(lanes), limits.clone(), intake.clone());
        let read = open(path).and_then(|mut reader| splitter.read_all(&mut reader, stop));
        match read {
            Ok(Flow::On) => splitter.end(),
            Ok(Flow::Ended) => break,
            Err(error) => {
                // What was read before a file breaks off is whole, but for its last line.
                splitter.send(true);
                splitter.end();
                failed.push(format!("{}: {error}", path.display()));
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let count = failed.len();
    failed.truncate(FAILURES_TOLD);
    let more = if count > failed.len() { format!("; and {} more", count - failed.len()) } else { String::new() };
    let (files, told) = (paths.len(), failed.join("; "));
    Err(SourceError::external(format!("{count} of {files} files could not be read: {told}{more}")))
}

/// A reader of the uncompressed text.
fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 4];
    let mut seen = 0;
    while seen < magic.len() {
        match file.read(&mut magic[seen..])? {
            0 => break,
            read => seen += read,
        }
    }
    let head = std::io::Cursor::new(magic[..seen].to_vec());
    let whole = head.chain(file);
    Ok(match magic {
        [0x1F, 0x8B, ..] => Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(1 << 16, whole))),
        [0x28, 0xB5, 0x2F, 0xFD] => Box::new(zstd::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

/// Whether to go on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    /// The pipeline has stopped, or somebody asked to stop.
    Ended,
}

/// Cuts a lane's bytes into records and chunks.
struct Splitter {
    lane: u32,
    lanes: Arc<[Lane]>,
    limits: FileLimits,
    intake: Intake,
    /// Bytes that are not sent yet; they start at `offset`.
    held: Vec<u8>,
    offset: u64,
    /// Set while the rest of a record that is too long is thrown away.
    overlong: bool,
    /// The first line is a lone bracket: the whole text is one value over several lines.
    whole: Option<bool>,
}

impl Splitter {
    fn new(lane: u32, lanes: Arc<[Lane]>, limits: FileLimits, intake: Intake) -> Splitter {
        let held = buffers::take(limits.chunk_bytes);
        Splitter { lane, lanes, limits, intake, held, offset: 0, overlong: false, whole: None }
    }

    fn read_all(&mut self, reader: &mut dyn Read, stop: &Stop) -> std::io::Result<Flow> {
        loop {
            if stop.requested() {
                return Ok(Flow::Ended);
            }
            let target = self.held.len().max(self.limits.chunk_bytes / 2) + self.limits.chunk_bytes / 2;
            if !self.fill(reader, target)? {
                return Ok(self.send(true));
            }
            if self.send(false) == Flow::Ended {
                return Ok(Flow::Ended);
            }
        }
    }

    /// Reads until `target` bytes are held; false at the end of the text.
    fn fill(&mut self, reader: &mut dyn Read, target: usize) -> std::io::Result<bool> {
        let missing = target.saturating_sub(self.held.len());
        self.held.reserve(missing);
        // Reads into what is reserved, without clearing it first.
        let read = reader.take(missing as u64).read_to_end(&mut self.held)?;
        Ok(read == missing)
    }

    /// Sends the whole records that are held; at the end also one without a newline.
    fn send(&mut self, end: bool) -> Flow {
        let whole = *self.whole.get_or_insert_with(|| {
            let first = self.held.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
            matches!(first, b"{" | b"[")
        });
        let cut = match (end, whole) {
            (true, _) => self.held.len(),
            (false, false) => memchr::memrchr(b'\n', &self.held).map_or(0, |at| at + 1),
            (false, true) => 0,
        };
        if cut == 0 {
            return self.hold_within_limit();
        }
        let mut next = buffers::take(self.limits.chunk_bytes);
        next.extend_from_slice(&self.held[cut..]);
        self.held.truncate(cut);
        let bytes = buffers::lend(std::mem::replace(&mut self.held, next));
        let mut records = Vec::new();
        let mut start = 0;
        let ends = memchr::memchr_iter(b'\n', &bytes).filter(|_| !whole).chain([bytes.len()]);
        for line_end in ends {
            let blank = bytes[start..line_end].iter().all(u8::is_ascii_whitespace);
            if std::mem::take(&mut self.overlong) || blank {
                start = line_end + 1;
                continue;
            }
            records.push(RawRecord {
                position: Position { lane: self.lane, offset: self.offset + start as u64 },
                range: start..line_end,
                time_ms: None,
                cluster: None,
            });
            start = line_end + 1;
        }
        self.offset += bytes.len() as u64;
        for part in records.chunks(self.limits.chunk_events) {
            let chunk = Chunk {
                bytes: bytes.clone(),
                records: part.to_vec(),
                lanes: Arc::clone(&self.lanes),
                ended: Vec::new(),
            };
            if self.intake.send(chunk).is_err() {
                return Flow::Ended;
            }
        }
        Flow::On
    }

    /// Says that the lane has ended.
    fn end(&self) {
        let chunk = Chunk { lanes: Arc::clone(&self.lanes), ended: vec![self.lane], ..Chunk::default() };
        // Whoever has stopped needs no end.
        self.intake.send(chunk).ok();
    }

    /// A record that is longer than the limit is sent cut, once, and the rest of it is dropped.
    fn hold_within_limit(&mut self) -> Flow {
        if self.held.len() <= self.limits.record_bytes {
            return Flow::On;
        }
        let bytes = buffers::lend(std::mem::take(&mut self.held));
        let length = bytes.len();
        let record = RawRecord {
            position: Position { lane: self.lane, offset: self.offset },
            range: 0..length,
            time_ms: None,
            cluster: None,
        };
        self.offset += length as u64;
        if std::mem::replace(&mut self.overlong, true) {
            return Flow::On;
        }
        let chunk = Chunk { bytes, records: vec![record], lanes: Arc::clone(&self.lanes), ended: Vec::new() };
        if self.intake.send(chunk).is_err() { Flow::Ended } else { Flow::On }
    }
}

/// Standard input may trickle: what is there is sent after `chunk_age` at the latest.
fn read_stdin(splitter: &mut Splitter, stop: &Stop) -> Result<(), SourceError> {
    let (sender, receiver) = sync_channel::<std::io::Result<Vec<u8>>>(16);
    // A read of standard input cannot be interrupted, so it has a thread that may be left behind.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut block = vec![0; 1 << 18];
            let read = stdin.read(&mut block).map(|read| {
                block.truncate(read);
                block
            });
            let last = !matches!(&read, Ok(block) if !block.is_empty());
            if sender.send(read).is_err() || last {
                return;
            }
        }
    });
    let mut oldest: Option<Instant> = None;
    loop {
        if stop.requested() {
            splitter.send(true);
            return Ok(());
        }
        match receiver.recv_timeout(Duration::from_millis(20)) {
            Ok(Ok(block)) if block.is_empty() => {
                splitter.send(true);
                return Ok(());
            }
            Ok(Ok(block)) => {
                splitter.held.extend_from_slice(&block);
                oldest.get_or_insert_with(Instant::now);
            }
            Ok(Err(error)) => return Err(SourceError::external(format!("cannot read standard input: {error}"))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let old = oldest.is_some_and(|since| since.elapsed() >= splitter.limits.chunk_age);
        if old || splitter.held.len() >= splitter.limits.chunk_bytes {
            oldest = None;
            if splitter.send(false) == Flow::Ended {
                return Ok(());
            }
        }
    }
}

/// A followed file: what is open, and what it was when it was opened.
struct Followed {
    file: Option<(File, FileId)>,
    splitter: Splitter,
    /// Bytes read from this file.
    read: u64,
}

type FileId = (u64, u64);

#[cfg(unix)]
fn identity(file: &std::fs::Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}

#[cfg(not(unix))]
fn identity(_file: &std::fs::Metadata) -> FileId {
    (0, 0)
}

/// Reads files as they grow, until a stop is asked for. Compressed files do not grow and are refused.
fn follow_files(
    paths: &[PathBuf],
    lanes: &Arc<[Lane]>,
    limits: &FileLimits,
    intake: &Intake,
    stop: &Stop,
) -> Result<(), SourceError> {
    let splitter = |lane: usize| Splitter::new(lane as u32, Arc::clone(lanes), limits.clone(), intake.clone());
    let mut followed: VecDeque<(usize, Followed)> =
        (0..paths.len()).map(|lane| (lane, Followed { file: None, splitter: splitter(lane), read: 0 })).collect();
    while !stop.requested() {
        let mut idle = true;
        for (lane, followed) in &mut followed {
            let path = &paths[*lane];
            match followed.advance(path) {
                Ok(Some(Flow::Ended)) => return Ok(()),
                Ok(Some(Flow::On)) => idle = false,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot read a followed file; trying again");
                    followed.file = None;
                }
            }
        }
        if idle {
            std::thread::sleep(POLL);
        }
    }
    followed.iter_mut().for_each(|(_, followed)| {
        followed.splitter.send(true);
    });
    Ok(())
}

impl Followed {
    /// Reads what is new; `None` where there is nothing.
    fn advance(&mut self, path: &Path) -> std::io::Result<Option<Flow>> {
        let on_disk = match std::fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            // Between a rotation's rename and the new file there is none.
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if self.file.is_none() {
            let Some(metadata) = &on_disk else { return Ok(None) };
            self.file = Some((File::open(path)?, identity(metadata)));
            self.read = 0;
            self.splitter.whole = Some(false);
        }
        let target = self.splitter.held.len() + self.splitter.limits.chunk_bytes;
        let before = self.splitter.held.len();
        let Some((file, id)) = &mut self.file else { return Ok(None) };
        let more = self.splitter.fill(file, target)?;
        self.read += (self.splitter.held.len() - before) as u64;
        if more || self.splitter.held.len() > before {
            return Ok(Some(self.splitter.send(false)));
        }
        // At the end of the open file: has it been replaced, or cut short?
        let replaced = on_disk.as_ref().is_some_and(|metadata| identity(metadata) != *id);
        let shortened = on_disk.as_ref().is_some_and(|metadata| !replaced && metadata.len() < self.read);
        if replaced || shortened {
            let flow = self.splitter.send(true);
            self.file = None;
            return Ok(Some(flow));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::stage::source::{Message, intakes};

    fn limits() -> FileLimits {
        FileLimits { chunk_events: 3, chunk_bytes: 64, chunk_age: Duration::from_millis(10), record_bytes: 300 }
    }

    /// Lane, offset and text of a record.
    type Sent = (u32, u64, String);

    /// What a source sends.
    fn collect(source: FileSource) -> (Vec<Sent>, Result<(), SourceError>) {
        let (mut intakes, mut outlet) = intakes(1, 1000);
        let result = Box::new(source).run(intakes.remove(0), Stop::default());
        let mut records = Vec::new();
        while let Ok(Message::Chunk { chunk, .. }) = outlet.work.try_recv() {
            assert!(chunk.records.len() <= 3);
            for record in &chunk.records {
                let text = String::from_utf8_lossy(chunk.payload(record)).into_owned();
                records.push((record.position.lane, record.position.offset, text));
            }
        }
        (records, result)
    }

    #[test]
    fn lines_of_plain_and_compressed_files_are_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let text: String = (0..40).map(|n| format!("{{\"n\":{n}}}\n{}", if n % 7 == 0 { "\n" } else { "" })).collect();
        std::fs::write(folder.path().join("a.ndjson"), &text).expect("written");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).expect("in memory");
        std::fs::write(folder.path().join("b.log"), gz.finish().expect("in memory")).expect("written");
        let zst = zstd::encode_all(text.as_bytes(), 1).expect("in memory");
        std::fs::write(folder.path().join("c.zst"), zst).expect("written");
        let name = folder.path().display().to_string();
        let (records, result) = collect(FileSource::open(&name, false, limits(), None).expect("files"));
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(records.len(), 120);
        for lane in 0..3 {
            let own: Vec<_> = records.iter().filter(|record| record.0 == lane).collect();
            assert_eq!(own.len(), 40);
            for (n, (_, offset, line)) in own.iter().enumerate() {
                assert_eq!(line, &format!("{{\"n\":{n}}}"));
                assert_eq!(&text[*offset as usize..*offset as usize + line.len()], line);
            }
        }
    }

    #[test]
    fn a_value_over_several_lines_is_one_record_and_a_long_line_is_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("list.json");
        std::fs::write(&path, "{\n  \"kind\": \"EventList\",\n  \"items\": []\n}\n").expect("written");
        let (records, _) =
            collect(FileSource::open(&path.display().to_string(), false, limits(), None).expect("a file"));
        assert_eq!(records.len(), 1);
        let long = format!("{{\"a\":\"{}\"}}\n{{\"b\":1}}\n", "x".repeat(1000));
        std::fs::write(&path, long).expect("written");
        let (records, _) =
            collect(FileSource::open(&path.display().to_string(), false, limits(), None).expect("a file"));
        assert_eq!(records.len(), 2);
        assert!(records[0].2.len() < 600 && records[0].2.starts_with("{\"a\""));
        assert_eq!(records[1].2, "{\"b\":1}");
    }

    #[test]
    fn a_name_without_files_is_an_error() {
        let error = FileSource::open("/nowhere/*.log", false, limits(), None).expect_err("no files");
        assert!(error.message.contains("nothing to read at /nowhere/*.log"), "{error}");
    }

    #[test]
    fn a_bad_file_does_not_hide_its_neighbours() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("1.gz"), [0x1F, 0x8B, 8, 0, 1, 2, 3]).expect("written");
        std::fs::write(folder.path().join("2.log"), "{\"n\":1}\n{\"n\":2}").expect("written");
        let name = folder.path().display().to_string();
        let (records, result) = collect(FileSource::open(&name, false, limits(), None).expect("files"));
        assert_eq!(records.len(), 2);
        assert!(result.expect_err("one is broken").message.contains("1 of 2 files could not be read"));
    }

    #[test]
    fn a_growing_and_a_rotated_file_are_read_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        std::fs::write(&path, "one\ntw").expect("written");
        let (mut intakes, mut outlet) = intakes(1, 100);
        let stop = Stop::default();
        let source = FileSource::open(&path.display().to_string(), true, limits(), None).expect("a file");
        let (intake, ask) = (intakes.remove(0), stop.clone());
        let thread = std::thread::spawn(move || Box::new(source).run(intake, ask));
        let mut next = || loop {
            if let Ok(Message::Chunk { chunk, .. }) = outlet.work.try_recv() {
                break chunk
                    .records
                    .iter()
                    .map(|r| String::from_utf8_lossy(chunk.payload(r)).into_owned())
                    .collect::<Vec<_>>();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(next(), ["one"]);
        let mut file = File::options().append(true).open(&path).expect("there");
        file.write_all(b"o\nthree\n").expect("written");
        assert_eq!(next(), ["two", "three"]);
        std::fs::rename(&path, folder.path().join("audit.log.1")).expect("moved");
        std::fs::write(&path, "four\n").expect("written");
        assert_eq!(next(), ["four"]);
        stop.request();
        thread.join().expect("no panic").expect("a clean end");
    }
}
