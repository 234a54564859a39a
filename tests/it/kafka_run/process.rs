//! The program as an operator runs it: one process, killed when the test lets go of it.
//!
//! `KUBETIDE_TEST_PROGRAM=PATH` runs another build of it, such as the release.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use kubetide::clock::Instant;
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;

/// A running `kubetide run`.
pub struct Process {
    child: Child,
    /// Its working folder: standard output, the log and the default dead letters stay there.
    folder: TempDir,
}

/// How a process ended.
pub struct Ended {
    pub status: ExitStatus,
    pub output: String,
    pub log: String,
}

impl Ended {
    /// Events that were evaluated, by the summary at the end.
    pub fn events(&self) -> u64 {
        let summary =
            self.log.lines().find(|line| line.contains(" alerts") && line.contains(" events (")).expect("one");
        let words: Vec<&str> = summary.split(' ').collect();
        let at = words.iter().position(|word| *word == "events").expect("found above");
        words[at - 1].parse().expect("a number")
    }

    #[track_caller]
    pub fn assert_success(&self) {
        assert!(self.status.success(), "{}\n{}", self.status, self.log);
    }
}

impl Process {
    /// Starts `kubetide run` with these arguments.
    pub fn run(arguments: &[&str]) -> Process {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| File::create(folder.path().join(name)).expect("writable");
        let program = std::env::var_os("KUBETIDE_TEST_PROGRAM");
        let child = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_kubetide").into()))
            .arg("run")
            // Unless a test asks for it: instances side by side must not share one.
            .env("KUBETIDE_STATE", "off")
            .args(arguments)
            .args(["--set", "log.format=json"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(file("output"))
            .stderr(file("log"))
            .spawn()
            .expect("the program starts");
        Process { child, folder }
    }

    fn text(&self, name: &str) -> String {
        let bytes = std::fs::read(self.folder.path().join(name)).expect("it is there");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn log(&self) -> String {
        self.text("log")
    }

    /// SIGKILL: no chance to clean up.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is ours");
    }

    /// SIGTERM, as an orchestrator asks.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends a signal, such as `-STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill is everywhere").success());
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours")
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now().after(PATIENCE);
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return Ended { status, output: self.text("output"), log: self.log() };
            }
            assert!(!deadline.remaining().is_zero(), "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for something that comes about while it runs.
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&Process) -> bool) {
        let deadline = Instant::now().after(PATIENCE);
        while !condition(self) {
            let ended = self.child.try_wait().expect("it is ours");
            assert!(ended.is_none(), "it ended ({ended:?}) before there was {what}:\n{}", self.log());
            assert!(!deadline.remaining().is_zero(), "waited in vain for {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One page of its HTTP surface: status and body; `None` while it does not listen.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("http_listening"))?;
        let line: Value = serde_json::from_str(line).ok()?;
        let address = line.pointer("/fields/address").or_else(|| line.get("address"))?.as_str()?;
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Sum of the series of a metric; `None` where there is none.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics")?;
        let series = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.split('{').next() == Some(name)).then(|| value.parse::<f64>().expect("a number"))
        });
        series.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
