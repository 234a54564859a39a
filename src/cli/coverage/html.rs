//! The report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.
//!
//! Colour only repeats what the text says: every cell gives its count in words.

use std::fmt::Write as _;

use super::super::diagnostics::escape_xml;
use super::{Loss, Report, gap_text, level_text, loss_heading, plural};
use crate::detection::ATTACK_VERSION;
use crate::detection::coverage::Cell;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#16202a;--paper:#fff;--line:#c3ccd5;--c0:#f6dcd8;--c1:#dceefb;--c2:#a8d1f2;--c3:#0b5394;--on3:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8edf2;--paper:#12181f;--line:#3b4753;--c0:#5a2a25;--c1:#173147;--c2:#1f4f7a;--c3:#9ccbf2;--on3:#0b1a28}}
body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem;color:var(--ink);background:var(--paper)}
.matrix{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem}
.matrix section>ul{list-style:none;margin:0;padding:0}
.matrix section>ul>li{border:1px solid var(--line);border-radius:.3rem;margin:.3rem 0;padding:.4rem .6rem}
.sub{margin-left:1rem!important}
.n0{background:var(--c0)}.n1{background:var(--c1)}.n2{background:var(--c2)}.n3{background:var(--c3);color:var(--on3)}
h3{font-size:1rem;margin:.5rem 0}small{display:block}
table{border-collapse:collapse;width:100%}th,td{border:1px solid var(--line);padding:.3rem .6rem;text-align:left;vertical-align:top}
td.number{text-align:right}summary{cursor:pointer}code{font-size:.9em}
";

/// The page.
pub(super) fn page(report: &Report) -> String {
    let title = format!("Coverage of ATT&amp;CK v{ATTACK_VERSION} for Containers");
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n<p>{}</p>\n\
         <p>A detection of a sub-technique covers its parent too. The darker a cell, the more detections; each cell says \
         how many.</p>\n",
        escape_xml(&report.scope())
    );
    matrix(report, &mut out);
    missing(report, &mut out);
    losses(report, &mut out);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn matrix(report: &Report, out: &mut String) {
    out.push_str("<h2>Matrix</h2>\n<div class=\"matrix\">\n");
    for column in report.by_tactic() {
        let Some(first) = column.first() else { continue };
        let covered = column.iter().filter(|cell| cell.count() > 0).count();
        let _ = writeln!(
            out,
            "<section aria-labelledby=\"{id}\">\n<h3 id=\"{id}\">{} <small>{id}, {covered} of {} covered</small></h3>\n<ul>",
            escape_xml(&first.tactic.name),
            column.len(),
            id = first.tactic.id,
        );
        column.iter().for_each(|cell| technique(cell, out));
        out.push_str("</ul>\n</section>\n");
    }
    out.push_str("</div>\n");
}

fn technique(cell: &Cell, out: &mut String) {
    let count = cell.count();
    let shade = match count {
        0 => "n0",
        1..=2 => "n1",
        3..=7 => "n2",
        _ => "n3",
    };
    let sub = if cell.technique.id.contains('.') { " sub" } else { "" };
    let _ = write!(out, "<li class=\"{shade}{sub}\">{} {}", cell.technique.id, escape_xml(&cell.technique.name));
    if count == 0 {
        out.push_str("<small>no detection</small></li>\n");
        return;
    }
    let _ = write!(out, "<details><summary>{}</summary><ul>", plural(count, "detection"));
    for detection in &cell.direct {
        let _ = write!(
            out,
            "<li><code>{}</code> {} ({})</li>",
            escape_xml(&detection.id),
            escape_xml(&detection.title),
            detection.severity.as_str()
        );
    }
    for detection in &cell.through {
        let _ = write!(out, "<li><code>{}</code> by a sub-technique</li>", escape_xml(&detection.id));
    }
    out.push_str("</ul></details></li>\n");
}

fn missing(report: &Report, out: &mut String) {
    out.push_str("<h2>Gaps</h2>\n");
    if report.gaps.is_empty() {
        out.push_str("<p>None: everything that must be covered is.</p>\n");
        return;
    }
    out.push_str("<ul>\n");
    for gap in &report.gaps {
        let _ = writeln!(out, "<li>{}</li>", escape_xml(&gap_text(gap)));
    }
    out.push_str("</ul>\n");
}

fn losses(report: &Report, out: &mut String) {
    out.push_str(
        "<h2>What each log takes away</h2>\n<table>\n<caption>Enabled detections by how well they work on each log: \
         partial ones miss some of what they look for or cannot tell some look-alikes apart, blind ones can never \
         fire</caption>\n<thead><tr><th scope=\"col\">Log</th><th scope=\"col\">Audit level</th>\
         <th scope=\"col\">Full</th><th scope=\"col\">Partial</th><th scope=\"col\">Blind</th>\
         <th scope=\"col\">Techniques lost</th></tr></thead>\n<tbody>\n",
    );
    for loss in &report.losses {
        let full = report.enabled.len() - loss.blind.len() - loss.partial.len();
        let gaps: Vec<String> = loss.gaps.iter().map(gap_text).collect();
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"number\">{full}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td>{}</td></tr>",
            escape_xml(loss.feed.title),
            level_text(loss.level),
            loss.partial.len(),
            loss.blind.len(),
            escape_xml(&gaps.join(", "))
        );
    }
    out.push_str("</tbody>\n</table>\n");
    report.losses.iter().filter(|loss| loss.any()).for_each(|loss| lost(loss, out));
}

fn lost(loss: &Loss, out: &mut String) {
    let _ = writeln!(
        out,
        "<details><summary>{}</summary>\n<p>{}</p>",
        escape_xml(&loss_heading(loss)),
        escape_xml(&loss.feed.note.replace('`', ""))
    );
    for (heading, detections) in loss.parts() {
        let _ = write!(out, "<p>{heading}:</p>\n<ul>");
        for detection in detections {
            let limits = loss.feed.limits(detection, loss.level);
            let _ = write!(out, "<li><code>{}</code> {}</li>", escape_xml(&detection.id), escape_xml(&limits));
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</details>\n");
}
