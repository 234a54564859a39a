//! Standard output: for people, or as NDJSON of OCSF.
//!
//! People get at most four lines for an alert. Colour is used on a terminal only and never where `NO_COLOR` is set.
//! Every text in an alert may be chosen by an attacker, so whatever could move the cursor, change colours, break the
//! line or reorder what is shown is written as an escape.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anstyle::{AnsiColor, Color, Effects, Style};
use chrono::DateTime;
use serde::Deserialize;

use super::{AlertSink, SinkError, SinkFuture, SinkStats};
use crate::model::{Activity, Alert, Severity};

/// How alerts look on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConsoleFormat {
    /// A few lines each, for people.
    #[default]
    Human,
    /// OCSF, one line each.
    Json,
}

/// Writes alerts to standard output (or, in tests, elsewhere).
pub struct ConsoleSink {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    format: ConsoleFormat,
    color: bool,
    stats: Arc<SinkStats>,
}

impl fmt::Debug for ConsoleSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleSink").field("format", &self.format).field("color", &self.color).finish_non_exhaustive()
    }
}

impl ConsoleSink {
    /// Standard output. Colour follows the terminal, `NO_COLOR`, `CLICOLOR_FORCE` and the global choice of `anstream`.
    pub fn stdout(format: ConsoleFormat, stats: Arc<SinkStats>) -> Self {
        let color = anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
        ConsoleSink::new(Box::new(io::stdout()), format, color, stats)
    }

    /// Any writer, with or without colour.
    pub fn new(out: Box<dyn Write + Send>, format: ConsoleFormat, color: bool, stats: Arc<SinkStats>) -> Self {
        ConsoleSink { out: Arc::new(Mutex::new(out)), format, color, stats }
    }

    /// Writes on a thread that may block: a slow reader of the pipe must not hold up anything but us.
    fn write(&self, bytes: Vec<u8>) -> impl Future<Output = Result<(), SinkError>> + Send + use<> {
        let out = Arc::clone(&self.out);
        async move {
            let job = tokio::task::spawn_blocking(move || {
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                out.write_all(&bytes).and_then(|()| out.flush())
            });
            match job.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Err(SinkError::reader_gone()),
                // Part of it may be out, so that repeating would garble it.
                Ok(Err(error)) => Err(SinkError {
                    retry: false,
                    ..SinkError::external(format!("cannot write to standard output: {error}"))
                }),
                Err(error) => Err(SinkError::internal(format!("writing to standard output failed: {error}"))),
            }
        }
    }
}

impl AlertSink for ConsoleSink {
    fn deliver<'a>(&'a mut self, alerts: &'a [Alert]) -> SinkFuture<'a> {
        let mut bytes = Vec::new();
        for alert in alerts {
            match self.format {
                ConsoleFormat::Json => bytes.extend_from_slice(&alert.ocsf),
                ConsoleFormat::Human => bytes.extend_from_slice(render(alert, self.color).as_bytes()),
            }
            bytes.push(b'\n');
        }
        Box::pin(async move {
            self.write(bytes).await?;
            self.stats.delivered(alerts.len());
            Ok(())
        })
    }

    fn flush(&mut self) -> SinkFuture<'_> {
        // Each delivery is flushed already: people watch this.
        Box::pin(async { Ok(()) })
    }
}

/// Width of the first column: the longest severity and two spaces.
const INDENT: usize = 10;
/// Longest text shown of one value; all of it is in the JSON.
const TEXT_CHARS_MAX: usize = 400;

