//! The real program as a child process: run to its end, or kept running until its guard is dropped.
//!
//! Every child has a folder of its own as working directory and none of our `KUBETIDE_*` variables, so that nothing of
//! the host decides. Waiting is polling a condition; [`PATIENCE`] only ends what hangs, it measures nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kubetide::clock::Instant;
use serde_json::Value;

/// After this a child hangs, and the test fails with what the child said.
pub const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);

/// Waits until the condition holds; false where it did not within [`PATIENCE`].
pub fn poll(mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !condition() {
        if started.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// A loopback address that nobody listens on right now.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

/// The program with nothing around it, to be run in `folder`.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubetide"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KUBETIDE_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env("NO_COLOR", "1").env("XDG_STATE_HOME", folder);
    command
}

/// How a child ended and what it said.
#[derive(Debug)]
pub struct Ended {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Fails with everything the child said unless it ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "stderr:\n{}\nstdout:\n{}", self.stderr, head(&self.stdout));
        self
    }

    /// Standard output as NDJSON; anything else on it is a failure.
    #[track_caller]
    pub fn alerts(&self) -> Vec<Value> {
        alerts(&self.stdout)
    }

    #[track_caller]
    pub fn expect_stderr(&self, parts: &[&str]) -> &Ended {
        for part in parts {
            assert!(self.stderr.contains(part), "standard error lacks {part:?}:\n{}", self.stderr);
        }
        self
    }
}

fn head(text: &str) -> String {
    text.chars().take(2_000).collect()
}

/// Lines of JSON objects, and nothing else.
#[track_caller]
pub fn alerts(text: &str) -> Vec<Value> {
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    let line = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(value) if value.is_object() => value,
        other => panic!("not an alert: {other:?}: {}", head(line)),
    };
    text.lines().map(line).collect()
}

/// Runs to the end without input.
pub fn run(folder: &Path, args: &[&str]) -> Ended {
    Running::start(command(folder, args)).wait()
}

/// Runs to the end with input.
pub fn run_with_input(folder: &Path, args: &[&str], input: &[u8]) -> Ended {
    let mut command = command(folder, args);
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    let mut stdin = running.take_stdin();
    // The program may end before it has read everything.
    let written = stdin.write_all(input);
    drop(stdin);
    let ended = running.wait();
    assert!(written.is_ok() || ended.code != Some(0), "it ended well without reading its input");
    ended
}

/// A child that is killed when this is dropped.
pub struct Running {
    child: Child,
    stdout: Collected,
    stderr: Collected,
}

struct Collected {
    text: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collected {
    fn of(source: Option<impl std::io::Read + Send + 'static>) -> Collected {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&text);
        let thread = source.map(|mut source| {
            std::thread::spawn(move || {
                let mut block = vec![0; 1 << 16];
                while let Ok(read @ 1..) = source.read(&mut block) {
                    into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&block[..read]);
                }
            })
        });
        Collected { text, thread }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn all(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("reading does not panic");
        }
        self.text()
    }
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        let mut child = command.spawn().expect("the program starts");
        let (stdout, stderr) = (Collected::of(child.stdout.take()), Collected::of(child.stderr.take()));
        Running { child, stdout, stderr }
    }

    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe was asked for")
    }

    /// What it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until it serves this address.
    #[track_caller]
    pub fn wait_for_port(&mut self, address: SocketAddr) {
        self.wait_until(&format!("it serves {address}"), || TcpStream::connect(address).is_ok());
    }

    /// Waits until the condition holds; fails when the child ends before.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let mut ended = None;
        let met = poll(|| {
            ended = self.child.try_wait().expect("our child");
            condition() || ended.is_some()
        });
        assert!(met && (ended.is_none() || condition()), "not met: {what}; ended: {ended:?}\n{}", self.stderr());
    }

    /// Asks it to stop, as an orchestrator does.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Asks it to load its files anew.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "there is a `kill`");
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let mut status: Option<ExitStatus> = None;
        let met = poll(|| {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        assert!(met, "it does not end:\n{}", self.stderr());
        let code = status.and_then(|status| status.code());
        Ended { code, stdout: self.stdout.all(), stderr: self.stderr.all() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Sends one request and gives status and text of the answer.
pub fn http(address: SocketAddr, head: &str, body: &[u8]) -> (u16, String) {
    let exchange = || -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(address)?;
        let length = body.len();
        write!(stream, "{head}\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")?;
        // A server that refuses by the headers alone may close before it has read the body.
        let sent = stream.write_all(body);
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status)?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut rest = String::new();
        let read = reader.read_to_string(&mut rest);
        let code = code.ok_or_else(|| std::io::Error::other(format!("no answer: {status:?} {sent:?} {read:?}")))?;
        Ok((code, rest.split_once("\r\n\r\n").map(|(_, text)| text.to_owned()).unwrap_or_default()))
    };
    exchange().unwrap_or_else(|error| panic!("{head}: {error}"))
}

/// POSTs as the audit webhook backend does.
pub fn post(address: SocketAddr, path: &str, body: &[u8]) -> (u16, String) {
    http(address, &format!("POST {path} HTTP/1.1\r\nContent-Type: application/json"), body)
}
