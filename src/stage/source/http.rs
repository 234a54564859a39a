//! The audit-webhook receiver: kube-apiserver (or anybody) POSTs events, and gets 2xx only when they are safe.
//!
//! **Promise.** A request is answered 200 once everything in it is evaluated, its alerts and dead letters are durable
//! and its position is committed. A sender that gets anything else, or nothing, must send again; what arrives twice has
//! the same identity and adds nothing. As the periodic checkpoint is seconds away, a waiting request asks for one; one
//! checkpoint is under way at a time, and it serves all requests that were taken in before it.
//!
//! | answer | when |
//! |---|---|
//! | 200 | accepted, durable |
//! | 400 | empty body, or one that does not inflate |
//! | 401 | bearer token missing or wrong |
//! | 404, 405 | another path or method; a path segment after ours names the sender's cluster: `POST /audit/prod-eu` |
//! | 408 | the body took too long to arrive |
//! | 413 | body larger than the limit, before or after inflating |
//! | 415 | a `Content-Encoding` other than gzip and zstd, or a body in protobuf |
//! | 429 | the pipeline or the memory for bodies is full; `Retry-After` says when to come back |
//! | 503 | it was taken in but is not durable within the sender's `?timeout=`, or the program is stopping |
//!
//! The listener is one lane; offsets count its records since the start, as HTTP has nothing to resume from.

mod address;
mod body;
mod tls;
mod token;

use std::fmt;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum_server::tls_openssl::OpenSSLAcceptor;
use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{Committer, Intake, Source, SourceError, Stop, TrySend};
use crate::clock::Instant;
use crate::model::{Chunk, Lane, Position, RawRecord};
use crate::options;

pub use address::HttpAddress;
use body::Encoding;
use tls::Tls;
use token::Token;

/// Time for the headers of a request, and for the whole body of one.
const READ_PATIENCE: Duration = Duration::from_secs(60);
/// How long a request waits for durability where it does not say `?timeout=`.
const DURABLE_PATIENCE: Duration = Duration::from_secs(30);
/// Requests that arrive this close together share a checkpoint.
const GATHER: Duration = Duration::from_millis(10);
/// Time for one checkpoint; where it takes longer, another is asked for.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(30);
/// Time for requests under way once a stop is asked for.
const DRAIN_PATIENCE: Duration = Duration::from_secs(20);
/// How often to look whether the certificate was renewed.
const RENEW_PAUSE: Duration = Duration::from_secs(60);
/// Bodies held in memory at once, as a multiple of the largest one.
const BUDGET_BODIES: u64 = 3;
/// Unit of the memory budget.
const BUDGET_UNIT: u64 = 1024;

/// What a receiver counts, by what it answered.
#[derive(Debug, Default)]
pub struct HttpCounts {
    /// 200.
    pub accepted: AtomicU64,
    /// 401.
    pub unauthorized: AtomicU64,
    /// 429 and 503: the sender comes back.
    pub deferred: AtomicU64,
    /// Other 4xx: the sender gives up, so that what it sent is lost to us.
    pub refused: AtomicU64,
}

/// A bound listener that becomes a source.
pub struct HttpSource {
    listener: TcpListener,
    tls: Option<Tls>,
    receiver: Arc<Receptionist>,
    checkpoints: Receiver<()>,
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSource").field("address", &self.receiver.address).finish_non_exhaustive()
    }
}

impl HttpSource {
    /// Binds the address and reads certificate and token.
    ///
    /// # Errors
    /// The address is in use or not ours, or a file cannot be used.
    pub fn bind(address: &HttpAddress) -> Result<Self, SourceError> {
        let listener = TcpListener::bind(&address.listen).map_err(|error| {
            SourceError::configuration(format!("cannot listen on `{}`: {error}; is it in use?", address.listen))
        })?;
        let tls = address.tls.as_ref().map(|(cert, key)| Tls::read(cert, key)).transpose()?;
        let token = address.token_file.as_deref().map(Token::read).transpose()?;
        let open_to_all = listener.local_addr().is_ok_and(|local| !local.ip().is_loopback());
        if token.is_none() && open_to_all {
            tracing::warn!(
                listen = address.listen,
                "anybody who reaches this listener can send events: set token_file"
            );
        }
        let (ask, checkpoints) = sync_channel(1);
        let receiver = Arc::new(Receptionist {
            address: address.clone(),
            token,
            lanes: [address.lane()].into(),
            next: Mutex::new(0),
            done: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            ask,
            budget: Arc::new(Semaphore::new(units(address.body_bytes_max) as usize * BUDGET_BODIES as usize)),
            counts: Arc::default(),
        });
        Ok(HttpSource { listener, tls, receiver, checkpoints })
    }

