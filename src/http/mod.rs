//! The door for machines that watch us: `/metrics`, `/livez`, `/readyz` and `/version` over plain HTTP.
//!
//! It holds no logic: it reads [`Metrics`] and [`Health`], which the flow writes. It has no authentication and shows
//! nothing of events, so it listens on loopback unless told otherwise.
//!
//! | path | 200 | 503 |
//! |---|---|---|
//! | `/livez` | the process can do its work | only a restart mends it; the text says why |
//! | `/readyz` | events are evaluated and delivered | not yet, or not any more; JSON with the reasons |
//!
//! [`start`] binds before it returns, so a port in use is an error at start and not a line in a log. [`Server::stop`]
//! finishes the answers in hand and gives up after a few seconds, as a client that never reads must not keep us alive.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::telemetry::{BuildInfo, Health, Metrics};

/// How long [`Server::stop`] waits for answers in hand.
const STOP_SECONDS: u64 = 3;

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot listen on {address}: another process uses the port; choose another with --http, or `--http off`")]
    InUse { address: SocketAddr },
    #[error("cannot listen on {address}: {source}; choose an address of this machine with --http")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// What the pages are made of.
#[derive(Debug, Clone)]
pub struct Pages {
    pub metrics: Metrics,
    pub health: Health,
}

/// A running server. Dropping it stops it at once; [`Server::stop`] is kinder.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Where it listens: the real port, where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections and finishes the answers in hand.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // The receiver is gone only when the server has ended already.
            let _ = stop.send(());
        }
        if tokio::time::timeout(Duration::from_secs(STOP_SECONDS), &mut self.task).await.is_err() {
            tracing::debug!(event = "http_stop_timeout", "a client kept its connection open");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Binds `address` and answers from now on, on the current runtime.
///
/// # Errors
/// When the address cannot be bound.
pub async fn start(address: SocketAddr, pages: Pages) -> Result<Server, HttpError> {
    let bind = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AddrInUse => HttpError::InUse { address },
        _ => HttpError::Bind { address, source },
    };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = axum::serve(listener, router(pages)).with_graceful_shutdown(async move {
        // An error means that the sender is gone, which is a reason to stop as well.
        let _ = stopped.await;
    });
    #[expect(clippy::disallowed_methods, reason = "the handle is kept by Server, which ends the task when dropped")]
    let task = tokio::spawn(serve.into_future());
    tracing::info!(event = "http_listening", %address, "serving /metrics, /livez, /readyz and /version");
    Ok(Server { address, stop: Some(stop), task })
}

fn router(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/version", get(version))
        .fallback(not_found)
        .with_state(pages)
}

async fn metrics(State(pages): State<Pages>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], pages.metrics.render()).into_response()
}

async fn livez(State(pages): State<Pages>) -> Response {
    match pages.health.dead() {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(pages): State<Pages>) -> Response {
    let readiness = pages.health.readiness();
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &readiness.detail)
}

async fn version() -> Response {
    let BuildInfo { version, audit_schema } = BuildInfo::CURRENT;
    json(StatusCode::OK, &serde_json::json!({"name": "kubetide", "version": version, "audit_schema": audit_schema}))
}

async fn not_found(uri: Uri) -> Response {
    let text = format!("no page {}; there are /metrics, /livez, /readyz and /version\n", uri.path());
    (StatusCode::NOT_FOUND, text).into_response()
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::telemetry::{SinkState, SourceState};

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    async fn started() -> (Server, Pages) {
        let pages = Pages { metrics: Metrics::new(), health: Health::new() };
        (start(LOOPBACK, pages.clone()).await.expect("loopback has a free port"), pages)
    }

    /// Status, headers and body of one request over a real socket.
    async fn fetch(server: &Server, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(server.address()).await.expect("it listens");
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn pages_answer_over_a_socket() {
        let (server, pages) = started().await;
        pages.metrics.records_received("audit.log", 5, 100);
        let (status, head, body) = fetch(&server, "GET", "/metrics").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert!(body.contains("kubetide_source_records_total{source=\"audit.log\"} 5"), "{body}");
        let (status, _, body) = fetch(&server, "GET", "/version").await;
        assert!(status == 200 && body.contains(env!("CARGO_PKG_VERSION")), "{body}");
        let (status, _, body) = fetch(&server, "GET", "/nothing").await;
        assert!(status == 404 && body.contains("/readyz"), "{body}");
        assert_eq!(fetch(&server, "POST", "/metrics").await.0, 405);
        server.stop().await;
    }

    #[tokio::test]
    async fn readiness_gives_its_reasons_until_there_are_none() {
        let (server, pages) = started().await;
        let (status, head, body) = fetch(&server, "GET", "/readyz").await;
        assert_eq!(status, 503);
        assert!(head.contains("application/json") && body.contains("detections are not loaded yet"), "{body}");
        pages.health.detections_loaded(60);
        pages.health.source("audit", SourceState::Assigned(4));
        pages.health.sink("stdout", true, SinkState::Up);
        let (status, _, body) = fetch(&server, "GET", "/readyz").await;
        assert!(status == 200 && body.contains("\"lanes\":4"), "{body}");
        assert_eq!(fetch(&server, "GET", "/livez").await.0, 200);
        pages.health.fatal("worker 1 panicked");
        let (status, _, body) = fetch(&server, "GET", "/livez").await;
        assert!(status == 503 && body.contains("worker 1 panicked"), "{body}");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_port_in_use_is_one_clear_error() {
        let (server, pages) = started().await;
        let error = start(server.address(), pages).await.expect_err("the port is taken");
        let text = error.to_string();
        assert!(matches!(error, HttpError::InUse { .. }) && text.contains("--http"), "{text}");
    }

    #[tokio::test]
    async fn stopping_closes_the_port_even_when_a_client_lingers() {
        let (server, _) = started().await;
        let address = server.address();
        let mut lingering = TcpStream::connect(address).await.expect("it listens");
        lingering.write_all(b"GET /livez HTTP/1.1\r\n").await.expect("it reads");
        server.stop().await;
        assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    }
}
