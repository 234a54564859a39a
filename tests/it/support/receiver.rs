//! A webhook receiver that does what it is told, on a thread of its own.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use serde_json::Value;
use tokio::sync::oneshot;

/// One answer: status, and how long it takes.
#[derive(Debug, Clone, Copy)]
pub struct Answer(pub u16, pub Duration);

#[derive(Default)]
struct State {
    answers: VecDeque<Answer>,
    /// Every body that was answered with 200.
    taken: Vec<Value>,
    /// Idempotency keys of all requests.
    keys: Vec<String>,
}

pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Gives these answers to the first requests, then 200 for ever.
    pub fn start(address: SocketAddr, answers: &[Answer]) -> Receiver {
        let listener = TcpListener::bind(address).expect("the address is free");
        let address = listener.local_addr().expect("bound");
        let state = State { answers: answers.iter().copied().collect(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || serve(listener, shared, stopped));
        Receiver { address, state, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The alerts that it took.
    pub fn taken(&self) -> Vec<Value> {
        self.state().taken.clone()
    }

    /// The idempotency key of every request, also of those that it refused.
    pub fn keys(&self) -> Vec<String> {
        self.state().keys.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A failure inside has been printed, and the test has failed by what is missing.
            let _ended = thread.join();
        }
    }
}

fn serve(listener: TcpListener, state: Arc<Mutex<State>>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let app = Router::new().fallback(move |request: Request| answer(request, Arc::clone(&state)));
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        tokio::select! {
            served = axum::serve(listener, app) => served.expect("serving"),
            _ = stopped => {}
        }
    });
}

async fn answer(request: Request, state: Arc<Mutex<State>>) -> StatusCode {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let Answer(status, pause) = lock().answers.pop_front().unwrap_or(Answer(200, Duration::ZERO));
    lock().keys.extend(head.headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned));
    tokio::time::sleep(pause).await;
    if status == 200 {
        lock().taken.push(serde_json::from_slice(&body).expect("an alert"));
    }
    StatusCode::from_u16(status).expect("a status")
}
