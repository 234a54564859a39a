//! What a detection's memory means: state of one meaning is kept over edits, state of another is not put back.

use super::{Detection, Memory};
use crate::sql::canonical_text;
use crate::state::fingerprint;

/// Version of what memories keep; raise it where a kind keeps something else than before under the same keys.
const RECIPE: &str = "1";

impl Detection {
    /// The meaning of what its memory keeps; `None` without a memory.
    ///
    /// Covered are the queries, however they are spelled, the keys and lengths of time that decide what is kept, and of
    /// a window the entity. Not covered: severity, texts, suppression, how long a first-seen detection learns and
    /// remembers, as what it has seen stays seen, and from where on the past is called odd.
    pub fn state_fingerprint(&self) -> Option<String> {
        let memory = self.memory.as_ref()?;
        let mut parts = vec![RECIPE.to_owned(), memory.key().to_owned()];
        match memory {
            Memory::Sequence { spec, .. } => {
                parts.push(list(&spec.by));
                parts.push(spec.within.us().to_string());
                for step in &spec.steps {
                    parts.push(step.absent.to_string());
                    parts.push(text(&step.sql));
                }
                parts.push(spec.until.as_deref().map(text).unwrap_or_default());
            }
            Memory::Window { spec, .. } => {
                let hop = spec.hop().unwrap_or(spec.size);
                parts.extend([spec.size.us().to_string(), hop.us().to_string(), text(&self.sql)]);
                // They tell the rows of the answer apart.
                parts.extend(self.entity.iter().map(ToString::to_string));
            }
            Memory::FirstSeen(spec) => {
                parts.extend([list(&spec.of), list(&spec.per)]);
                parts.push(text(&self.sql));
            }
            Memory::Anomaly(spec) => {
                parts.extend([list(&spec.features), list(&spec.per), list(&spec.peers)]);
                parts.extend([spec.half_life.us().to_string(), text(&self.sql)]);
            }
            Memory::Spike(spec) => {
                parts.extend([list(&spec.per), list(&spec.of), list(&spec.peers)]);
                parts.extend([spec.every.us().to_string(), text(&self.sql)]);
            }
            Memory::Silence(spec) => parts.extend([list(&spec.per), text(&self.sql)]),
            Memory::Rhythm(spec) => {
                let lengths = [spec.shortest.us(), spec.longest.us(), i64::from(spec.jitter)];
                parts.extend(lengths.map(|length| length.to_string()));
                parts.extend([list(&spec.per), text(&self.sql)]);
            }
        }
        Some(fingerprint(&parts.iter().map(String::as_str).collect::<Vec<_>>()))
    }
}

impl Detection {
    /// What evaluating it means: its queries and what decides how they are run. The same over edits that change neither.
    pub fn query_fingerprint(&self) -> String {
        self.state_fingerprint().unwrap_or_else(|| fingerprint(&["event", &text(&self.sql)]))
    }
}

/// Names in order, which is part of the meaning.
fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect()
}

