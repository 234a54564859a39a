//! The detection file of a converted rule.

use std::fmt::Write as _;

use super::{Rule, attack};
use crate::cli::yaml;

/// A file in the making.
#[derive(Debug)]
pub(super) struct Draft {
    pub id: String,
    /// Folder of its first tactic, as detections are laid out; none where that tactic has none.
    pub folder: Option<&'static str>,
    pub text: String,
    /// What its reader should know: differences from the rule, guesses.
    pub notes: Vec<String>,
}

/// Draws up the file. `file` is where the rule is from, as the user named it.
pub(super) fn draft(rule: &Rule, file: &str, id: String) -> Draft {
    let (places, more) = attack::places(&rule.tags, &rule.condition);
    let notes: Vec<String> = rule.notes.iter().cloned().chain(more).collect();
    let first = places.first().and_then(|place| crate::detection::Attack::parse(place).ok());
    let mut out = comment(rule, file, &notes);
    let _ = writeln!(out, "id: {id}");
    let _ = writeln!(out, "title: {}", yaml::scalar(&one_line(&rule.title)));
    let _ = writeln!(out, "severity: {}", rule.severity.as_str());
    out.push_str("status: experimental\n");
    let _ = writeln!(out, "attack: [{}]", places.join(", "));
    let _ = writeln!(out, "description: >-\n{}", folded(&rule.description));
    if !rule.false_positives.is_empty() {
        out.push_str("false_positives:\n");
        for text in &rule.false_positives {
            let _ = writeln!(out, "  - {}", yaml::scalar(&one_line(text)));
        }
    }
    let _ = writeln!(out, "sql: |\n  {}", rule.condition.query().replace('\n', "\n  "));
    out.push_str("entity: [cluster, user_name, verb, resource, namespace, name]\nsuppress: 1h\n");
    let _ = writeln!(out, "summary: {}", yaml::scalar(&summary(rule)));
    if !rule.references.is_empty() {
        out.push_str("references:\n");
        for text in &rule.references {
            let _ = writeln!(out, "  - {}", yaml::scalar(&one_line(text)));
        }
    }
    Draft { id, folder: first.and_then(|place| place.tactic.folder.as_deref()), text: out, notes }
}

/// Where it is from, under which licence, and how it differs.
fn comment(rule: &Rule, file: &str, notes: &[String]) -> String {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let mut out = String::new();
    let mut say = |text: String| {
        let _ = writeln!(out, "{}", yaml::wrapped(&printable(&text), "# "));
    };
    let uid = rule.uid.as_ref().map_or_else(String::new, |uid| format!(" ({uid})"));
    say(format!("Converted by `kubetide import {}` from {name}: {}{uid}.", rule.prefix, rule.title));
    if let Some(author) = &rule.author {
        say(format!("Author of the rule: {author}."));
    }
    if let Some(licence) = &rule.licence {
        say(format!("Licence of the rule: {licence}. This file is under the same."));
    }
    for note in notes {
        say(format!("Note: {note}."));
    }
    out
}

fn summary(rule: &Rule) -> String {
    match &rule.summary {
        Some(summary) => printable(summary),
        None => {
            let title = one_line(&rule.title).replace('{', "{{").replace('}', "}}");
            format!("{title}: {{user_name}} {{verb}} {{resource}} {{namespace}}/{{name}}")
        }
    }
}

fn one_line(text: &str) -> String {
    printable(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn folded(text: &str) -> String {
    yaml::wrapped(&printable(text), "  ")
}

/// Without characters that no YAML holds as they are.
fn printable(text: &str) -> String {
    let kept = |c: &char| c.is_whitespace() || !(c.is_control() || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}'));
    text.chars().filter(kept).map(|c| if c.is_whitespace() { ' ' } else { c }).collect()
}

/// A title as an id: lower case words joined with hyphens.
pub(super) fn slug(prefix: &str, title: &str) -> String {
    let mut out = prefix.to_owned();
    for word in title.to_ascii_lowercase().split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        if out.len() + word.len() > 80 {
            break;
        }
        out.push('-');
        out.push_str(word);
    }
    if out == prefix { format!("{prefix}-rule") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_ids() {
        assert_eq!(slug("falco", "Attach/Exec Pod"), "falco-attach-exec-pod");
        assert_eq!(slug("sigma", "—"), "sigma-rule");
        assert!(slug("sigma", &"word ".repeat(50)).len() <= 86);
    }
}
