//! MITRE ATT&CK as data: the Containers matrix of Enterprise v19, the further techniques that audit logs show, and what
//! became of revoked ids.
//!
//! The data is `attack.yaml` beside this file. A detection's `tactic/technique` is checked here once, at load; alerts
//! then carry ids and names that are known to be right.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;

use super::diagnostic::{did_you_mean, suggest};

/// The version of ATT&CK that the binary carries, as alerts state it.
pub const ATTACK_VERSION: &str = "19";

/// A tactic: why an attacker does something.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tactic {
    /// `TA0004`.
    pub id: String,
    pub name: String,
    /// Folder of its detections; none where the Containers platform has no such column.
    #[serde(default)]
    pub folder: Option<String>,
}

/// A technique or sub-technique: how it is done.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Technique {
    /// `T1611` or `T1078.001`.
    pub id: String,
    pub name: String,
    /// Tactics that hold it on the Containers platform; empty for other platforms.
    #[serde(default)]
    pub tactics: Vec<String>,
    /// A platform that carries it where Containers does not.
    #[serde(default)]
    pub platform: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    version: String,
    tactics: Vec<Tactic>,
    techniques: Vec<Technique>,
    others: Vec<Technique>,
    revoked: BTreeMap<String, String>,
}

/// The matrix that the binary carries.
#[derive(Debug)]
pub struct Matrix {
    /// In the order of the matrix; those without a folder last.
    pub tactics: Vec<Tactic>,
    techniques: BTreeMap<String, Technique>,
    revoked: BTreeMap<String, String>,
}

/// The one matrix.
pub static MATRIX: LazyLock<Matrix> = LazyLock::new(|| {
    let data: Data = serde_saphyr::from_str(include_str!("attack.yaml")).expect("a test reads the same data");
    debug_assert_eq!(data.version, ATTACK_VERSION);
    let techniques = data.techniques.into_iter().chain(data.others).map(|one| (one.id.clone(), one)).collect();
    Matrix { tactics: data.tactics, techniques, revoked: data.revoked }
});

/// A detection's place in the matrix.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    pub tactic: &'static Tactic,
    /// The technique; of a sub-technique, its parent.
    pub technique: &'static Technique,
    pub sub_technique: Option<&'static Technique>,
}

impl fmt::Display for Attack {
    /// `TA0004/T1611`, as detection files write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tactic.id, self.sub_technique.unwrap_or(self.technique).id)
    }
}

/// Why a place is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AttackError {
    pub message: String,
    pub help: Option<String>,
}

impl Attack {
    /// Reads `TA0004/T1611`.
    pub fn parse(text: &str) -> Result<Attack, AttackError> {
        let matrix = &*MATRIX;
        let fail = |message: String, help: Option<String>| Err(AttackError { message, help });
        let Some((tactic_id, technique_id)) = text.split_once('/') else {
            let example = matrix.techniques.get(text).and_then(|known| known.tactics.first());
            let help = example.map_or_else(|| "TA0004/T1611".to_owned(), |tactic| format!("{tactic}/{text}"));
            return fail(format!("'{text}' is no tactic/technique"), Some(format!("write it as {help}")));
        };
        let Some(tactic) = matrix.tactics.iter().find(|tactic| tactic.id == tactic_id) else {
            let ids = matrix.tactics.iter().map(|tactic| tactic.id.as_str());
            return fail(format!("unknown tactic '{tactic_id}'"), suggest(tactic_id, ids));
        };
        let Some(technique) = matrix.techniques.get(technique_id) else {
            return fail(matrix.unknown(technique_id), matrix.advice(technique_id));
        };
        if !matrix.holds(tactic, technique) {
            let tactics = technique.tactics.iter().map(|id| format!("{id}/{technique_id}")).collect::<Vec<_>>();
            let message = format!(
                "{technique_id} {} is not in tactic {tactic_id} {} of the Containers platform",
                technique.name, tactic.name
            );
            return fail(message, Some(format!("use {}", tactics.join(" or "))));
        }
        match technique_id.split_once('.').and_then(|(parent, _)| matrix.techniques.get(parent)) {
            Some(parent) => Ok(Attack { tactic, technique: parent, sub_technique: Some(technique) }),
            None => Ok(Attack { tactic, technique, sub_technique: None }),
        }
    }
}

