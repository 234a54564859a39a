//! What a set of detections covers: which cells of ATT&CK, and how much of it each log lets through.
//!
//! A column that a log does not carry is null there. Whether a detection still works is read from its condition, in
//! logic of three values: a condition that can no longer be true makes it *blind*; one that reads something missing, or
//! loses some of its verbs, but can still be true makes it *partial*. So a null that only widens the net
//! (`dry_run IS NOT TRUE`) does not count as a loss, and one that a whole conjunct hangs on does.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{BinaryExpr, InList};
use datafusion::logical_expr::{Expr, Operator};

use super::attack::{Attack, MATRIX, Tactic, Technique};
use super::diagnostic::suggest;
use super::pack::Detection;
use crate::model::{COLUMNS, Column, ColumnSet, Level};
use crate::sql::Shape;

/// How well a detection works on a log. The order is from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sight {
    Full,
    /// It fires, but misses some of what it looks for, or cannot tell some look-alikes apart.
    Partial,
    /// It can never fire.
    Blind,
}

impl Sight {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Sight::Full => "full",
            Sight::Partial => "partial",
            Sight::Blind => "blind",
        }
    }
}

/// A log as some platform delivers it.
#[derive(Debug)]
pub struct Feed {
    /// The word used on the command line.
    pub name: &'static str,
    pub title: &'static str,
    /// Columns that it never carries.
    pub never: &'static [Column],
    /// Columns that it carries only for some events.
    pub sometimes: &'static [Column],
    /// Verbs whose events it does not carry.
    pub no_verbs: &'static [&'static str],
    /// What it lacks, as a sentence.
    pub note: &'static str,
}

const GKE_NEVER: &[Column] = &[
    Column::UserGroups,
    Column::UserExtra,
    Column::UserUid,
    Column::CredentialId,
    Column::ImpersonatedGroups,
    Column::ExecContainer,
    Column::ObjectUid,
];

const GKE_SOMETIMES: &[Column] = &[Column::DryRun, Column::ExecCommand];

/// Every log that reports tell apart.
pub static FEEDS: &[Feed] = &[
    Feed {
        name: "self-managed",
        title: "Self-managed",
        never: &[],
        sometimes: &[],
        no_verbs: &[],
        note: "Carries what the audit policy allows.",
    },
    Feed {
        name: "eks",
        title: "EKS",
        never: &[Column::Region],
        sometimes: &[],
        no_verbs: &[],
        note: "Carries everything but the region; log type `audit` must be on.",
    },
    Feed {
        name: "aks",
        title: "AKS, kube-audit",
        never: &[Column::Region],
        sometimes: &[],
        no_verbs: &[],
        note: "Category `kube-audit` carries everything but the region.",
    },
    Feed {
        name: "aks-admin",
        title: "AKS, kube-audit-admin",
        never: &[Column::Region],
        sometimes: &[],
        no_verbs: &["get", "list"],
        note: "Category `kube-audit-admin` leaves out every get and list: reads of secrets, reconnaissance, and exec by WebSocket.",
    },
    Feed {
        name: "gke",
        title: "GKE, with Data Access logs",
        never: GKE_NEVER,
        sometimes: GKE_SOMETIMES,
        no_verbs: &[],
        note: "No groups, extra, credential id, object uid or query string; commands and dry runs only where a label tells them.",
    },
    Feed {
        name: "gke-admin",
        title: "GKE, Admin Activity only",
        never: GKE_NEVER,
        sometimes: GKE_SOMETIMES,
        no_verbs: &["get", "list", "watch"],
        note: "As above, and without reads: those need the Data Access logs.",
    },
];

