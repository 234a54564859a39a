//! Whether a condition can hold at all where some columns are known: to be null, or to have a certain value.
//!
//! Works out which of true, false and null an expression can be, as SQL's three-valued logic has it. What is not
//! understood can be anything, so that "no" is certain and "yes" is not.

use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::scalar::ScalarValue;

use crate::model::{Column, ColumnSet};
use crate::sql::comparison;

/// What is known of a row.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Columns that are null.
    pub null: ColumnSet,
    /// Columns whose values, null or not, are these.
    pub values: Vec<(Column, ScalarValue)>,
}

impl Known {
    fn value(&self, expr: &Expr) -> Option<ScalarValue> {
        match expr {
            Expr::Literal(value, _) => Some(value.clone()),
            Expr::Column(column) => {
                let column = Column::by_name(&column.name)?;
                let value = self.values.iter().find(|(known, _)| *known == column);
                value.map(|(_, value)| value.clone())
            }
            _ => None,
        }
    }

    fn is_null(&self, column: Column) -> bool {
        let value = self.values.iter().find(|(known, _)| *known == column);
        self.null.contains(column) || value.is_some_and(|(_, value)| value.is_null())
    }
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const NULL: u8 = 4;
const ANY: u8 = TRUE | FALSE | NULL;

/// Functions that give null where their first argument is null, whatever the others are.
const STRICT: &[&str] = &[
    "any_like",
    "any_ilike",
    "like_any",
    "ilike_any",
    "any_in",
    "all_in",
    "any_path_within",
    "any_path_covers",
    "rbac_allows",
    "rbac_grants",
    "rbac_has_verb",
    "rbac_has_wildcard",
    "any_image_repository",
    "any_container",
    "ip_in",
    "is_public_ip",
    "array_element",
    "image_registry",
    "image_repository",
    "lower",
    "upper",
    "split_part",
    "regexp_replace",
    "regexp_like",
    "starts_with",
    "ends_with",
    "contains",
    "strpos",
    "cardinality",
    "array_to_string",
];

/// Whether the condition can be true of a row of which this is known.
pub(super) fn may_hold(condition: &Expr, known: &Known) -> bool {
    truth(condition, known) & TRUE != 0
}

fn bit(value: bool) -> u8 {
    if value { TRUE } else { FALSE }
}

/// What a comparison of known values is; anything where they are not known, or of two types.
fn compared(op: Operator, left: &Expr, right: &Expr, known: &Known) -> u8 {
    let Some(holds) = comparison(op) else { return ANY };
    let (Some(left), Some(right)) = (known.value(left), known.value(right)) else { return ANY };
    if left.data_type() != right.data_type() || left.is_null() || right.is_null() {
        return ANY;
    }
    let Some(order) = left.partial_cmp(&right) else { return ANY };
    bit(holds(order))
}

/// Whether a known value is one of a list of known ones.
fn listed(list: &InList, known: &Known) -> u8 {
    let Some(value) = known.value(&list.expr) else { return ANY };
    let items: Option<Vec<ScalarValue>> = list.list.iter().map(|item| known.value(item)).collect();
    match items {
        Some(items) if items.iter().all(|item| !item.is_null() && item.data_type() == value.data_type()) => {
            bit(items.contains(&value) != list.negated)
        }
        _ => ANY,
    }
}

/// What a boolean expression can be.
fn truth(expr: &Expr, known: &Known) -> u8 {
    let is = |wanted: u8, inner: &Expr| {
        let inner = truth(inner, known);
        (if inner & wanted != 0 { TRUE } else { 0 }) | (if inner & !wanted != 0 { FALSE } else { 0 })
    };
    match expr {
        Expr::Literal(ScalarValue::Boolean(Some(value)), _) => bit(*value),
        Expr::BinaryExpr(binary) if binary.op == Operator::And => {
            let (left, right) = (truth(&binary.left, known), truth(&binary.right, known));
            let mut both = (left | right) & FALSE;
            both |= left & right & TRUE;
            if (left | right) & NULL != 0 && left & (TRUE | NULL) != 0 && right & (TRUE | NULL) != 0 {
                both |= NULL;
            }
            both
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::Or => {
            let (left, right) = (truth(&binary.left, known), truth(&binary.right, known));
            let mut either = (left | right) & TRUE;
            either |= left & right & FALSE;
            if (left | right) & NULL != 0 && left & (FALSE | NULL) != 0 && right & (FALSE | NULL) != 0 {
                either |= NULL;
            }
            either
        }
        Expr::Not(inner) => {
            let inner = truth(inner, known);
            (inner & NULL) | (if inner & TRUE != 0 { FALSE } else { 0 }) | (if inner & FALSE != 0 { TRUE } else { 0 })
        }
        Expr::IsTrue(inner) => is(TRUE, inner),
        Expr::IsFalse(inner) => is(FALSE, inner),
        Expr::IsUnknown(inner) => is(NULL, inner),
        Expr::IsNotTrue(inner) => is(FALSE | NULL, inner),
        Expr::IsNotFalse(inner) => is(TRUE | NULL, inner),
        Expr::IsNotUnknown(inner) => is(TRUE | FALSE, inner),
        Expr::IsNull(inner) if surely_null(inner, known) => TRUE,
        Expr::IsNotNull(inner) if surely_null(inner, known) => FALSE,
        Expr::IsNull(inner) if known.value(inner).is_some() => FALSE,
        Expr::IsNotNull(inner) if known.value(inner).is_some() => TRUE,
        Expr::IsNull(_) | Expr::IsNotNull(_) => TRUE | FALSE,
        other if surely_null(other, known) => NULL,
        Expr::BinaryExpr(binary) => compared(binary.op, &binary.left, &binary.right, known),
        Expr::InList(list) => listed(list, known),
        Expr::Column(_) => match known.value(expr) {
            Some(ScalarValue::Boolean(Some(value))) => bit(value),
            _ => ANY,
        },
        _ => ANY,
    }
}

/// Whether an expression is certain to be null.
fn surely_null(expr: &Expr, known: &Known) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null(),
        Expr::Column(column) => Column::by_name(&column.name).is_some_and(|column| known.is_null(column)),
        Expr::Alias(alias) => surely_null(&alias.expr, known),
        Expr::Cast(cast) => surely_null(&cast.expr, known),
        Expr::Negative(inner) => surely_null(inner, known),
        Expr::Between(between) => surely_null(&between.expr, known),
        Expr::InList(list) => surely_null(&list.expr, known),
        Expr::Like(like) => surely_null(&like.expr, known),
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::And | Operator::Or => truth(expr, known) == NULL,
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::RegexMatch
            | Operator::RegexIMatch
            | Operator::RegexNotMatch
            | Operator::RegexNotIMatch
            | Operator::LikeMatch
            | Operator::ILikeMatch
            | Operator::NotLikeMatch
            | Operator::NotILikeMatch => surely_null(&binary.left, known) || surely_null(&binary.right, known),
            _ => false,
        },
        Expr::Not(inner) => truth(inner, known) == NULL,
        Expr::ScalarFunction(call) if call.name() == "coalesce" => {
            call.args.iter().all(|argument| surely_null(argument, known))
        }
        Expr::ScalarFunction(call) if STRICT.contains(&call.name()) => {
            call.args.first().is_some_and(|first| surely_null(first, known))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, RecordBatch, new_null_array};
    use proptest::prelude::*;

