//! HTTP webhooks: one POST for each alert, repeated until the receiver has it.
//!
//! | answer | meaning here |
//! |---|---|
//! | 2xx | taken |
//! | 408, 425, 429, 5xx, no connection, timeout | repeated for ever with growing pauses, at least `Retry-After` |
//! | 400, 413, 415, 422 and other 4xx | the receiver will never take *this* alert: logged with its id, counted as rejected, given up, so that one alert cannot hold up all others |
//! | 401, 403, 404, 405, 407, 410, 3xx | the address or the credentials are wrong: *every* alert would be lost, so the call fails; the sink that gates stops the run, an outbox keeps its alerts and tries again |
//!
//! Every POST carries `Idempotency-Key: <finding uid>:<emission uid>`, the same on every attempt and after a restart.
//! Emissions about one finding go one after the other; different findings go side by side. Redirects are not followed:
//! they would carry the token elsewhere. The token comes from a file (read again after a 401, as it may be rotated) or
//! from the configuration, never from the URL.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, Response, StatusCode, redirect};
use tokio::task::JoinSet;

use super::console::plain;
use super::{AlertSink, HttpTarget, RetryPolicy, SinkError, SinkFuture, SinkStats};
use crate::model::Alert;

/// Bytes of an error answer that are read, for the log.
const ANSWER_BYTES_MAX: usize = 512;

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a value from `Debug`.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Defaults of all webhooks; what a URL says wins.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// Bearer token of webhooks whose URL names no `token_file`.
    pub token: Option<Secret>,
    /// Further headers of every request.
    pub headers: Vec<(String, Secret)>,
    /// Time allowed for one request.
    pub timeout: Duration,
    /// Requests under way at once.
    pub concurrency: usize,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        WebhookOptions { token: None, headers: Vec::new(), timeout: Duration::from_secs(10), concurrency: 4 }
    }
}

/// POSTs alerts.
#[derive(Debug)]
pub struct WebhookSink {
    poster: Arc<Poster>,
    concurrency: usize,
}

impl WebhookSink {
    /// Checks the configuration; connects when there is something to send.
    ///
    /// # Errors
    /// The token or CA file cannot be read, or a header is not one.
    pub fn open(
        target: &HttpTarget,
        options: &WebhookOptions,
        retry: RetryPolicy,
        stats: Arc<SinkStats>,
    ) -> Result<Self, SinkError> {
        let concurrency = target.concurrency.unwrap_or(options.concurrency).max(1);
        Ok(WebhookSink { poster: Arc::new(Poster::new(target, options, retry, stats)?), concurrency })
    }

    async fn deliver_all(&self, alerts: &[Alert]) -> Result<(), SinkError> {
        // Dropping the set (because we are dropped, or one of them failed) stops what is under way.
        let mut under_way = JoinSet::new();
        for emissions in by_finding(alerts) {
            if under_way.len() >= self.concurrency {
                finish_one(&mut under_way).await?;
            }
            under_way.spawn(deliver_in_order(Arc::clone(&self.poster), emissions));
        }
        while !under_way.is_empty() {
            finish_one(&mut under_way).await?;
        }
        Ok(())
    }
}

impl AlertSink for WebhookSink {
    fn deliver<'a>(&'a mut self, alerts: &'a [Alert]) -> SinkFuture<'a> {
        Box::pin(self.deliver_all(alerts))
    }

    fn flush(&mut self) -> SinkFuture<'_> {
        // A 2xx is the receiver's word that it has the alert.
        Box::pin(async { Ok(()) })
    }
}

/// Emissions of each finding in their order, findings in order of their first.
fn by_finding(alerts: &[Alert]) -> Vec<Vec<Alert>> {
    let mut places = HashMap::new();
    let mut findings: Vec<Vec<Alert>> = Vec::new();
    for alert in alerts {
        let place = *places.entry(&alert.uid).or_insert(findings.len());
        match findings.get_mut(place) {
            Some(finding) => finding.push(alert.clone()),
            None => findings.push(vec![alert.clone()]),
        }
    }
    findings
}