impl Feed {
    /// The log of this name.
    ///
    /// # Errors
    /// That there is none, with the names that there are.
    pub fn by_name(name: &str) -> Result<&'static Feed, String> {
        let names = || FEEDS.iter().map(|feed| feed.name);
        FEEDS.iter().find(|feed| feed.name == name).ok_or_else(|| {
            let help = suggest(name, names())
                .unwrap_or_else(|| format!("choose from {}", names().collect::<Vec<_>>().join(", ")));
            format!("unknown log '{name}': {help}")
        })
    }

    /// Columns that are null in this log at this audit level, always.
    fn missing(&self, level: Level) -> ColumnSet {
        let above = COLUMNS.iter().filter(|info| info.level > level).map(|info| info.column);
        self.never.iter().copied().chain(above).collect()
    }

    /// How well a detection works on this log, where the audit policy logs at this level.
    pub fn sight(&self, detection: &Detection, level: Level) -> Sight {
        let missing = self.missing(level);
        let lost = intersection(detection.plan.columns, missing);
        let Some(conditions) = conditions(&detection.plan.shape) else {
            // Nothing is known of such a query but what it reads.
            return if lost.is_empty() { Sight::Full } else { Sight::Blind };
        };
        let can = |null: ColumnSet, verb: &'static str| possible(&conditions, null, verb);
        let (withheld, delivered): (Vec<&'static str>, Vec<&'static str>) =
            VERBS.iter().copied().partition(|verb| self.no_verbs.contains(verb));
        if !delivered.iter().any(|verb| can(missing, verb)) {
            return Sight::Blind;
        }
        let sometimes: ColumnSet = self.sometimes.iter().copied().chain(missing.iter()).collect();
        let whole = lost.is_empty()
            && delivered.iter().any(|verb| can(sometimes, verb))
            && !withheld.iter().any(|verb| can(missing, verb));
        if whole { Sight::Full } else { Sight::Partial }
    }

    /// What keeps a detection from full sight here, such as `no get, list; without user_groups`; empty where nothing does.
    pub fn limits(&self, detection: &Detection, level: Level) -> String {
        let missing = self.missing(level);
        let conditions = conditions(&detection.plan.shape).unwrap_or_default();
        let can = |null: ColumnSet, verb: &'static str| possible(&conditions, null, verb);
        let verbs: Vec<&str> = self.no_verbs.iter().copied().filter(|verb| can(ColumnSet::EMPTY, verb)).collect();
        let columns = |set: ColumnSet| -> Vec<&str> {
            intersection(detection.plan.columns, set).iter().map(Column::name).collect()
        };
        let sometimes: ColumnSet = self.sometimes.iter().copied().collect();
        let needs_them = !VERBS.iter().any(|verb| can(sometimes, verb));
        let never = columns(missing);
        let sometimes = if needs_them { columns(sometimes) } else { Vec::new() };
        let parts = [("no ", verbs), ("without ", never), ("seldom ", sometimes)];
        let told = parts.iter().filter(|(_, names)| !names.is_empty());
        told.map(|(word, names)| format!("{word}{}", names.join(", "))).collect::<Vec<_>>().join("; ")
    }
}

/// What an audit policy must log for a detection to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataNeed {
    /// Level `Metadata` is enough.
    Metadata,
    /// Level `Metadata` gives alerts, level `Request` gives more, or fewer false ones.
    MetadataPartly,
    /// Level `Request` or `RequestResponse`.
    Request,
}

impl DataNeed {
    pub const ALL: [DataNeed; 3] = [DataNeed::Metadata, DataNeed::MetadataPartly, DataNeed::Request];

    /// What a detection needs.
    pub fn of(detection: &Detection) -> DataNeed {
        match SELF_MANAGED.sight(detection, Level::Metadata) {
            Sight::Full => DataNeed::Metadata,
            Sight::Partial => DataNeed::MetadataPartly,
            Sight::Blind => DataNeed::Request,
        }
    }

    /// As a heading or a cell.
    pub fn as_str(self) -> &'static str {
        match self {
            DataNeed::Metadata => "Metadata",
            DataNeed::MetadataPartly => "Metadata, better with Request",
            DataNeed::Request => "Request",
        }
    }
}

/// The log from which nothing is taken.
pub static SELF_MANAGED: &Feed = &FEEDS[0];

/// Verbs of the API server and of other URLs.
const VERBS: &[&str] = &[
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "get",
    "list",
    "watch",
    "post",
    "put",
    "head",
    "options",
];

fn intersection(left: ColumnSet, right: ColumnSet) -> ColumnSet {
    left.iter().filter(|column| right.contains(*column)).collect()
}

/// Conditions that every matching event fulfils; `None` where none are known.
fn conditions(shape: &Shape) -> Option<Vec<&Expr>> {
    let conjuncts = match shape {
        Shape::Filter { conjuncts } => Some(conjuncts),
        Shape::General { candidates, .. } => candidates.as_ref(),
    };
    conjuncts.map(|conjuncts| conjuncts.iter().map(|conjunct| &conjunct.expr).collect())
}

