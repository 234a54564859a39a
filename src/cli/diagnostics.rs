//! Diagnostics as text: for people on a terminal, for scripts, and for what runs in CI.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level as Shown, Origin, Renderer, Snippet};
use serde_json::{Value as Json, json};

use crate::detection::{Code, Diagnostic, Level, Span};

/// How findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// With a snippet of the file, for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
    /// Workflow commands that annotate a pull request.
    Github,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// JUnit XML, one test case a file.
    Junit,
}

/// What a check found, and in what.
#[derive(Debug, Default)]
pub struct Report {
    pub diagnostics: Vec<Diagnostic>,
    /// Every file that was looked at, those without findings too.
    pub checked: Vec<Arc<str>>,
}

impl Report {
    /// Number of findings of a level.
    pub fn count(&self, level: Level) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.level == level).count()
    }

    /// The whole report, ending in a line break unless it is empty. `styled` adds ANSI colours to the human form.
    pub fn render(&self, format: Format, styled: bool) -> String {
        match format {
            Format::Human => self.diagnostics.iter().map(|diagnostic| human(diagnostic, styled) + "\n\n").collect(),
            Format::Json => self.diagnostics.iter().map(|diagnostic| format!("{}\n", json_line(diagnostic))).collect(),
            Format::Github => self.diagnostics.iter().map(github).collect(),
            Format::Sarif => format!("{:#}\n", self.sarif()),
            Format::Junit => self.junit(),
        }
    }

    fn sarif(&self) -> Json {
        let rules: Vec<Json> = Code::ALL
            .iter()
            .map(|code| {
                json!({
                    "id": code.as_str(),
                    "shortDescription": { "text": code.doc() },
                    "defaultConfiguration": { "level": code.level().as_str() },
                })
            })
            .collect();
        let results: Vec<Json> = self.diagnostics.iter().map(sarif_result).collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": {
                    "name": env!("CARGO_PKG_NAME"),
                    "version": env!("CARGO_PKG_VERSION"),
                    "informationUri": env!("CARGO_PKG_REPOSITORY"),
                    "rules": rules,
                } },
                "columnKind": "unicodeCodePoints",
                "results": results,
            }],
        })
    }

    fn junit(&self) -> String {
        let mut files: BTreeMap<&str, Vec<&Diagnostic>> = BTreeMap::new();
        for file in &self.checked {
            files.entry(file).or_default();
        }
        for diagnostic in &self.diagnostics {
            files.entry(&diagnostic.file).or_default().push(diagnostic);
        }
        let failed = files.values().filter(|found| !found.is_empty()).count();
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"kubetide lint\" tests=\"{}\" \
             failures=\"{failed}\">\n",
            files.len()
        );
        for (file, found) in files {
            let _ = write!(xml, "    <testcase classname=\"lint\" name=\"{}\"", escape_xml(file));
            if found.is_empty() {
                xml.push_str("/>\n");
                continue;
            }
            let text: Vec<String> = found.iter().map(|diagnostic| one_line(diagnostic)).collect();
            let first = found.first().map_or("", |diagnostic| diagnostic.message.as_str());
            let _ = write!(
                xml,
                ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n",
                escape_xml(first),
                escape_xml(&text.join("\n"))
            );
        }
        xml.push_str("  </testsuite>\n</testsuites>\n");
        xml
    }
}