/// One alert for people: at most four lines, the last without its newline.
///
/// ```text
/// HIGH      Workload mounts a sensitive host path
///           alice mounted /var/run/docker.sock in shop/web
///           cluster=prod namespace=shop name=web · alice from 203.0.113.7
///           sensitive-host-path · TA0004/T1611 · 2026-11-24 22:11:33 UTC · update, 3 events
/// ```
pub fn render(alert: &Alert, color: bool) -> String {
    let paint = |style: Style, text: &str| if color { format!("{style}{text}{style:#}") } else { text.to_owned() };
    let (word, style) = severity(alert.severity);
    let dim = Style::new().effects(Effects::DIMMED);
    let bold = Style::new().bold();

    let mut lines = vec![format!("{}{}", paint(style, &format!("{word:<INDENT$}")), paint(bold, &plain(&alert.title)))];
    if !alert.summary.is_empty() {
        lines.push(plain(&alert.summary));
    }
    let entity: Vec<String> = alert
        .entity
        .iter()
        .map(|(key, value)| format!("{}{}", paint(dim, &format!("{}=", plain(key))), plain(value)))
        .collect();
    let subject = [entity.join(" "), who(&alert.ocsf)];
    let subject: Vec<&str> = subject.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    if !subject.is_empty() {
        lines.push(subject.join(" · "));
    }
    lines.push(paint(dim, &facts(alert)));
    lines.join(&format!("\n{:INDENT$}", ""))
}

/// Detection, ATT&CK, time and count.
fn facts(alert: &Alert) -> String {
    let mut text = plain(&alert.detection);
    if !alert.attack.is_empty() {
        let ids: Vec<String> = alert.attack.iter().map(|id| plain(id)).collect();
        let _ = write!(text, " · {}", ids.join(" "));
    }
    if let Some(time) = DateTime::from_timestamp_micros(alert.event_time_us) {
        let _ = write!(text, " · {}", time.format("%Y-%m-%d %H:%M:%S UTC"));
    }
    match (alert.activity, alert.count) {
        (Activity::Create, 0 | 1) => {}
        (Activity::Create, count) => {
            let _ = write!(text, " · {count} events");
        }
        (Activity::Update, count) => {
            let _ = write!(text, " · update, {count} event{}", if count == 1 { "" } else { "s" });
        }
    }
    text
}

/// Who did it and from where, out of the alert's JSON: the newest evidence stands first.
fn who(ocsf: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Finding {
        #[serde(default)]
        evidences: Vec<Evidence>,
    }
    #[derive(Deserialize)]
    struct Evidence {
        actor: Option<Actor>,
        src_endpoint: Option<Endpoint>,
    }
    #[derive(Deserialize)]
    struct Actor {
        user: Option<User>,
    }
    #[derive(Deserialize)]
    struct User {
        name: Option<String>,
    }
    #[derive(Deserialize)]
    struct Endpoint {
        ip: Option<String>,
    }
    let finding: Option<Finding> = serde_json::from_slice(ocsf).ok();
    let Some(evidence) = finding.and_then(|finding| finding.evidences.into_iter().next()) else {
        return String::new();
    };
    let name = evidence.actor.and_then(|actor| actor.user).and_then(|user| user.name);
    let ip = evidence.src_endpoint.and_then(|endpoint| endpoint.ip);
    match (name, ip) {
        (Some(name), Some(ip)) => format!("{} from {}", plain(&name), plain(&ip)),
        (Some(name), None) => plain(&name),
        (None, Some(ip)) => format!("from {}", plain(&ip)),
        (None, None) => String::new(),
    }
}

fn severity(severity: Severity) -> (&'static str, Style) {
    let color = |color: AnsiColor| Style::new().fg_color(Some(Color::Ansi(color)));
    match severity {
        Severity::Critical => ("CRITICAL", color(AnsiColor::Red).bold().invert()),
        Severity::High => ("HIGH", color(AnsiColor::Red).bold()),
        Severity::Medium => ("MEDIUM", color(AnsiColor::Yellow).bold()),
        Severity::Low => ("LOW", color(AnsiColor::Cyan)),
        Severity::Informational => ("INFO", color(AnsiColor::Blue)),
    }
}