/// Whether an event of this verb can fulfil all conditions where these columns are null.
fn possible(conditions: &[&Expr], null: ColumnSet, verb: &'static str) -> bool {
    let world = World { null, verb };
    conditions.iter().all(|condition| world.outcome(condition).yes)
}

/// Which outcomes an expression can have. For anything but a condition, `yes` and `no` both mean a known value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    yes: bool,
    no: bool,
    unknown: bool,
}

const ANY: Outcome = Outcome { yes: true, no: true, unknown: true };
const KNOWN: Outcome = Outcome { yes: true, no: true, unknown: false };
const UNKNOWN: Outcome = Outcome { yes: false, no: false, unknown: true };

impl Outcome {
    fn certain(answer: bool) -> Outcome {
        Outcome { yes: answer, no: !answer, unknown: false }
    }

    fn not(self) -> Outcome {
        Outcome { yes: self.no, no: self.yes, ..self }
    }

    fn and(self, other: Outcome) -> Outcome {
        let open = |one: Outcome, two: Outcome| one.unknown && (two.yes || two.unknown);
        Outcome { yes: self.yes && other.yes, no: self.no || other.no, unknown: open(self, other) || open(other, self) }
    }

    fn or(self, other: Outcome) -> Outcome {
        self.not().and(other.not()).not()
    }

    /// Of `IS TRUE` and its like.
    fn is(yes: bool, no: bool) -> Outcome {
        Outcome { yes, no, unknown: false }
    }

    fn always_null(self) -> bool {
        !self.yes && !self.no
    }
}

/// Events in which some columns are null and the verb is known.
struct World {
    null: ColumnSet,
    verb: &'static str,
}

impl World {
    fn outcome(&self, expr: &Expr) -> Outcome {
        match expr {
            Expr::Column(column) => match Column::by_name(&column.name) {
                Some(column) if self.null.contains(column) => UNKNOWN,
                Some(Column::Verb) => KNOWN,
                _ => ANY,
            },
            Expr::Literal(ScalarValue::Boolean(Some(answer)), _) => Outcome::certain(*answer),
            Expr::Literal(value, _) if value.is_null() => UNKNOWN,
            Expr::Literal(..) => KNOWN,
            Expr::Alias(alias) => self.outcome(&alias.expr),
            Expr::Cast(cast) => self.outcome(&cast.expr),
            Expr::Not(inner) => self.outcome(inner).not(),
            Expr::Negative(inner) => self.strict([&**inner]),
            Expr::IsNull(inner) | Expr::IsUnknown(inner) => {
                let inner = self.outcome(inner);
                Outcome::is(inner.unknown, inner.yes || inner.no)
            }
            Expr::IsNotNull(inner) | Expr::IsNotUnknown(inner) => {
                let inner = self.outcome(inner);
                Outcome::is(inner.yes || inner.no, inner.unknown)
            }
            Expr::IsTrue(inner) => self.is(inner, true),
            Expr::IsNotTrue(inner) => self.is(inner, true).not(),
            Expr::IsFalse(inner) => self.is(inner, false),
            Expr::IsNotFalse(inner) => self.is(inner, false).not(),
            Expr::BinaryExpr(binary) => self.binary(binary),
            Expr::InList(list) => self.in_list(list),
            Expr::Like(like) | Expr::SimilarTo(like) => self.strict([&*like.expr, &*like.pattern]),
            Expr::Between(between) => self.strict([&*between.expr, &*between.low, &*between.high]),
            Expr::ScalarFunction(function) => match function.name() {
                "coalesce" | "ifnull" | "nvl" => self.first_known(&function.args),
                "concat" | "concat_ws" | "make_array" | "named_struct" | "struct" | "nvl2" | "nullif" => ANY,
                _ => self.strict(&function.args),
            },
            _ => ANY,
        }
    }

    /// `IS TRUE` or `IS FALSE`.
    fn is(&self, inner: &Expr, wanted: bool) -> Outcome {
        let inner = self.outcome(inner);
        let inner = if wanted { inner } else { inner.not() };
        Outcome::is(inner.yes, inner.no || inner.unknown)
    }

