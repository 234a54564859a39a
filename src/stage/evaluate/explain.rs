//! How a detection is evaluated, for people.

use super::{Evaluator, filter, route};
use crate::model::ColumnSet;
use crate::sql::Shape;

/// One condition of a detection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionReport {
    pub text: String,
    pub columns: ColumnSet,
    /// Whether it runs as a look-up, on a dictionary's values, or on rows.
    pub how: &'static str,
    /// How many detections of the set share it.
    pub shared_by: usize,
}

/// How one detection is evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectionReport {
    /// Resources that route events to it; `None` where any resource is.
    pub resources: Option<Vec<String>>,
    /// Verbs that route events to it; `None` where any verb is.
    pub verbs: Option<Vec<String>>,
    /// In the order of evaluation.
    pub conditions: Vec<ConditionReport>,
    /// Whether the query is more than a filter and runs for each event by itself.
    pub general: bool,
}

impl Evaluator {
    /// How the detection of this index is evaluated.
    pub fn explain(&self, detection: usize) -> DetectionReport {
        let shape = &self.detections[detection].plan.shape;
        let routed = route(filter(shape));
        let conditions = self.conjuncts[detection].iter().map(|index| {
            let condition = &self.conditions[*index];
            ConditionReport {
                text: condition.text.clone(),
                columns: condition.columns,
                how: condition.describe(),
                shared_by: self.conjuncts.iter().filter(|own| own.contains(index)).count(),
            }
        });
        DetectionReport {
            conditions: conditions.collect(),
            resources: routed.resources.map(|set| set.into_iter().collect()),
            verbs: routed.verbs.map(|set| set.into_iter().collect()),
            general: matches!(shape, Shape::General { .. }),
        }
    }
}