    /// Where it listens, with the port that the system chose where the address says 0.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What the flow tells how far it is.
    pub fn committer(&self) -> Arc<dyn Committer> {
        Arc::new(HttpCommitter(Arc::clone(&self.receiver)))
    }

    /// What is counted.
    pub fn counts(&self) -> Arc<HttpCounts> {
        Arc::clone(&self.receiver.counts)
    }
}

impl Source for HttpSource {
    fn run(self: Box<Self>, intake: Intake, stop: Stop) -> Result<(), SourceError> {
        let HttpSource { listener, tls, receiver, checkpoints } = *self;
        let name = receiver.address.to_string();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .thread_name("http-source")
            .build()
            .map_err(|error| SourceError::external(format!("cannot start the listener `{name}`: {error}")))?;
        let over = Arc::new(AtomicBool::new(false));
        let secretary = {
            let (receiver, intake, over) = (Arc::clone(&receiver), intake.clone(), Arc::clone(&over));
            std::thread::Builder::new()
                .name("http-checkpoints".into())
                .spawn(move || ask_for_checkpoints(&receiver, &intake, &checkpoints, &over))
                .map_err(|error| SourceError::external(format!("cannot start a thread for `{name}`: {error}")))?
        };
        tracing::info!(listen = name, "receiving audit events");
        let served = runtime.block_on(serve(listener, tls, Arc::clone(&receiver), intake, stop));
        over.store(true, Ordering::Release);
        receiver.ask_for_checkpoint();
        let joined = secretary.join();
        served.map_err(|error| SourceError::external(format!("the listener `{name}` failed: {error}")))?;
        joined.map_err(|_| SourceError::external(format!("the checkpoint thread of `{name}` failed")))
    }
}

/// Serves until a stop is asked for, then lets requests under way finish.
async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    receiver: Arc<Receptionist>,
    intake: Intake,
    stop: Stop,
) -> std::io::Result<()> {
    let app = axum::Router::new().fallback(move |request: Request| {
        let (receiver, intake) = (Arc::clone(&receiver), intake.clone());
        async move { receiver.respond(request, &intake).await }
    });
    let handle = axum_server::Handle::new();
    let watched = handle.clone();
    // Ends with the runtime at the latest.
    let mut renewed = tls.clone();
    #[expect(clippy::disallowed_methods, reason = "it ends with the listener that it belongs to")]
    tokio::spawn(async move {
        let mut looked = Instant::now();
        while !stop.requested() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if looked.elapsed() >= RENEW_PAUSE {
                looked = Instant::now();
                renewed.iter_mut().for_each(Tls::renew);
            }
        }
        watched.graceful_shutdown(Some(DRAIN_PATIENCE));
    });
    let mut server = axum_server::from_tcp(listener)?.handle(handle).first_request_timeout(READ_PATIENCE);
    server.http_builder().http1().header_read_timeout(READ_PATIENCE);
    match tls {
        Some(tls) => server.acceptor(OpenSSLAcceptor::new(tls.config)).serve(app.into_make_service()).await,
        None => server.serve(app.into_make_service()).await,
    }
}

/// The thread that asks for checkpoints, one at a time, while requests wait.
fn ask_for_checkpoints(receiver: &Receptionist, intake: &Intake, asked: &Receiver<()>, over: &AtomicBool) {
    while asked.recv().is_ok() && !over.load(Ordering::Acquire) {
        std::thread::sleep(GATHER);
        let before = *receiver.next.lock().unwrap_or_else(PoisonError::into_inner);
        if intake.checkpoint(CHECKPOINT_PATIENCE) {
            receiver.is_done(before);
        } else if receiver.waiting.load(Ordering::Acquire) > 0 {
            // Too slow, or the pipeline is ending: no busy loop either way.
            std::thread::sleep(Duration::from_millis(200));
            receiver.ask_for_checkpoint();
        }
    }
}

