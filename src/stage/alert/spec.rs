//! What alerts need to know of a detection, apart from its plan.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::habit::HabitRule;
use super::row::Rows;
use crate::detection::{Detection, Status, Summary, Technique};
use crate::model::{Column, Match, Severity};

/// One ATT&CK technique as an alert names it; ids with their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttackSpec {
    pub tactic: (Arc<str>, Arc<str>),
    pub technique: (Arc<str>, Arc<str>),
    pub sub_technique: Option<(Arc<str>, Arc<str>)>,
}

impl AttackSpec {
    /// `TA0004/T1611`, with the sub-technique where there is one.
    pub fn id(&self) -> Arc<str> {
        let technique = self.sub_technique.as_ref().unwrap_or(&self.technique);
        format!("{}/{}", self.tactic.0, technique.0).into()
    }
}

/// A name in an entity or a summary: what the detection's SELECT list computes under it, else the table's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSpec {
    pub name: Arc<str>,
    pub column: Option<Column>,
}

impl FieldSpec {
    /// The value for one match, null where neither knows the name.
    pub fn value(&self, rows: &Rows<'_>, found: &Match) -> Value {
        if let Some((_, value)) = found.computed.iter().find(|(name, _)| *name == self.name) {
            return value.clone();
        }
        self.column.map_or(Value::Null, |column| rows.value(column, found.row))
    }
}

/// The part of a detection that alerts show or depend on.
#[derive(Debug, Clone)]
pub struct AlertSpec {
    pub id: Arc<str>,
    pub title: Arc<str>,
    pub description: String,
    pub severity: Severity,
    /// Experimental detections say so in their alerts.
    pub experimental: bool,
    pub attack: Vec<AttackSpec>,
    pub triage: String,
    pub false_positives: Vec<String>,
    pub references: Vec<String>,
    /// Zero gives one finding for each request.
    pub suppress: Duration,
    /// Whose habit it may be, and what makes one.
    pub habit: Option<(Vec<FieldSpec>, HabitRule)>,
    pub summary: Summary,
    /// The entity first, then what the summary needs besides.
    pub fields: Vec<FieldSpec>,
    /// How many of `fields` are the entity.
    pub entity_len: usize,
}

impl AlertSpec {
    /// What alerts need of a detection.
    pub fn of(detection: &Detection) -> AlertSpec {
        let term = |technique: &Technique| (technique.id.as_str().into(), technique.name.as_str().into());
        let attack = detection.attack.iter().map(|attack| AttackSpec {
            tactic: (attack.tactic.id.as_str().into(), attack.tactic.name.as_str().into()),
            technique: term(attack.technique),
            sub_technique: attack.sub_technique.map(term),
        });
        AlertSpec {
            id: Arc::clone(&detection.id),
            title: Arc::clone(&detection.title),
            description: detection.description.clone(),
            severity: detection.severity,
            experimental: detection.status == Status::Experimental,
            attack: attack.collect(),
            triage: detection.triage.clone(),
            false_positives: detection.false_positives.clone(),
            references: detection.references.clone(),
            suppress: detection.suppress,
            habit: detection.habit.as_ref().map(|habit| {
                let field = |name: &String| FieldSpec { name: name.as_str().into(), column: Column::by_name(name) };
                let others = habit.others.map(|others| usize::try_from(others).unwrap_or(usize::MAX));
                let rule = HabitRule { others, forget_us: habit.forget.us() };
                (habit.per.iter().map(field).collect(), rule)
            }),
            fields: AlertSpec::fields_of(&detection.entity, &detection.summary),
            entity_len: detection.entity.len(),
            summary: detection.summary.clone(),
        }
    }

    /// The entity's fields followed by the summary's that are not among them.
    pub fn fields_of(entity: &[Arc<str>], summary: &Summary) -> Vec<FieldSpec> {
        let mut fields: Vec<FieldSpec> = Vec::new();
        for name in entity {
            fields.push(FieldSpec { name: Arc::clone(name), column: Column::by_name(name) });
        }
        for name in summary.placeholders().map(|placeholder| &placeholder.column) {
            if !fields.iter().any(|field| field.name == *name) {
                fields.push(FieldSpec { name: Arc::clone(name), column: Column::by_name(name) });
            }
        }
        fields
    }

    /// The fields that say what an alert is about.
    pub fn entity(&self) -> &[FieldSpec] {
        self.fields.get(..self.entity_len).unwrap_or(&self.fields)
    }

    /// Length of the suppression window in microseconds, `None` where suppression is off.
    pub fn window_us(&self) -> Option<i64> {
        let us = i64::try_from(self.suppress.as_micros()).unwrap_or(i64::MAX);
        (us > 0).then_some(us)
    }
}
