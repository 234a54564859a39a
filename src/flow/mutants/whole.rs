//! Changes of detections that are more than a filter: the changed detection is made, and put to all its tests.

use std::sync::Arc;

use super::{Survey, Survivor, explain};
use crate::detection::{Detection, DetectionSet, Memory};
use crate::flow::replay::run_cases;
use crate::sql::SqlError;
use crate::sql::mutate::{clauses, spelling, with_condition};

/// Tries every change of the queries' conditions and of the memory's numbers.
///
/// # Errors
/// Where the detection cannot be made executable.
pub fn survey(set: &DetectionSet, detection: &Arc<Detection>) -> Result<Survey, SqlError> {
    if notices(set, detection)? {
        return Ok(Survey::skipped("its tests do not pass"));
    }
    let mut survey = Survey::default();
    for (index, sql) in detection.queries().into_iter().enumerate() {
        let Some(clauses) = clauses(sql) else { return Ok(Survey::skipped("a query cannot be taken apart")) };
        for (clause, conditions) in clauses.iter().enumerate() {
            for (place, condition) in conditions.iter().enumerate() {
                // Whether each mutant survives, itself or the one around it.
                let mut survives: Vec<bool> = Vec::with_capacity(condition.mutants.len());
                for mutant in &condition.mutants {
                    let told = mutant.within.is_some_and(|outer| survives.get(outer) == Some(&true));
                    let changed = || {
                        let sql = with_condition(sql, clause, place, mutant.sql.as_deref())?;
                        detection.with_query(&set.planner, index, &sql)
                    };
                    let survivor = || super::survivor(condition, mutant);
                    survives.push(told || tried(set, changed(), survivor, &mut survey));
                }
            }
        }
    }
    for number in detection.memory.iter().flat_map(Memory::changed_numbers) {
        let condition = spelling(number.key).unwrap_or_else(|| number.key.to_owned());
        let survivor = || Survivor {
            condition: condition.clone(),
            change: number.change.clone(),
            wider: number.wider,
            reason: None,
        };
        tried(set, Some(detection.with_memory(number.memory.clone())), survivor, &mut survey);
    }
    explain(detection, &mut survey);
    Ok(survey)
}

/// Whether a change survives. What cannot be planned or run is no change that anybody could make.
fn tried(
    set: &DetectionSet,
    changed: Option<Detection>,
    survivor: impl FnOnce() -> Survivor,
    survey: &mut Survey,
) -> bool {
    let Some(noticed) = changed.and_then(|changed| notices(set, &Arc::new(changed)).ok()) else { return false };
    survey.tried += 1;
    if !noticed {
        survey.survivors.push(survivor());
    }
    !noticed
}

fn notices(set: &DetectionSet, detection: &Arc<Detection>) -> Result<bool, SqlError> {
    Ok(run_cases(set, detection)?.iter().any(|case| !case.differences.is_empty()))
}