    use super::*;
    use crate::detection::{files, load};
    use crate::model::AUDIT_SCHEMA;
    use crate::sql::{FUNCTIONS, Lists, Planner, Shape};

    /// What an expression is where every column is null, by evaluating it.
    fn of_nothing(planner: &Planner, expr: &Expr) -> Option<bool> {
        let columns = AUDIT_SCHEMA.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let rows = RecordBatch::try_new(Arc::clone(&AUDIT_SCHEMA), columns).expect("a row of nulls");
        let physical = planner.physical(expr, &AUDIT_SCHEMA).expect("planned");
        let answer = physical.evaluate(&rows).and_then(|value| value.into_array(1)).expect("evaluates");
        let answer = answer.as_boolean();
        answer.is_valid(0).then(|| answer.value(0))
    }

    /// Every column is null.
    fn nothing() -> Known {
        Known { null: ColumnSet::all(), values: Vec::new() }
    }

    #[test]
    fn every_shipped_condition_over_nulls_is_what_was_foreseen() {
        let set = load(&files::shipped()).set;
        let mut ruled_out = 0;
        for detection in &set.detections {
            let Shape::Filter { conjuncts } = &detection.plan.shape else { continue };
            if detection.reads_alerts() {
                continue;
            }
            for conjunct in conjuncts {
                let answer = of_nothing(&set.planner, &conjunct.expr);
                let bit = match answer {
                    Some(true) => TRUE,
                    Some(false) => FALSE,
                    None => NULL,
                };
                let foreseen = truth(&conjunct.expr, &nothing());
                assert!(foreseen & bit != 0, "{}: {} is {answer:?}", detection.id, conjunct.text);
                ruled_out += usize::from(foreseen & TRUE == 0);
                assert!(may_hold(&conjunct.expr, &Known::default()), "{}", conjunct.text);
            }
        }
        assert!(ruled_out > 200, "{ruled_out} conditions need something that is not null");
    }

