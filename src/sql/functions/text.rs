//! Lists and texts against patterns: `any_like`, `like_any`, `any_in`, `any_path_within` and their kin.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::Result;
use datafusion::scalar::ScalarValue;

use super::Kernel;
use super::arguments::{Arguments, Param, Row, coerce, list_texts, scalar_text};
use super::matcher::{Cache, Equal, Matcher};

/// What of an argument is tested.
pub(super) trait Subject: Send + Sync + 'static {
    /// The parameter that holds it.
    const PARAM: Param;

    /// The answer for one row; `None` is unknown.
    fn decide<M: Matcher>(subject: &ArrayRef, row: usize, matcher: &M, unknown: bool) -> Option<bool>;
}

/// A list: true where some element fits. A NULL list is unknown, NULL elements are ignored.
pub(super) struct AnyElement;

/// A list: true where every element fits, so for an empty list too.
pub(super) struct EveryElement;

/// One text.
pub(super) struct TheText;

impl Subject for AnyElement {
    const PARAM: Param = Param::TextList;

    fn decide<M: Matcher>(subject: &ArrayRef, row: usize, matcher: &M, unknown: bool) -> Option<bool> {
        let fits = list_texts(subject.as_list_opt::<i32>()?, row)?.any(|text| matcher.test(text) == Some(true));
        (fits || !unknown).then_some(fits)
    }
}

impl Subject for EveryElement {
    const PARAM: Param = Param::TextList;

    fn decide<M: Matcher>(subject: &ArrayRef, row: usize, matcher: &M, unknown: bool) -> Option<bool> {
        let fits = list_texts(subject.as_list_opt::<i32>()?, row)?.all(|text| matcher.test(text) == Some(true));
        (fits || !unknown).then_some(fits)
    }
}

impl Subject for TheText {
    const PARAM: Param = Param::Text;

    fn decide<M: Matcher>(subject: &ArrayRef, row: usize, matcher: &M, unknown: bool) -> Option<bool> {
        let texts = subject.as_string_opt::<i32>()?;
        let fits = if texts.is_valid(row) { matcher.test(texts.value(row))? } else { return None };
        (fits || !unknown).then_some(fits)
    }
}

/// `f(subject, pattern…)`: the first argument against all others.
pub(super) struct Test<S, M> {
    params: [Param; 2],
    cache: Cache<M>,
    subject: PhantomData<S>,
}

impl<S: Subject, M: Matcher> Test<S, M> {
    pub(super) fn new() -> Self {
        Test { params: [S::PARAM, Param::Patterns], cache: Cache::default(), subject: PhantomData }
    }
}

impl<S, M> fmt::Debug for Test<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Test")
    }
}

impl<S: Subject, M: Matcher> Kernel for Test<S, M> {
    fn params(&self) -> &[Param] {
        &self.params
    }

    fn check(&self, _types: &[&DataType], constants: &[Option<&ScalarValue>]) -> Result<(), String> {
        constants.iter().skip(1).flatten().try_for_each(|constant| check_patterns::<M>(constant))
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let subject = arguments.array(0)?;
        let patterns = arguments.patterns(1)?;
        let rows = 0..arguments.rows();
        let answers: BooleanArray = match patterns.constant() {
            Some(Row { texts, unknown }) => {
                let matcher = self.cache.get(&texts);
                rows.map(|row| S::decide(&subject, row, matcher.as_ref(), unknown)).collect()
            }
            None => rows
                .map(|row| {
                    let Row { texts, unknown } = patterns.row(row);
                    S::decide(&subject, row, &M::build(&texts), unknown)
                })
                .collect(),
        };
        Ok(Arc::new(answers))
    }
}

fn check_patterns<M: Matcher>(constant: &ScalarValue) -> Result<(), String> {
    if let Some(pattern) = scalar_text(constant) {
        return M::check(pattern);
    }
    match constant {
        ScalarValue::List(list) => match list_texts(list, 0) {
            Some(mut texts) => texts.try_for_each(M::check),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// `any_in` and `all_in`: a list of text or of integers against values.
pub(super) struct Membership<S> {
    text: Test<S, Equal>,
    all: bool,
}

impl Membership<AnyElement> {
    pub(super) fn any() -> Self {
        Membership { text: Test::new(), all: false }
    }
}

impl Membership<EveryElement> {
    pub(super) fn all() -> Self {
        Membership { text: Test::new(), all: true }
    }
}

impl<S> fmt::Debug for Membership<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("all", &self.all).finish()
    }
}

/// Whether a coerced argument holds integers; a NULL fits both.
fn holds_integers(kind: &DataType) -> bool {
    match kind {
        DataType::List(field) => field.data_type().is_integer(),
        kind => kind.is_integer(),
    }
}

impl<S: Subject> Kernel for Membership<S> {
    fn params(&self) -> &[Param] {
        &[Param::List, Param::Values]
    }

    fn coerce(&self, given: &[DataType]) -> Result<Vec<DataType>, String> {
        let coerced = coerce(self.params(), given)?;
        let integers = coerced.first().is_some_and(holds_integers);
        for (index, (kind, given)) in coerced.iter().zip(given).enumerate().skip(1) {
            if holds_integers(kind) != integers && *given != DataType::Null {
                let wants = if integers { "integers like the list" } else { "text like the list" };
                return Err(format!("argument {} must be {wants}", index + 1));
            }
        }
        Ok(coerced)
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let lists = arguments.array(0)?;
        match lists.as_list_opt::<i32>() {
            Some(list) if list.value_type().is_integer() => {}
            _ => return self.text.evaluate(arguments),
        }
        let mut values = Vec::new();
        for index in (1..).take_while(|index| arguments.has(*index)) {
            values.push(arguments.array(index)?);
        }
        let answers: BooleanArray =
            (0..arguments.rows()).map(|row| decide_integers(&lists, &values, row, self.all)).collect();
        Ok(Arc::new(answers))
    }
}

fn decide_integers(lists: &ArrayRef, values: &[ArrayRef], row: usize, all: bool) -> Option<bool> {
    let mut list = integers(lists, row)?;
    let mut wanted = HashSet::new();
    let mut unknown = false;
    for value in values {
        match integers(value, row) {
            Some(found) => wanted.extend(found),
            None => unknown = true,
        }
    }
    let fits = if all { list.all(|item| wanted.contains(&item)) } else { list.any(|item| wanted.contains(&item)) };
    (fits || !unknown).then_some(fits)
}

/// The integers of a row, whether it holds one or a list; `None` where it is NULL.
fn integers(array: &ArrayRef, row: usize) -> Option<Box<dyn Iterator<Item = i64>>> {
    if array.is_null(row) {
        return None;
    }
    if let Some(lists) = array.as_list_opt::<i32>() {
        let items = lists.value(row).as_primitive_opt::<Int64Type>()?.clone();
        return Some(Box::new(
            (0..items.len()).filter_map(move |index| items.is_valid(index).then(|| items.value(index))),
        ));
    }
    Some(Box::new(std::iter::once(array.as_primitive_opt::<Int64Type>()?.value(row))))
}
