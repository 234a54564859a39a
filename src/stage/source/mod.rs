//! Where records come from.
//!
//! A source runs on a thread of its own and sends [`Chunk`]s, each lane's records in order, through its [`Intake`]. The
//! intake is bounded: a source that sends faster than the pipeline works blocks (or is told that it is full, and pauses
//! its input). A record counts as done when [`Committer::commit`] names a position behind it; a source may forget it only
//! then. Whatever was sent and not committed is sent again after a restart.

mod buffers;
pub mod file;
pub mod http;
pub mod kafka;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::model::{Chunk, Position};

/// Why a source cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// Whether what the user wrote is to blame (exit code 3), rather than the world.
    pub configuration: bool,
    /// What is wrong, where, and how to mend it.
    pub message: String,
}

impl SourceError {
    /// Something that the user has to mend.
    pub fn configuration(message: impl Into<String>) -> SourceError {
        SourceError { configuration: true, message: message.into() }
    }

    /// Something outside that failed.
    pub fn external(message: impl Into<String>) -> SourceError {
        SourceError { configuration: false, message: message.into() }
    }
}

/// Asks a source to end: it takes in nothing more, hands over what it holds and returns.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn request(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// An ordered input or several of them.
pub trait Source: Send {
    /// Sends records until the input ends or a stop is asked for. Blocking.
    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> Result<(), SourceError>;
}

/// Takes note of how far the pipeline has done its work for a source.
pub trait Committer: Send + Sync {
    /// Everything before these positions, one for each lane that moved, is delivered.
    fn commit(&self, next: &[Position]) -> Result<(), SourceError>;

    /// Whether a lane of this name is read here now; `None` where that never changes, or is not known yet.
    fn holds(&self, _lane: &str) -> Option<bool> {
        None
    }

    /// All lanes that instances of a group share, also those that have not brought anything yet. Empty where nothing is
    /// shared.
    fn lanes(&self) -> Vec<SharedLane> {
        Vec::new()
    }

    /// Whether the silence of what is read here means that there is nothing, or nothing but what came a moment ago.
    fn is_current(&self) -> bool {
        true
    }
}

/// A lane that one instance of a group reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedLane {
    pub name: String,
    /// Whether it is read here now.
    pub is_own: bool,
    /// Whether it is read to its end, or nearly so, as far as was asked a short time ago.
    pub is_current: bool,
}

/// For sources that have nothing to remember, such as files that are read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCommit {
    /// Its input has an end: until then it is silent only where somebody is slow.
    Ends,
    /// Its input goes on: a file that is followed.
    GoesOn,
}

impl Committer for NoCommit {
    fn commit(&self, _next: &[Position]) -> Result<(), SourceError> {
        Ok(())
    }

    fn is_current(&self) -> bool {
        *self == NoCommit::GoesOn
    }
}

/// What a source says to the pipeline.
#[derive(Debug)]
pub enum Message {
    /// Work, numbered without gaps over all sources.
    Chunk { sequence: u64, source: usize, chunk: Chunk },
    /// Answer when everything sent before this is delivered and committed.
    Checkpoint { before: u64, done: oneshot::Sender<()> },
}

/// The pipeline is gone; nothing more can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline has stopped")]
pub struct Closed;

/// Why a chunk was not taken.
#[derive(Debug)]
pub enum TrySend {
    /// The pipeline is busy: keep the chunk, pause the input and try again.
    Full(Chunk),
    Closed,
}

/// A source's end of the pipeline.
#[derive(Debug, Clone)]
pub struct Intake {
    source: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    work: mpsc::Sender<Message>,
    control: mpsc::UnboundedSender<Message>,
    /// Number of the next chunk. Held while sending, so that numbers enter the queue in order.
    next: std::sync::Mutex<u64>,
}

/// The pipeline's end of all intakes.
#[derive(Debug)]
pub struct Outlet {
    /// Chunks, in number order.
    pub work: mpsc::Receiver<Message>,
    /// Requests for checkpoints; at most one for each waiting source or request.
    pub control: mpsc::UnboundedReceiver<Message>,
}

/// Makes intakes for `sources` sources over one queue that holds `capacity` chunks.
pub fn intakes(sources: usize, capacity: usize) -> (Vec<Intake>, Outlet) {
    let (work, work_receiver) = mpsc::channel(capacity);
    // Unbounded by type only: each sender waits for the answer to its one message.
    #[allow(clippy::disallowed_methods)]
    let (control, control_receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared { work, control, next: std::sync::Mutex::new(0) });
    let intakes = (0..sources).map(|source| Intake { source, shared: Arc::clone(&shared) }).collect();
    (intakes, Outlet { work: work_receiver, control: control_receiver })
}

impl Intake {
    /// Hands a chunk over, waiting while the pipeline is full. Not to be called from async code.
    pub fn send(&self, chunk: Chunk) -> Result<(), Closed> {
        let mut chunk = chunk;
        loop {
            match self.try_send(chunk) {
                Ok(()) => return Ok(()),
                Err(TrySend::Closed) => return Err(Closed),
                // Waiting with the lock held would stop the other sources from noticing a stop; a pause of a
                // millisecond costs nothing beside the tens that a chunk takes.
                Err(TrySend::Full(back)) => {
                    chunk = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// Hands a chunk over if there is room.
    pub fn try_send(&self, chunk: Chunk) -> Result<(), TrySend> {
        let mut next = self.shared.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match self.shared.work.try_reserve() {
            Ok(permit) => {
                permit.send(Message::Chunk { sequence: *next, source: self.source, chunk });
                *next += 1;
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Err(TrySend::Full(chunk)),
            Err(mpsc::error::TrySendError::Closed(())) => Err(TrySend::Closed),
        }
    }

    /// Waits until all that this and every other source has sent is delivered and committed; false where that takes
    /// longer than `deadline`. Not to be called from async code.
    pub fn checkpoint(&self, deadline: Duration) -> bool {
        let (done, wait) = oneshot::channel();
        let before = *self.shared.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.shared.control.send(Message::Checkpoint { before, done }).is_err() {
            return false;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.is_ok_and(|runtime| {
            runtime.block_on(async { matches!(tokio::time::timeout(deadline, wait).await, Ok(Ok(()))) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_numbered_over_all_sources_and_a_full_queue_gives_them_back() {
        let (intakes, mut outlet) = intakes(2, 2);
        intakes[0].try_send(Chunk::default()).expect("room");
        intakes[1].try_send(Chunk::default()).expect("room");
        assert!(matches!(intakes[0].try_send(Chunk::default()), Err(TrySend::Full(_))));
        for expected in 0..2 {
            let Ok(Message::Chunk { sequence, source, .. }) = outlet.work.try_recv() else { panic!("a chunk") };
            assert_eq!((sequence, source), (expected, expected as usize));
        }
        drop(outlet);
        assert_eq!(intakes[0].send(Chunk::default()), Err(Closed));
        assert!(!intakes[0].checkpoint(Duration::from_secs(1)));
    }

    #[test]
    fn a_checkpoint_waits_for_its_answer() {
        let (intakes, mut outlet) = intakes(1, 1);
        let answer = std::thread::spawn(move || {
            let Some(Message::Checkpoint { before, done }) = outlet.control.blocking_recv() else {
                panic!("a request")
            };
            assert_eq!(before, 0);
            done.send(()).expect("somebody waits");
        });
        assert!(intakes[0].checkpoint(Duration::from_secs(10)));
        answer.join().expect("no panic");
    }
}