    /// Null where any argument is.
    fn strict<'e>(&self, arguments: impl IntoIterator<Item = &'e Expr>) -> Outcome {
        let mut unknown = false;
        for argument in arguments {
            let argument = self.outcome(argument);
            if argument.always_null() {
                return UNKNOWN;
            }
            unknown |= argument.unknown;
        }
        Outcome { unknown, ..KNOWN }
    }

    fn first_known(&self, arguments: &[Expr]) -> Outcome {
        let mut found = UNKNOWN;
        for argument in arguments {
            let next = self.outcome(argument);
            found = Outcome { yes: found.yes || next.yes, no: found.no || next.no, unknown: next.unknown };
            if !next.unknown {
                break;
            }
        }
        found
    }

    fn binary(&self, binary: &BinaryExpr) -> Outcome {
        let (left, right) = (&*binary.left, &*binary.right);
        match binary.op {
            Operator::And => self.outcome(left).and(self.outcome(right)),
            Operator::Or => self.outcome(left).or(self.outcome(right)),
            Operator::IsDistinctFrom => self.distinct(left, right),
            Operator::IsNotDistinctFrom => self.distinct(left, right).not(),
            Operator::Eq => self.verb_is(left, right).map_or_else(|| self.strict([left, right]), Outcome::certain),
            Operator::NotEq => {
                self.verb_is(left, right).map_or_else(|| self.strict([left, right]), |same| Outcome::certain(!same))
            }
            _ => self.strict([left, right]),
        }
    }

    fn distinct(&self, left: &Expr, right: &Expr) -> Outcome {
        let (one, two) = (self.outcome(left), self.outcome(right));
        match (one.always_null(), two.always_null()) {
            (true, true) => Outcome::certain(false),
            (true, false) if !two.unknown => Outcome::certain(true),
            (false, true) if !one.unknown => Outcome::certain(true),
            _ => KNOWN,
        }
    }

    fn in_list(&self, list: &InList) -> Outcome {
        let same: Option<Vec<bool>> = list.list.iter().map(|item| self.verb_is(&list.expr, item)).collect();
        match same {
            Some(same) => Outcome::certain(same.contains(&true) != list.negated),
            None => self.strict([&*list.expr]),
        }
    }

    /// Whether a comparison of the verb with a literal holds; `None` for any other comparison.
    fn verb_is(&self, left: &Expr, right: &Expr) -> Option<bool> {
        match (left, right) {
            (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column))
                if column.name == Column::Verb.name() =>
            {
                Some(value.try_as_str()?? == self.verb)
            }
            _ => None,
        }
    }
}

/// A technique under one tactic, and the detections that see it.
#[derive(Debug)]
pub struct Cell {
    pub tactic: &'static Tactic,
    pub technique: &'static Technique,
    /// Detections that name it.
    pub direct: Vec<Arc<Detection>>,
    /// Detections that name one of its sub-techniques: they cover it too.
    pub through: Vec<Arc<Detection>>,
}

impl Cell {
    /// Number of detections that cover it.
    pub fn count(&self) -> usize {
        let mut ids: BTreeSet<&str> = self.direct.iter().map(|detection| &*detection.id).collect();
        ids.extend(self.through.iter().map(|detection| &*detection.id));
        ids.len()
    }
}

/// Every cell of the Containers matrix, and those of other platforms that some detection names; in the matrix's order.
pub fn cells(detections: &[Arc<Detection>]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for tactic in &MATRIX.tactics {
        for technique in MATRIX.techniques() {
            let naming = |names: &dyn Fn(&Attack) -> bool| -> Vec<Arc<Detection>> {
                let places = |detection: &&Arc<Detection>| {
                    detection.attack.iter().any(|place| place.tactic.id == tactic.id && names(place))
                };
                detections.iter().filter(places).cloned().collect()
            };
            let direct = naming(&|place| place.sub_technique.unwrap_or(place.technique).id == technique.id);
            let through = naming(&|place| place.sub_technique.is_some() && place.technique.id == technique.id);
            if technique.tactics.contains(&tactic.id) || !direct.is_empty() {
                cells.push(Cell { tactic, technique, direct, through });
            }
        }
    }
    cells
}