    #[test]
    fn functions_called_strict_give_null_for_a_null_first_argument() {
        let planner = Planner::new(Lists::default());
        let strict = FUNCTIONS.iter().filter(|function| STRICT.contains(&function.name));
        let examples = strict.map(|function| function.example);
        let further = [
            "lower(user_name) = 'a'",
            "upper(user_name) = 'a'",
            "split_part(user_name, ':', 1) = 'a'",
            "regexp_replace(user_name, 'a', 'b', 'g') = 'a'",
            "regexp_like(user_name, 'a')",
            "starts_with(user_name, 'a')",
            "ends_with(user_name, 'a')",
            "contains(user_name, 'a')",
            "strpos(user_name, 'a') = 1",
            "cardinality(images) > 0",
            "array_to_string(images, ' ') ~ 'a'",
            "array_to_string(commands, chr(10)) LIKE '%a%'",
            "all_in(images, 'a')",
            "user_name BETWEEN 'a' AND 'b'",
            "user_name NOT IN ('a', 'b', 'c', 'd', 'e')",
            "user_name NOT LIKE 'a%'",
            "user_name !~ 'a'",
        ];
        for text in examples.chain(further) {
            let predicate = format!("SELECT * FROM audit WHERE {text}");
            let plan = planner.plan_event(&predicate).unwrap_or_else(|error| panic!("{text}: {error}"));
            let Shape::Filter { conjuncts } = &plan.shape else { panic!("{text} is a filter") };
            for conjunct in conjuncts {
                let answer = of_nothing(&planner, &conjunct.expr);
                let foreseen = truth(&conjunct.expr, &nothing());
                assert_eq!((answer, foreseen & TRUE), (None, 0), "{text}");
            }
        }
    }

    /// Conditions over two booleans and two texts, each of which may be null.
    fn condition() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("privileged".to_owned()),
            Just("host_network".to_owned()),
            Just("node_name IS NULL".to_owned()),
            Just("node_name = 'a'".to_owned()),
            Just("runtime_class IN ('a', 'b')".to_owned()),
            Just("runtime_class LIKE 'a%'".to_owned()),
            Just("coalesce(node_name, runtime_class) = 'a'".to_owned()),
            Just("node_name <> runtime_class".to_owned()),
            Just("node_name NOT IN ('a', 'b', 'c', 'd', 'e')".to_owned()),
            Just("node_name > 'b'".to_owned()),
        ];
        leaf.prop_recursive(3, 12, 2, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} AND {right})")),
                (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} OR {right})")),
                inner.clone().prop_map(|inner| format!("(NOT {inner})")),
                (inner, prop_oneof![Just("TRUE"), Just("FALSE"), Just("UNKNOWN")], any::<bool>())
                    .prop_map(|(inner, what, not)| format!("(({inner}) IS {}{what})", if not { "NOT " } else { "" })),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_ruled_out_is_never_true(text in condition(), given in 0u8..16, null in 0u8..16) {
            let columns = [Column::Privileged, Column::HostNetwork, Column::NodeName, Column::RuntimeClass];
            let planner = Planner::new(Lists::default());
            // What the optimiser finds to be never true is no detection.
            let Ok(plan) = planner.plan_event(&format!("SELECT * FROM audit WHERE {text}")) else { return Ok(()) };
            let Shape::Filter { conjuncts } = &plan.shape else { return Ok(()) };
            let schema = crate::model::plain_schema(columns.into_iter().collect());
            let bit = |bits: u8, index: usize| bits >> index & 1 == 1;
            // Every combination of values that leaves the null columns null.
            for values in 0usize..81 {
                let choice = |index: usize| {
                    if bit(null, index) { 0 } else { values / 3usize.pow(index as u32) % 3 }
                };
                let flag = |index: usize| ScalarValue::Boolean([None, Some(true), Some(false)][choice(index)]);
                let text = |index: usize| ScalarValue::Utf8([None, Some("a"), Some("x")][choice(index)].map(str::to_owned));
                let all = [flag(0), flag(1), text(2), text(3)];
                let given = |(index, column): (usize, &Column)| bit(given, index).then(|| (*column, all[index].clone()));
                let known = Known {
                    null: columns.iter().enumerate().filter(|(index, _)| bit(null, *index)).map(|(_, c)| *c).collect(),
                    values: columns.iter().enumerate().filter_map(given).collect(),
                };
                let by_name = |name: &str| columns.iter().position(|column| column.name() == name).expect("one of them");
                let arrays = schema.fields().iter().map(|field| {
                    all[by_name(field.name())].to_array().expect("an array of one value")
                });
                let rows = RecordBatch::try_new(Arc::clone(&schema), arrays.collect()).expect("one row");
                for conjunct in conjuncts {
                    let physical = planner.physical(&conjunct.expr, &schema).expect("planned");
                    let answer = physical.evaluate(&rows).and_then(|value| value.into_array(1)).expect("evaluates");
                    let answer = answer.as_boolean();
                    if answer.is_valid(0) && answer.value(0) {
                        prop_assert!(may_hold(&conjunct.expr, &known), "{}", conjunct.text);
                    }
                }
            }
        }
    }
}