/// The query in its one spelling; as written, where it has none.
fn text(sql: &str) -> String {
    canonical_text(sql).unwrap_or_else(|_| sql.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::detection::{SourceFile, load};

    const HEAD: &str = "id: d\ntitle: T\nseverity: low\nstatus: stable\nattack: [TA0007/T1613]\ndescription: D\ntriage: T\nfalse_positives: [F]\nentity: [user_name]\nsuppress: 1h\nsummary: '{user_name}'\ntests: []\n";
    const FIRST_SEEN: &str = "sql: SELECT * FROM audit WHERE verb = 'get' AND resource = 'pods'\nfirst_seen: {of: [source_ip], per: [user_name], learn: 7d, forget: 30d}\n";
    const WINDOW: &str = "sql: SELECT user_name, count(*) AS n FROM audit WHERE verb = 'get' AND resource = 'pods' GROUP BY user_name HAVING count(*) > 5\nwindow: {size: 5m}\n";
    const ANOMALY: &str = "sql: SELECT * FROM audit WHERE verb = 'get' AND resource = 'pods'\nanomaly: {features: [namespace], per: [user_name], learn: 7d, threshold: 9}\n";
    const SPIKE: &str = "sql: SELECT * FROM audit WHERE verb = 'get' AND resource = 'pods'\nspike: {per: [user_name], every: 1h, learn: 7d, floor: 9}\n";
    const SEQUENCE: &str = "sequence:\n  by: [user_name]\n  within: 10m\n  steps:\n  - sql: SELECT * FROM audit WHERE verb = 'get' AND resource = 'pods'\n  - sql: SELECT * FROM audit WHERE verb = 'create'\n";

    fn fingerprint(memory: &str, edits: &[(&str, &str)]) -> Option<String> {
        let whole = edits.iter().fold(format!("{HEAD}{memory}"), |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        });
        let loaded =
            load(&[SourceFile { path: "detections/discovery/d.yaml".into(), text: whole.into(), support: false }]);
        let detection = loaded.set.detections.first().unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
        detection.state_fingerprint()
    }

    #[test]
    fn edits_that_change_no_meaning_keep_the_state() {
        for memory in [FIRST_SEEN, SEQUENCE, WINDOW, ANOMALY, SPIKE] {
            let plain = fingerprint(memory, &[]);
            assert!(plain.is_some());
            for (old, new) in [
                ("severity: low", "severity: high"),
                ("title: T", "title: Another"),
                ("suppress: 1h", "suppress: 2h"),
                ("description: D", "description: Other words"),
                ("verb = 'get' AND resource = 'pods'", "resource='pods'   and VERB = 'get'"),
            ] {
                assert_eq!(fingerprint(memory, &[(old, new)]), plain, "{old} to {new}");
            }
        }
        assert_eq!(fingerprint(FIRST_SEEN, &[("learn: 7d", "learn: 3d")]), fingerprint(FIRST_SEEN, &[]));
        assert_eq!(fingerprint(ANOMALY, &[("threshold: 9", "threshold: 11")]), fingerprint(ANOMALY, &[]));
        assert_eq!(fingerprint(SPIKE, &[("floor: 9", "floor: 11")]), fingerprint(SPIKE, &[]));
        assert_ne!(fingerprint(ANOMALY, &[("[namespace]", "[namespace, verb]")]), fingerprint(ANOMALY, &[]));
        assert_ne!(fingerprint(SPIKE, &[("every: 1h", "every: 2h")]), fingerprint(SPIKE, &[]));
    }

    #[test]
    fn edits_that_change_what_is_kept_begin_anew() {
        let distinct = |memory: &str, edits: &[(&str, &str)]| {
            let plain = fingerprint(memory, &[]);
            for edit in edits {
                assert_ne!(fingerprint(memory, &[*edit]), plain, "{edit:?}");
            }
        };
        distinct(
            FIRST_SEEN,
            &[("'pods'", "'secrets'"), ("of: [source_ip]", "of: [verb]"), ("per: [user_name]", "per: []")],
        );
        distinct(
            SEQUENCE,
            &[("'create'", "'delete'"), ("by: [user_name]", "by: [source_ip]"), ("10m", "20m"), ("'pods'", "'nodes'")],
        );
        distinct(WINDOW, &[("5m", "10m"), ("size: 5m", "size: 5m, every: 1m"), ("> 5", "> 6"), ("'pods'", "'nodes'")]);
        assert_eq!(fingerprint(WINDOW, &[("size: 5m", "size: 5m, every: 10s")]), fingerprint(WINDOW, &[]));
        assert_ne!(fingerprint(FIRST_SEEN, &[]), fingerprint(SEQUENCE, &[]));
        assert_eq!(fingerprint("sql: SELECT * FROM audit WHERE verb = 'get'\n", &[]), None);
    }
}