/// Tells the waiting requests how far the flow is.
struct HttpCommitter(Arc<Receptionist>);

impl Committer for HttpCommitter {
    fn commit(&self, next: &[Position]) -> Result<(), SourceError> {
        if let Some(position) = next.iter().find(|position| position.lane == 0) {
            self.0.is_done(position.offset);
        }
        Ok(())
    }
}

/// What all requests share.
struct Receptionist {
    address: HttpAddress,
    token: Option<Token>,
    lanes: Arc<[Lane]>,
    /// Offset of the next record. Held while a chunk is sent, so that offsets enter the pipeline in order.
    next: Mutex<u64>,
    /// First offset that is not durable yet.
    done: watch::Sender<u64>,
    /// Requests that wait for durability.
    waiting: AtomicUsize,
    /// Holds at most one wish for a checkpoint, however many wish for it.
    ask: SyncSender<()>,
    /// Memory for bodies, in units.
    budget: Arc<Semaphore>,
    counts: Arc<HttpCounts>,
}

impl Receptionist {
    async fn respond(&self, request: Request, intake: &Intake) -> Response {
        let answer = match self.receive(request, intake).await {
            Ok(()) => {
                self.counts.accepted.fetch_add(1, Ordering::Relaxed);
                return StatusCode::OK.into_response();
            }
            Err(refusal) => refusal,
        };
        let count = match answer.status {
            StatusCode::UNAUTHORIZED => &self.counts.unauthorized,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => &self.counts.deferred,
            _ => &self.counts.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if answer.status == StatusCode::PAYLOAD_TOO_LARGE {
            tracing::warn!(listen = %self.address, answer = answer.message, "events are lost: a body is too large");
        } else {
            tracing::debug!(listen = %self.address, status = answer.status.as_u16(), answer = answer.message, "refused");
        }
        answer.into_response()
    }

    async fn receive(&self, request: Request, intake: &Intake) -> Result<(), Refusal> {
        let (head, sent) = request.into_parts();
        let cluster =
            self.address.cluster_of(head.uri.path()).map_err(|help| Refusal::new(StatusCode::NOT_FOUND, help))?;
        if head.method != Method::POST {
            let help = "POST an EventList or events, one a line";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, help).with(ALLOW, "POST"));
        }
        if self.token.as_ref().is_some_and(|token| !token.admits(&head.headers)) {
            let help = "send the token that this listener was given: Authorization: Bearer <token>";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, help).with(WWW_AUTHENTICATE, "Bearer"));
        }
        let encoding =
            Encoding::of(&head.headers).map_err(|help| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, help))?;
        let announced = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let (bytes, _memory) = self.take_body(sent, announced, encoding).await?;
        let lines = body::is_lines(head.headers.get(CONTENT_TYPE), &bytes);
        let end = self.hand_over(bytes, lines, cluster, intake)?;
        self.wait_until_durable(end, patience(head.uri.query())).await
    }

    /// Reads and inflates, within the limits of one body and of all bodies together.
    async fn take_body(
        &self,
        sent: Body,
        announced: Option<u64>,
        encoding: Encoding,
    ) -> Result<(Bytes, Vec<OwnedSemaphorePermit>), Refusal> {
        let limit = self.address.body_bytes_max;
        let too_large = || {
            let mend = "send smaller batches, or raise the listener's ?limit=";
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("body is larger than {limit} bytes; {mend}"))
        };
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut memory = vec![self.reserve(announced.unwrap_or(limit))?];
        let read = tokio::time::timeout(READ_PATIENCE, read_body(sent, limit)).await;
        let bytes = read
            .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "body took too long to arrive"))?
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("body did not arrive: {error}")))?
            .ok_or_else(too_large)?;
        let bytes = if encoding == Encoding::Plain {
            bytes
        } else {
            let job = tokio::task::spawn_blocking(move || body::inflate(encoding, &bytes, limit));
            let inflated = job
                .await
                .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "inflating failed"))?
                .map_err(|help| Refusal::new(StatusCode::BAD_REQUEST, help))?
                .ok_or_else(too_large)?;
            memory.push(self.reserve(inflated.len() as u64)?);
            inflated
        };
        if bytes.trim_ascii().is_empty() {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "body is empty; POST an EventList or events, one a line",
            ));
        }
        Ok((bytes, memory))
    }

    fn reserve(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let wanted = u32::try_from(units(bytes)).unwrap_or(u32::MAX);
        Arc::clone(&self.budget).try_acquire_many_owned(wanted).map_err(|_| Refusal::busy())
    }

    /// Puts a body into the pipeline and gives the offset after its last record.
    fn hand_over(&self, bytes: Bytes, lines: bool, cluster: Option<Arc<str>>, intake: &Intake) -> Result<u64, Refusal> {
        let ranges = if lines { body::lines(&bytes) } else { std::iter::once(0..bytes.len()).collect() };
        let time_ms = Some(crate::clock::now_ms());
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let records = (*next..)
            .zip(ranges)
            .map(|(offset, range)| RawRecord {
                position: Position { lane: 0, offset },
                range,
                time_ms,
                cluster: cluster.clone(),
            })
            .collect::<Vec<_>>();
        let end = *next + records.len() as u64;
        match intake.try_send(Chunk { bytes, records, lanes: Arc::clone(&self.lanes), ended: Vec::new() }) {
            Ok(()) => {
                *next = end;
                Ok(end)
            }
            Err(TrySend::Full(_)) => Err(Refusal::busy()),
            Err(TrySend::Closed) => Err(Refusal::later("the program is stopping")),
        }
    }

    async fn wait_until_durable(&self, end: u64, patience: Duration) -> Result<(), Refusal> {
        let mut done = self.done.subscribe();
        let _counted = Waiting::new(&self.waiting);
        self.ask_for_checkpoint();
        match tokio::time::timeout(patience, done.wait_for(|&first| first >= end)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::later("taken in, but not durable in time: send it again")),
        }
    }

    fn ask_for_checkpoint(&self) {
        // Full means that somebody has asked already, closed that the source is ending.
        self.ask.try_send(()).unwrap_or_default();
    }

    fn is_done(&self, before: u64) {
        self.done.send_if_modified(|done| {
            let moves = before > *done;
            *done = before.max(*done);
            moves
        });
    }
}