/// Something that must be covered: a technique under any tactic, or under one.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub tactic: Option<&'static Tactic>,
    pub technique: &'static Technique,
}

impl Target {
    /// Every technique of the Containers platform.
    pub fn containers() -> Vec<Target> {
        let ours = MATRIX.techniques().filter(|technique| technique.platform.is_none());
        ours.map(|technique| Target { tactic: None, technique }).collect()
    }

    /// Reads a list of targets: one a line, `T1611` or `TA0004/T1611`; `#` starts a remark.
    ///
    /// # Errors
    /// The line that names something unknown, and what is near it.
    pub fn read(text: &str) -> Result<Vec<Target>, String> {
        let mut targets = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                targets.push(Target::parse(line).map_err(|error| format!("line {}: {error}", index + 1))?);
            }
        }
        if targets.is_empty() { Err("no target is named".to_owned()) } else { Ok(targets) }
    }

    fn parse(text: &str) -> Result<Target, String> {
        if text.contains('/') {
            let place = Attack::parse(text).map_err(|error| match error.help {
                Some(help) => format!("{}; {help}", error.message),
                None => error.message,
            })?;
            return Ok(Target {
                tactic: Some(place.tactic),
                technique: place.sub_technique.unwrap_or(place.technique),
            });
        }
        let known = MATRIX.techniques().find(|technique| technique.id == text);
        known.map(|technique| Target { tactic: None, technique }).ok_or_else(|| {
            let help = suggest(text, MATRIX.techniques().map(|technique| technique.id.as_str()));
            format!("unknown technique '{text}'{}", help.map(|help| format!("; {help}")).unwrap_or_default())
        })
    }

    fn is_met(&self, cells: &[Cell]) -> bool {
        cells.iter().any(|cell| {
            cell.technique.id == self.technique.id
                && self.tactic.is_none_or(|tactic| tactic.id == cell.tactic.id)
                && cell.count() > 0
        })
    }
}