impl Matrix {
    /// Every technique that a detection may name, by id.
    pub fn techniques(&self) -> impl Iterator<Item = &Technique> {
        self.techniques.values()
    }

    /// The technique of this id.
    pub fn technique(&self, id: &str) -> Option<&Technique> {
        self.techniques.get(id)
    }

    /// The tactic whose detections live in a folder of this name.
    pub fn tactic_of_folder(&self, folder: &str) -> Option<&Tactic> {
        self.tactics.iter().find(|tactic| tactic.folder.as_deref() == Some(folder))
    }

    fn holds(&self, tactic: &Tactic, technique: &Technique) -> bool {
        // A technique of another platform goes wherever its author thinks best.
        technique.tactics.is_empty() || technique.tactics.contains(&tactic.id)
    }

    /// What stands for a revoked technique now.
    pub fn successor(&self, id: &str) -> Option<&Technique> {
        let parent = id.split('.').next().unwrap_or(id);
        let next = self.revoked.get(id).or_else(|| self.revoked.get(parent))?;
        self.techniques.get(next)
    }

    fn unknown(&self, id: &str) -> String {
        match self.successor(id) {
            Some(_) => format!("{id} is revoked since ATT&CK v{ATTACK_VERSION}"),
            None => format!("unknown technique '{id}'"),
        }
    }

    fn advice(&self, id: &str) -> Option<String> {
        if let Some(next) = self.successor(id) {
            let tactic = next.tactics.first().map_or("TA0112", String::as_str);
            return Some(format!("use its successor {tactic}/{} {}", next.id, next.name));
        }
        let parent = id.split('.').next().filter(|parent| *parent != id && self.techniques.contains_key(*parent));
        let close = parent.or_else(|| did_you_mean(id, self.techniques.keys().map(String::as_str)));
        close.and_then(|id| self.techniques.get(id)).map(|known| format!("did you mean {} {}?", known.id, known.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_holds_66_cells_and_every_parent() {
        let matrix = &*MATRIX;
        let cells: usize = matrix.techniques.values().map(|technique| technique.tactics.len()).sum();
        assert_eq!(cells, 66);
        assert_eq!(matrix.tactics.iter().filter(|tactic| tactic.folder.is_some()).count(), 10);
        for technique in matrix.techniques.values() {
            assert_ne!(technique.tactics.is_empty(), technique.platform.is_none(), "{}", technique.id);
            let parent = technique.id.split('.').next().expect("split yields one part");
            assert!(matrix.techniques.contains_key(parent), "parent of {}", technique.id);
            for tactic in &technique.tactics {
                assert!(matrix.tactics.iter().any(|known| known.id == *tactic), "{tactic}");
            }
        }
        for next in matrix.revoked.values() {
            assert!(matrix.techniques.contains_key(next), "{next}");
        }
    }

    #[test]
    fn a_place_in_the_matrix_is_read_and_written_back() {
        for text in ["TA0004/T1611", "TA0001/T1078.001", "TA0006/T1552.005", "TA0009/T1005"] {
            let attack = Attack::parse(text).expect("known");
            assert_eq!(attack.to_string(), text);
        }
        let attack = Attack::parse("TA0005/T1078.001").expect("known");
        assert_eq!((attack.tactic.name.as_str(), attack.technique.name.as_str()), ("Stealth", "Valid Accounts"));
        assert_eq!(attack.sub_technique.map(|sub| sub.name.as_str()), Some("Default Accounts"));
    }

    #[test]
    fn a_wrong_place_is_refused_with_advice() {
        let cases = [
            ("TA0005/T1562.001", "revoked", "TA0112/T1685"),
            ("TA0005/T1562.099", "revoked", "T1685"),
            ("TA0005/T1610", "not in tactic TA0005 Stealth", "TA0002/T1610"),
            ("TA0004/T1612", "not in tactic", "TA0005/T1612"),
            ("TA0004/T1661", "unknown technique", "T1611"),
            ("TA0001/T1078.009", "unknown technique", "T1078 Valid Accounts"),
            ("TA0O04/T1611", "unknown tactic", "TA0004"),
            ("T1611", "no tactic/technique", "TA0004/T1611"),
        ];
        for (text, message, help) in cases {
            let error = Attack::parse(text).expect_err(text);
            assert!(error.message.contains(message), "{text}: {error:?}");
            assert!(error.help.as_deref().is_some_and(|advice| advice.contains(help)), "{text}: {error:?}");
        }
    }
}
