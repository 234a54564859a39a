//! ATT&CK places of a converted rule: its tags, mapped to the version that the binary carries.

use std::collections::BTreeSet;

use super::expr::Expr;
use crate::detection::{ATTACK_VERSION, Attack, MATRIX};

/// Old names of tactics, and what became of them.
const RENAMED: &[(&str, &str)] = &[("defense-evasion", "TA0005"), ("impair-defenses", "TA0112")];

/// `tactic/technique`, at least one, and what is to be said about them.
pub(super) fn places(tags: &[String], condition: &Expr) -> (Vec<String>, Vec<String>) {
    let mut notes = Vec::new();
    let mut tactics: Vec<String> = Vec::new();
    let mut techniques: Vec<String> = Vec::new();
    for tag in tags {
        let tag = tag.trim().to_lowercase().replace('_', "-");
        let name = tag.strip_prefix("attack.").or_else(|| tag.strip_prefix("mitre-")).unwrap_or(&tag);
        match (tactic(name), technique(name)) {
            (Some(id), _) => tactics.push(id),
            (None, Some(id)) => techniques.push(id),
            _ => {}
        }
    }
    let mut places: Vec<String> = Vec::new();
    for id in &techniques {
        match place(id, &tactics) {
            Some(place) => {
                if !place.ends_with(&format!("/{id}")) {
                    notes
                        .push(format!("{id} is {} in ATT&CK v{ATTACK_VERSION}", place.split('/').nth(1).unwrap_or("")));
                }
                places.push(place);
            }
            None => notes.push(format!("{id} is not among the techniques that are kept for audit logs; left out")),
        }
    }
    if places.is_empty() {
        let guess = guess(&condition.sql());
        notes.push(format!("no tag names a technique that is kept here; {guess} is a guess from what the query reads"));
        places.push(guess.to_owned());
    }
    let mut seen = BTreeSet::new();
    places.retain(|place| seen.insert(place.clone()));
    (places, notes)
}

/// The id of a tactic by its name with hyphens, or by itself.
fn tactic(name: &str) -> Option<String> {
    let renamed = RENAMED.iter().find(|(old, _)| *old == name).map(|(_, id)| (*id).to_owned());
    let known = || {
        let is = |id: &str, own: &str| id.eq_ignore_ascii_case(name) || own.to_lowercase().replace(' ', "-") == name;
        MATRIX.tactics.iter().find(|tactic| is(&tactic.id, &tactic.name)).map(|tactic| tactic.id.clone())
    };
    renamed.or_else(known)
}

/// The id of a technique: `t1078` or `t1078.001`.
fn technique(name: &str) -> Option<String> {
    let digits = name.strip_prefix('t')?;
    let is_id = digits.len() >= 4 && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    is_id.then(|| name.to_uppercase())
}

/// A technique under one of the rule's tactics if it may stand there, else under its own.
fn place(id: &str, tactics: &[String]) -> Option<String> {
    let parent = id.split('.').next().unwrap_or(id);
    let known = MATRIX.technique(id).or_else(|| MATRIX.successor(id)).or_else(|| MATRIX.technique(parent))?;
    // A sub-technique of another platform goes where its parent does.
    let mut own = known.tactics.as_slice();
    if let (true, Some(parent)) = (own.is_empty(), known.id.split('.').next().and_then(|id| MATRIX.technique(id))) {
        own = parent.tactics.as_slice();
    }
    let fitting = tactics.iter().filter(|tactic| own.is_empty() || own.contains(tactic));
    let others = MATRIX.tactics.iter().map(|tactic| &tactic.id);
    let mut candidates = fitting.chain(own).chain(others).map(|tactic| format!("{tactic}/{}", known.id));
    candidates.find(|place| Attack::parse(place).is_ok())
}

/// What such a query is mostly about.
const GUESSES: &[(&str, &str)] = &[
    ("'exec'", "TA0002/T1609"),
    ("'attach'", "TA0002/T1609"),
    ("'portforward'", "TA0008/T1550.001"),
    ("'secrets'", "TA0006/T1552.007"),
    ("'events'", "TA0005/T1070"),
    ("bindings'", "TA0003/T1098.006"),
    ("roles'", "TA0003/T1098.006"),
    ("'serviceaccounts'", "TA0003/T1136.001"),
    ("webhookconfigurations'", "TA0003/T1546"),
    ("host_paths", "TA0004/T1611"),
    ("privileged", "TA0004/T1611"),
    ("host_network", "TA0004/T1611"),
    ("host_pid", "TA0004/T1611"),
    ("host_ipc", "TA0004/T1611"),
    ("jobs'", "TA0002/T1053.007"),
    ("verb = 'delete'", "TA0040/T1485"),
    ("'services'", "TA0001/T1133"),
    ("'ingresses'", "TA0001/T1133"),
    ("pods'", "TA0002/T1610"),
    ("'deployments'", "TA0002/T1610"),
    ("'daemonsets'", "TA0002/T1610"),
    ("system:anonymous", "TA0001/T1078.001"),
    ("user_name", "TA0001/T1078"),
];

fn guess(sql: &str) -> &'static str {
    GUESSES.iter().find(|(part, _)| sql.contains(part)).map_or("TA0007/T1613", |(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(tags: &[&str], sql: &str) -> (String, usize) {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let (places, notes) = places(&tags, &Expr::atom(sql));
        (places.join(" "), notes.len())
    }

    #[test]
    fn tags_are_mapped_to_the_version_that_is_carried() {
        assert_eq!(mapped(&["attack.privilege-escalation", "attack.t1611"], ""), ("TA0004/T1611".into(), 0));
        assert_eq!(mapped(&["attack.defense_evasion", "attack.t1562.008"], ""), ("TA0112/T1685.002".into(), 1));
        assert_eq!(mapped(&["attack.execution", "attack.t1610", "attack.t1610"], ""), ("TA0002/T1610".into(), 0));
        assert_eq!(mapped(&["attack.t1078", "attack.initial-access"], ""), ("TA0001/T1078".into(), 0));
        // A sub-technique that is not kept, under its parent that is.
        assert_eq!(mapped(&["attack.t1069.003"], ""), ("TA0007/T1069".into(), 1));
        assert_eq!(mapped(&["mitre_persistence", "T1053.007"], ""), ("TA0003/T1053.007".into(), 0));
    }

    #[test]
    fn without_a_technique_there_is_a_guess_that_says_so() {
        assert_eq!(mapped(&["k8s"], "resource = 'secrets'"), ("TA0006/T1552.007".into(), 1));
        assert_eq!(mapped(&["attack.t9999"], "TRUE"), ("TA0007/T1613".into(), 2));
        for (_, place) in GUESSES {
            assert!(Attack::parse(place).is_ok(), "{place}");
        }
    }
}