/// The targets that no detection covers.
pub fn gaps(targets: &[Target], cells: &[Cell]) -> Vec<Target> {
    targets.iter().filter(|target| !target.is_met(cells)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::{SourceFile, load};

    fn detection(id: &str, attack: &str, condition: &str) -> Arc<Detection> {
        let text = format!(
            "id: {id}\ntitle: t\nseverity: low\nstatus: stable\nattack: [{attack}]\ndescription: d\nsql: |\n  \
             SELECT * FROM audit WHERE {condition}\nentity: [cluster]\nsummary: s\n"
        );
        let loaded = load(&[SourceFile { path: format!("{id}.yaml").into(), text: text.into(), support: false }]);
        loaded.set.detections.first().unwrap_or_else(|| panic!("{:?}", loaded.diagnostics)).clone()
    }

    fn sight(feed: &str, level: Level, condition: &str) -> Sight {
        let feed = Feed::by_name(feed).expect("a known log");
        feed.sight(&detection("d", "TA0004/T1611", condition), level)
    }

    #[test]
    fn a_condition_that_hangs_on_a_missing_column_is_blind() {
        let cases = [
            ("verb = 'create' AND privileged", Sight::Blind),
            ("verb = 'create' AND NOT privileged", Sight::Blind),
            ("verb = 'create' AND (privileged OR resource = 'nodes')", Sight::Partial),
            ("verb = 'create' AND privileged IS NOT TRUE", Sight::Partial),
            ("verb = 'create' AND coalesce(privileged, false)", Sight::Blind),
            ("verb = 'create' AND coalesce(privileged, true)", Sight::Partial),
            ("verb = 'create' AND any_like(images, '%miner%')", Sight::Blind),
            ("verb = 'create' AND owner_kind IS NULL", Sight::Partial),
            ("verb = 'create' AND owner_kind IS DISTINCT FROM 'Job'", Sight::Partial),
            ("verb = 'create' AND owner_kind IS NOT DISTINCT FROM 'Job'", Sight::Blind),
            ("verb = 'create' AND resource = 'pods'", Sight::Full),
        ];
        for (condition, expected) in cases {
            assert_eq!(sight("self-managed", Level::Metadata, condition), expected, "{condition}");
            assert_eq!(sight("self-managed", Level::Request, condition), Sight::Full, "{condition}");
        }
    }

    #[test]
    fn logs_without_reads_blind_the_detections_of_reads() {
        let cases = [
            ("verb = 'get'", Sight::Blind),
            ("verb IN ('get', 'list')", Sight::Blind),
            ("verb IN ('get', 'create')", Sight::Partial),
            ("verb NOT IN ('get', 'list')", Sight::Full),
            ("verb <> 'get'", Sight::Partial),
            ("subresource = 'exec'", Sight::Partial),
            ("verb IN ('create', 'update', 'patch') AND dry_run IS NOT TRUE", Sight::Full),
        ];
        for (condition, expected) in cases {
            assert_eq!(sight("aks-admin", Level::Request, condition), expected, "{condition}");
            assert_eq!(sight("aks", Level::Request, condition), Sight::Full, "{condition}");
        }
        assert_eq!(sight("gke-admin", Level::Request, "verb = 'watch'"), Sight::Blind);
        assert_eq!(sight("aks-admin", Level::Request, "verb = 'watch'"), Sight::Full);
    }

    #[test]
    fn gke_hides_groups_and_tells_some_commands() {
        let cases = [
            ("array_has(user_groups, 'system:masters')", Sight::Blind),
            ("array_has(user_groups, 'system:masters') IS NOT TRUE", Sight::Partial),
            ("exec_command LIKE '%curl%'", Sight::Partial),
            ("dry_run", Sight::Partial),
            ("dry_run IS NOT TRUE", Sight::Full),
        ];
        for (condition, expected) in cases {
            assert_eq!(sight("gke", Level::Request, condition), expected, "{condition}");
        }
        assert!(Feed::by_name("gkee").is_err_and(|error| error.contains("gke")));
    }

    #[test]
    fn what_is_missing_is_named() {
        let limits = |feed: &str, level: Level, condition: &str| {
            let feed = Feed::by_name(feed).expect("a known log");
            feed.limits(&detection("d", "TA0004/T1611", condition), level)
        };
        let condition = "verb IN ('get', 'create') AND (privileged OR array_has(user_groups, 'a'))";
        assert_eq!(limits("aks-admin", Level::Request, condition), "no get");
        assert_eq!(limits("gke", Level::Metadata, condition), "without user_groups, privileged");
        assert_eq!(limits("gke", Level::Request, "exec_command LIKE '%curl%'"), "seldom exec_command");
        assert_eq!(limits("eks", Level::Request, condition), "");
    }

    #[test]
    fn what_a_policy_must_log_follows_from_the_condition() {
        let need = |condition: &str| DataNeed::of(&detection("d", "TA0004/T1611", condition));
        assert_eq!(need("verb = 'create'"), DataNeed::Metadata);
        assert_eq!(need("verb = 'create' AND owner_kind IS NULL"), DataNeed::MetadataPartly);
        assert_eq!(need("verb = 'create' AND privileged"), DataNeed::Request);
    }

    #[test]
    fn a_sub_technique_covers_its_parent_and_not_the_other_way_round() {
        let set =
            [detection("sub", "TA0001/T1078.001", "verb = 'get'"), detection("parent", "TA0003/T1098", "verb = 'get'")];
        let cells = cells(&set);
        let targets = Target::read("T1078\nT1078.001 # named\nT1098\nT1098.006\nTA0003/T1078\n").expect("targets");
        let left: Vec<String> = gaps(&targets, &cells).iter().map(|gap| gap.technique.id.clone()).collect();
        assert_eq!(left, ["T1098.006", "T1078"]);
        let cell =
            cells.iter().find(|cell| cell.tactic.id == "TA0001" && cell.technique.id == "T1078").expect("a cell");
        assert_eq!((cell.direct.len(), cell.through.len(), cell.count()), (0, 1, 1));
        assert_eq!(Target::containers().len(), 48);
    }

    #[test]
    fn a_target_that_does_not_exist_is_told_with_its_line() {
        let error = Target::read("T1611\nT1661\n").expect_err("unknown");
        assert!(error.contains("line 2") && error.contains("T1611"), "{error}");
        assert!(Target::read("TA0004/T1610").is_err_and(|error| error.contains("TA0002/T1610")));
        assert!(Target::read("# nothing\n").is_err());
    }
}