/// One finding for people, without a line break at its end.
pub fn human(diagnostic: &Diagnostic, styled: bool) -> String {
    let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
    let level = match diagnostic.level {
        Level::Error => Shown::ERROR,
        Level::Warning => Shown::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.as_str());
    let mut group = match (&diagnostic.source, diagnostic.span.line) {
        (Some(text), 1..) => title.element(
            Snippet::source(&**text)
                .path(&*diagnostic.file)
                .annotation(AnnotationKind::Primary.span(byte_range(text, diagnostic.span))),
        ),
        _ => title.element(Origin::path(&*diagnostic.file)),
    };
    if let Some(help) = &diagnostic.help {
        group = group.element(Shown::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}

/// `file:line:column: error[KT0003]: message (help)`.
/// One finding as one line, its place first.
pub fn one_line(diagnostic: &Diagnostic) -> String {
    let Span { line, column, .. } = diagnostic.span;
    let (level, code) = (diagnostic.level.as_str(), diagnostic.code.as_str());
    let help = diagnostic.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("{}:{line}:{column}: {level}[{code}]: {}{help}", diagnostic.file, diagnostic.message)
}

fn json_line(diagnostic: &Diagnostic) -> Json {
    let Span { line, column, length } = clipped(diagnostic);
    json!({
        "code": diagnostic.code.as_str(),
        "level": diagnostic.level.as_str(),
        "file": &*diagnostic.file,
        "line": line,
        "column": column,
        "length": length,
        "message": diagnostic.message,
        "help": diagnostic.help,
    })
}

fn github(diagnostic: &Diagnostic) -> String {
    let property = |text: &str| escape_command(text).replace(':', "%3A").replace(',', "%2C");
    let Span { line, column, length } = clipped(diagnostic);
    let place = match line {
        0 => String::new(),
        _ => format!(",line={line},col={column},endColumn={}", column + length),
    };
    let help = diagnostic.help.as_deref().map(|help| format!("\n{help}")).unwrap_or_default();
    format!(
        "::{} file={}{place},title={}::{}\n",
        diagnostic.level.as_str(),
        property(&diagnostic.file),
        property(&format!("{} {}", diagnostic.code.as_str(), diagnostic.code.doc())),
        escape_command(&format!("{}{help}", diagnostic.message)),
    )
}

fn sarif_result(diagnostic: &Diagnostic) -> Json {
    let Span { line, column, length } = clipped(diagnostic);
    let help = diagnostic.help.as_deref().map(|help| format!("\n{help}")).unwrap_or_default();
    let mut location = json!({ "artifactLocation": { "uri": escape_uri(&diagnostic.file) } });
    if line > 0
        && let Some(location) = location.as_object_mut()
    {
        let region = json!({ "startLine": line, "startColumn": column, "endColumn": column + length });
        location.insert("region".to_owned(), region);
    }
    json!({
        "ruleId": diagnostic.code.as_str(),
        "ruleIndex": Code::ALL.iter().position(|code| *code == diagnostic.code),
        "level": diagnostic.level.as_str(),
        "message": { "text": format!("{}{help}", diagnostic.message) },
        "locations": [{ "physicalLocation": location }],
    })
}

/// The span, cut to its line where the text is known.
fn clipped(diagnostic: &Diagnostic) -> Span {
    let span = diagnostic.span;
    let Some(text) = &diagnostic.source else { return span };
    let range = byte_range(text, span);
    let length = text.get(range).map_or(1, |part| part.chars().count().max(1));
    Span { length: u32::try_from(length).unwrap_or(1), ..span }
}

/// The bytes that a span covers, never beyond its line nor into the middle of a character.
fn byte_range(text: &str, span: Span) -> Range<usize> {
    let line = text.split_inclusive('\n').scan(0, |start, line| {
        let this = *start;
        *start += line.len();
        Some((this, line.trim_end_matches(['\n', '\r'])))
    });
    let Some((start, line)) = line.take(span.line as usize).last().filter(|_| span.line > 0) else { return 0..0 };
    let byte = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(byte, _)| byte);
    let first = span.column.saturating_sub(1) as usize;
    start + byte(first)..start + byte(first + span.length.max(1) as usize)
}

fn escape_command(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escape_uri(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => uri.push(char::from(byte)),
            b'\\' => uri.push('/'),
            other => {
                let _ = write!(uri, "%{other:02X}");
            }
        }
    }
    uri
}

/// Text as XML character data or attribute value. Control characters that XML cannot hold become `?`.
pub fn escape_xml(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\n' | '\t' => xml.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => xml.push('?'),
            c => xml.push(c),
        }
    }
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let file: Arc<str> = "detections/impact/é,x.yaml".into();
        let text: Arc<str> = "id: é\nseverty: \"high\"\n".into();
        let typo =
            Diagnostic::new(Code::UnknownKey, &file, Span { line: 2, column: 1, length: 7 }, "unknown key 'severty'")
                .help("did you mean 'severity'?")
                .source(&text);
        let whole = Diagnostic::new(Code::Unreadable, &file, Span::WHOLE, "100% <unreadable>\nfile");
        Report { diagnostics: vec![typo, whole], checked: vec![file, "good.yaml".into()] }
    }

    #[test]
    fn people_see_code_place_snippet_and_advice() {
        let text = report().render(Format::Human, false);
        for part in
            ["error[KT0003]: unknown key 'severty'", "é,x.yaml:2:1", "2 | severty: \"high\"", "^^^^^^^", "did you mean"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn scripts_get_one_object_a_line() {
        let text = report().render(Format::Json, false);
        let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["line"], &lines[0]["length"]), (&json!(2), &json!(7)));
    }

    #[test]
    fn workflow_commands_are_escaped() {
        let text = report().render(Format::Github, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("::error file=detections/impact/é%2Cx.yaml,line=2,col=1,endColumn=8,title="));
        assert!(lines[1].ends_with("::100%25 <unreadable>%0Afile"), "{}", lines[1]);
    }

    #[test]
    fn sarif_names_rule_and_region() {
        let sarif: Json = serde_json::from_str(&report().render(Format::Sarif, false)).expect("JSON");
        let run = &sarif["runs"][0];
        let result = &run["results"][0];
        let index = result["ruleIndex"].as_u64().expect("a number") as usize;
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "detections/impact/%C3%A9%2Cx.yaml");
        assert_eq!(place["region"], json!({"startLine": 2, "startColumn": 1, "endColumn": 8}));
        assert_eq!(run["results"][1]["locations"][0]["physicalLocation"].get("region"), None);
    }

    #[test]
    fn junit_has_a_case_for_each_file() {
        let xml = report().render(Format::Junit, false);
        assert!(xml.contains("tests=\"2\" failures=\"1\""), "{xml}");
        assert!(xml.contains("name=\"good.yaml\"/>") && xml.contains("&lt;unreadable&gt;"), "{xml}");
    }

    #[test]
    fn a_span_is_cut_to_its_line_and_to_whole_characters() {
        let text = "aé\nb";
        assert_eq!(byte_range(text, Span { line: 1, column: 2, length: 9 }), 1..3);
        assert_eq!(byte_range(text, Span { line: 2, column: 9, length: 1 }), 5..5);
        assert_eq!(byte_range(text, Span::WHOLE), 0..0);
        assert_eq!(byte_range("", Span::at(3, 3)), 0..0);
    }
}