/// Counts a waiting request for as long as it lives: a sender may hang up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why a request is not accepted: status, text for the sender, further headers.
struct Refusal {
    status: StatusCode,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Refusal { status, message: message.into(), headers: Vec::new() }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// Nothing was taken in.
    fn busy() -> Self {
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "busy: send it again later").with(RETRY_AFTER, "1")
    }

    fn later(message: &str) -> Self {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).with(RETRY_AFTER, "1")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.message)).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

/// The whole body; `None` where it is larger than the limit.
async fn read_body(mut sent: Body, limit: u64) -> Result<Option<Bytes>, axum::Error> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut sent).poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if (first.len() + all.len() + data.len()) as u64 > limit {
            return Ok(None);
        }
        if first.is_empty() && all.is_empty() {
            // Most bodies come in one piece: nothing to copy.
            first = data;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(Some(if all.is_empty() { first } else { all.freeze() }))
}

/// How long the sender waits for us, less what the answer needs: kube-apiserver says `?timeout=30s`.
fn patience(query: Option<&str>) -> Duration {
    let pairs = query.and_then(|query| options::pairs(query).ok()).unwrap_or_default();
    let said = pairs.iter().find(|(key, _)| key == "timeout").and_then(|(_, value)| options::duration(value).ok());
    said.map_or(DURABLE_PATIENCE, |said| (said * 9 / 10).min(DURABLE_PATIENCE * 2))
}

fn units(bytes: u64) -> u64 {
    bytes / BUDGET_UNIT + 1
}

#[cfg(test)]
mod tests;
