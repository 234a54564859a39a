//! Regular expressions with a constant pattern, compiled once.
//!
//! DataFusion's own `~` compiles its pattern for every batch, which costs more than the matching. Here the compiled
//! pattern is part of the expression.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use regex::Regex;

/// `text ~ 'constant'` as a function of the text.
#[derive(Debug)]
struct Pattern {
    regex: Regex,
    signature: Signature,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.regex.as_str().hash(state);
    }
}

impl ScalarUDFImpl for Pattern {
    fn name(&self) -> &str {
        "matches_constant_pattern"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = ColumnarValue::values_to_arrays(&arguments.args)?;
        let texts: ArrayRef = match texts.first() {
            Some(texts) if texts.data_type() == &DataType::Utf8 => Arc::clone(texts),
            Some(texts) => cast(texts, &DataType::Utf8)?,
            None => return datafusion::common::internal_err!("a pattern is matched against one text"),
        };
        let texts = texts.as_string::<i32>();
        let matches: BooleanArray = texts.iter().map(|text| text.map(|text| self.regex.is_match(text))).collect();
        Ok(ColumnarValue::Array(Arc::new(matches)))
    }
}

/// Most patterns that are remembered.
const COMPILED_MAX: usize = 1024;

/// A compiled pattern. A condition is planned more than once (to check it, to share it, to run it), and compiling is
/// most of what that costs.
///
/// # Errors
/// Where it is no regular expression.
pub(super) fn compile(pattern: &str) -> std::result::Result<Regex, regex::Error> {
    static COMPILED: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let known = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = known().get(pattern) {
        return Ok(regex.clone());
    }
    let regex = Regex::new(pattern)?;
    let mut known = known();
    if known.len() >= COMPILED_MAX {
        known.clear();
    }
    known.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

/// The pattern of `text ~ 'constant'` and its kin, and whether it must not match; none of any other expression.
pub(super) fn constant(binary: &BinaryExpr) -> Option<std::result::Result<(Regex, bool), regex::Error>> {
    let (ignore_case, negated) = match binary.op {
        Operator::RegexMatch => (false, false),
        Operator::RegexIMatch => (true, false),
        Operator::RegexNotMatch => (false, true),
        Operator::RegexNotIMatch => (true, true),
        _ => return None,
    };
    let Expr::Literal(literal, _) = binary.right.as_ref() else { return None };
    let pattern = literal.try_as_str().flatten()?;
    let pattern = if ignore_case { format!("(?i){pattern}") } else { pattern.to_owned() };
    Some(compile(&pattern).map(|regex| (regex, negated)))
}

/// The expression with its constant patterns compiled.
///
/// # Errors
/// Where a pattern is no regular expression.
pub(super) fn compiled(expr: Expr) -> Result<Expr> {
    let rewritten = expr.transform_up(|expr| {
        let Expr::BinaryExpr(binary) = &expr else { return Ok(Transformed::no(expr)) };
        let Some(pattern) = constant(binary) else { return Ok(Transformed::no(expr)) };
        let (regex, negated) = pattern.map_err(|error| DataFusionError::Plan(error.to_string()))?;
        let function = Pattern { regex, signature: Signature::any(1, Volatility::Immutable) };
        let call = ScalarUDF::from(function).call(vec![binary.left.as_ref().clone()]);
        Ok(Transformed::yes(if negated { Expr::Not(Box::new(call)) } else { call }))
    })?;
    Ok(rewritten.data)
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;
    use crate::sql::{Lists, Planner};

    #[test]
    fn compiled_patterns_match_as_the_operators_do() {
        let planner = Planner::new(Lists::default());
        let schema = crate::model::plain_schema([crate::model::Column::Verb].into_iter().collect());
        let texts = arrow::array::StringArray::from(vec![Some("get"), Some("GETS"), Some("list"), None]);
        let batch = arrow::array::RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts)]).expect("one column");
        for (op, expected) in [
            (Operator::RegexMatch, [Some(true), Some(false), Some(false), None]),
            (Operator::RegexIMatch, [Some(true), Some(true), Some(false), None]),
            (Operator::RegexNotMatch, [Some(false), Some(true), Some(true), None]),
            (Operator::RegexNotIMatch, [Some(false), Some(false), Some(true), None]),
        ] {
            let expr = datafusion::logical_expr::binary_expr(col("verb"), op, lit("^ge"));
            let rewritten = compiled(expr.clone()).expect("a pattern");
            assert_ne!(rewritten, expr);
            let physical = planner.physical(&expr, &schema).expect("planned");
            let answers = physical.evaluate(&batch).and_then(|value| value.into_array(4)).expect("evaluates");
            assert_eq!(answers.as_boolean().iter().collect::<Vec<_>>(), expected, "{op}");
        }
        let broken = datafusion::logical_expr::binary_expr(col("verb"), Operator::RegexMatch, lit("("));
        assert!(compiled(broken).is_err());
    }
}