async fn deliver_in_order(poster: Arc<Poster>, emissions: Vec<Alert>) -> Result<(), SinkError> {
    for alert in emissions {
        let key = format!("{}:{}", alert.uid, alert.emission_uid);
        match poster.post(&key, alert.ocsf.clone()).await? {
            Answer::Taken => poster.stats.delivered(1),
            Answer::Rejected(why) => {
                poster.stats.rejected(1);
                tracing::error!(
                    sink = poster.name, finding = %alert.uid, detection = %alert.detection, answer = why,
                    "webhook rejects this alert for good, giving it up"
                );
            }
        }
    }
    Ok(())
}

async fn finish_one(under_way: &mut JoinSet<Result<(), SinkError>>) -> Result<(), SinkError> {
    match under_way.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(SinkError::internal(format!("a webhook delivery failed: {error}"))),
        None => Ok(()),
    }
}

/// What a receiver has decided about one body.
pub(super) enum Answer {
    Taken,
    /// It will never take this one; status and the beginning of what it said.
    Rejected(String),
}

/// One attempt's end.
enum Attempt {
    Decided(Answer),
    Again { why: String, asked: Option<Duration> },
    Unauthorized(String),
}

/// Sends bodies to one address.
pub(super) struct Poster {
    pub(super) name: String,
    pub(super) stats: Arc<SinkStats>,
    client: Client,
    url: String,
    headers: HeaderMap,
    token: Token,
    retry: RetryPolicy,
    down: AtomicBool,
}

/// The address may hold a secret in its query, so only its name is shown.
impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poster").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Poster {
    pub(super) fn new(
        target: &HttpTarget,
        options: &WebhookOptions,
        retry: RetryPolicy,
        stats: Arc<SinkStats>,
    ) -> Result<Self, SinkError> {
        let name = super::SinkUrl::Http(target.clone()).to_string();
        let timeout = target.timeout.unwrap_or(options.timeout);
        let mut builder = Client::builder()
            .user_agent(concat!("kubetide/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(timeout);
        if let Some(path) = &target.ca_file {
            let fail = |error: &dyn fmt::Display| {
                SinkError::user(format!("cannot use CA file `{}` of `{name}`: {error}", path.display()))
            };
            let pem = std::fs::read(path).map_err(|e| fail(&e))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| fail(&e))?;
            if certificates.is_empty() {
                return Err(fail(&"it holds no PEM certificate"));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        let client = builder
            .build()
            .map_err(|error| SinkError::user(format!("cannot set up TLS for `{name}`: {}", with_causes(&error))))?;
        let headers = headers(&options.headers)?;
        let token = Token::new(target.token_file.clone(), options.token.as_ref())?;
        if target.url.starts_with("http://") && token.is_some() {
            tracing::warn!(sink = name, "the token travels unencrypted: use https");
        }
        Ok(Poster { name, stats, client, url: target.url.clone(), headers, token, retry, down: AtomicBool::new(false) })
    }

    /// Sends one body until the receiver has decided. Fails only where no body at all can be delivered.
    pub(super) async fn post(&self, key: &str, body: Bytes) -> Result<Answer, SinkError> {
        let key = HeaderValue::from_str(key)
            .map_err(|_| SinkError::internal(format!("`{key}` cannot be sent as Idempotency-Key")))?;
        let mut pauses = self.retry.pauses();
        loop {
            match self.attempt(&key, body.clone()).await? {
                Attempt::Decided(answer) => {
                    if self.down.swap(false, Relaxed) {
                        tracing::info!(sink = self.name, "webhook works again");
                    }
                    return Ok(answer);
                }
                Attempt::Unauthorized(why) if !self.token.reload() => {
                    return Err(SinkError::user(format!(
                        "`{}` refuses the credentials ({why}); check the token",
                        self.name
                    )));
                }
                Attempt::Unauthorized(_) => {
                    self.stats.retried(1);
                    tracing::info!(sink = self.name, "token file has changed, trying the new token");
                }
                Attempt::Again { why, asked } => {
                    self.stats.retried(1);
                    // One line for an outage, not one for every attempt of every alert.
                    if !self.down.swap(true, Relaxed) {
                        tracing::warn!(sink = self.name, error = why, "webhook is down, repeating until it works");
                    }
                    pauses.wait(asked).await;
                }
            }
        }
    }

    async fn attempt(&self, key: &HeaderValue, body: Bytes) -> Result<Attempt, SinkError> {
        let mut request = self
            .client
            .post(&self.url)
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", key)
            .body(body);
        if let Some(token) = self.token.header() {
            request = request.header(AUTHORIZATION, token);
        }
        match request.send().await {
            Ok(response) => self.judge(response).await,
            Err(error) if error.is_builder() => {
                Err(SinkError::user(format!("cannot send to `{}`: {}", self.name, with_causes(&error.without_url()))))
            }
            Err(error) => Ok(Attempt::Again { why: with_causes(&error.without_url()), asked: None }),
        }
    }

    async fn judge(&self, response: Response) -> Result<Attempt, SinkError> {
        let status = response.status();
        if status.is_success() {
            return Ok(Attempt::Decided(Answer::Taken));
        }
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, crate::clock::now_ms()));
        let why = format!("{status}: {}", beginning(response).await);
        let wrong = |mend: &str| Err(SinkError::user(format!("`{}` answers {why}; {mend}", self.name)));
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Ok(Attempt::Again { why, asked })
            }
            StatusCode::UNAUTHORIZED => Ok(Attempt::Unauthorized(why)),
            StatusCode::FORBIDDEN => wrong("check what the token may do"),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => wrong("check the address"),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => wrong("check the proxy's credentials"),
            status if status.is_redirection() => wrong("redirects are not followed, give the final address"),
            status if status.is_client_error() => Ok(Attempt::Decided(Answer::Rejected(why))),
            _ => Ok(Attempt::Again { why, asked }),
        }
    }
}