/// Text that a terminal shows as it stands, on one line: anything that acts on the terminal or on the order of the
/// other characters becomes a visible escape, and what is too long is cut.
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for (index, c) in text.chars().enumerate() {
        if index == TEXT_CHARS_MAX {
            shown.push('…');
            break;
        }
        match c {
            '\n' | '\r' | '\t' => shown.extend(c.escape_default()),
            c if c.is_control() || invisible(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// Characters that are not seen but change what is seen, or hide text: direction marks, embeddings, overrides and
/// isolates, line and paragraph separators, zero-width characters, tags, variation selectors beyond the common ones.
fn invisible(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::sink::Whose;
    use crate::stage::sink::samples::{alert, alerts};

    #[test]
    fn people_get_four_lines() {
        let expected = "\
HIGH      Workload mounts a sensitive host path
          alice mounted /var/run/docker.sock in shop/web
          cluster=prod namespace=shop name=web · alice from 203.0.113.7
          sensitive-host-path · TA0004/T1611 · 2026-11-24 22:11:33 UTC";
        assert_eq!(render(&alert("f"), false), expected);
    }

    #[test]
    fn updates_say_how_many_events() {
        let update = Alert { activity: Activity::Update, count: 3, ..alert("f") };
        assert!(render(&update, false).ends_with(" UTC · update, 3 events"));
    }

    #[test]
    fn an_alert_that_knows_little_is_shorter() {
        let bare = Alert { summary: String::new(), entity: vec![], attack: vec![], ocsf: "{}".into(), ..alert("f") };
        let expected = "\
HIGH      Workload mounts a sensitive host path
          sensitive-host-path · 2026-11-24 22:11:33 UTC";
        assert_eq!(render(&bare, false), expected);
    }

    #[test]
    fn colour_is_for_severity_and_adds_no_text() {
        let colored = render(&alert("f"), true);
        assert!(colored.starts_with("\u{1b}[1m\u{1b}[31mHIGH      \u{1b}[0m"), "{colored:?}");
        assert_eq!(anstream::adapter::strip_str(&colored).to_string(), render(&alert("f"), false));
    }

    /// Every text that an attacker may choose, with everything that could fool the reader of a terminal.
    #[test]
    fn hostile_strings_are_shown_and_not_obeyed() {
        let hostile = Alert {
            title: "clear\u{1b}[2J\u{9b}31m".into(),
            summary: "line\r\nHIGH      forged\tby \u{202e}gpj.exe\u{2066}".into(),
            entity: vec![("name".into(), "zero\u{200b}width\u{feff}\u{e0041}".into())],
            detection: "bell\u{7}".into(),
            attack: vec!["\u{1b}]0;title\u{7}".into()],
            ocsf: r#"{"evidences":[{"actor":{"user":{"name":"eve\u001b[1A\u2028"}},"src_endpoint":{"ip":"\u0000"}}]}"#
                .into(),
            ..alert("f")
        };
        let expected = "\
HIGH      clear\\u{1b}[2J\\u{9b}31m
          line\\r\\nHIGH      forged\\tby \\u{202e}gpj.exe\\u{2066}
          name=zero\\u{200b}width\\u{feff}\\u{e0041} · eve\\u{1b}[1A\\u{2028} from \\u{0}
          bell\\u{7} · \\u{1b}]0;title\\u{7} · 2026-11-24 22:11:33 UTC";
        assert_eq!(render(&hostile, false), expected);
        let legible = "Grüße, 日本語, ñ 🙂";
        assert_eq!(plain(legible), legible);
        assert_eq!(plain(&"x".repeat(5_000)).chars().count(), TEXT_CHARS_MAX + 1);
    }

    /// Where a test looks at what was written.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn json_is_one_line_for_each_alert_and_nothing_else() {
        let (out, stats) = (Shared::default(), Arc::new(SinkStats::default()));
        let mut sink = ConsoleSink::new(Box::new(out.clone()), ConsoleFormat::Json, true, Arc::clone(&stats));
        sink.deliver(&alerts("f", 2)).await.expect("written");
        let text = String::from_utf8(out.0.lock().unwrap().clone()).expect("text");
        let uids: Vec<String> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).expect("JSON")["finding_info"]["uid"].to_string()
            })
            .collect();
        assert_eq!(uids, ["\"f0\"", "\"f1\""]);
        assert_eq!(stats.read().delivered, 2);
    }

    #[tokio::test]
    async fn a_closed_pipe_is_nobodys_fault() {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut sink = ConsoleSink::new(Box::new(writer), ConsoleFormat::Json, false, Arc::default());
        let error = sink.deliver(&alerts("f", 1)).await.expect_err("closed");
        assert_eq!(error.whose, Whose::Reader);
    }
}