/// The bearer token and where it is from.
struct Token {
    file: Option<PathBuf>,
    header: Mutex<Option<HeaderValue>>,
}

impl Token {
    fn new(file: Option<PathBuf>, configured: Option<&Secret>) -> Result<Self, SinkError> {
        let header = match (&file, configured) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|e| SinkError::user(format!("cannot read token file `{}`: {e}", file.display())))?;
                let value = bearer(&text).ok_or_else(|| {
                    SinkError::user(format!("token file `{}` holds no token on one line", file.display()))
                })?;
                Some(value)
            }
            (None, Some(Secret(text))) => Some(
                bearer(text).ok_or_else(|| SinkError::user("the webhook token is empty or not one line of text"))?,
            ),
            (None, None) => None,
        };
        Ok(Token { file, header: Mutex::new(header) })
    }

    fn is_some(&self) -> bool {
        self.header().is_some()
    }

    fn header(&self) -> Option<HeaderValue> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again; true where it holds another token than before.
    fn reload(&self) -> bool {
        let text = self.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let Some(fresh) = text.and_then(|text| bearer(&text)) else { return false };
        let mut header = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = header.as_ref() != Some(&fresh);
        *header = Some(fresh);
        changed
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let token = token.trim();
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| !token.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

fn headers(configured: &[(String, Secret)]) -> Result<HeaderMap, SinkError> {
    let mut headers = HeaderMap::new();
    for (name, Secret(value)) in configured {
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        let (header, mut value) = parsed
            .ok_or_else(|| SinkError::user(format!("webhook header `{name}` is not a header that can be sent")))?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    Ok(headers)
}

/// Seconds or an HTTP date.
fn retry_after(value: &HeaderValue, now_ms: i64) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until_ms = DateTime::parse_from_rfc2822(text).ok()?.timestamp_millis();
    u64::try_from(until_ms - now_ms).ok().map(Duration::from_millis)
}

/// What the receiver says about its refusal, made fit for a log line.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            _ => break,
        }
    }
    bytes.truncate(ANSWER_BYTES_MAX);
    plain(String::from_utf8_lossy(&bytes).trim())
}

/// An error and what caused it: the client's own text seldom says more than "error sending request".
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
