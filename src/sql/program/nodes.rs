//! What programs are made of: expressions by what they give, each of which may be null.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use regex::Regex;

use super::json::{self, Step};
use super::slots::{Row, Slot};
use crate::sql::functions::{RuleTest, Wanted, any_container, list_texts};

/// Whether a text fits; `None` where the text is nothing that could be tested.
pub(super) type Fits = Box<dyn Fn(&str) -> Option<bool> + Send + Sync>;

/// Whether values in this order compare as an operator wants them to.
pub type Holds = fn(Ordering) -> bool;

/// A test of texts, and whether a pattern of it is null, so that "no" is unknown.
pub(super) struct Test {
    pub fits: Fits,
    pub unknown: bool,
}

impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Test").field("unknown", &self.unknown).finish_non_exhaustive()
    }
}

impl Test {
    fn settled(&self, fits: bool) -> Option<bool> {
        (fits || !self.unknown).then_some(fits)
    }
}

/// True, false or (`None`) unknown.
#[derive(Debug)]
pub(super) enum Truth {
    Known(Option<bool>),
    Column(Slot),
    All(Vec<Truth>),
    Any(Vec<Truth>),
    Not(Box<Truth>),
    /// `IS TRUE`, `IS FALSE`, `IS UNKNOWN`.
    Is(Box<Truth>, Option<bool>),
    IsNull(Box<Anything>),
    Text(Text, Test),
    Texts(Text, Holds, Text),
    Number(Number, Holds, Number),
    NumberIn(Number, Vec<i64>),
    /// Some element of a list fits.
    Some(Slot, Test),
    /// Every element of a list fits.
    Every(Slot, Test),
    /// A list of integers holds one of these.
    Holds(Slot, Vec<i64>),
    Rules(Slot, RuleTest),
    Container(Slot, String, Wanted),
    Json(Text, Vec<Step>),
    JsonHas(Text, Vec<Step>),
}

/// An expression of any type, of which null is asked.
#[derive(Debug)]
pub(super) enum Anything {
    Column(Slot),
    Truth(Truth),
    Text(Text),
    Number(Number),
}

impl Truth {
    pub fn of(&self, row: &Row<'_>) -> Option<bool> {
        match self {
            Truth::Known(value) => *value,
            Truth::Column(slot) => row.boolean(*slot),
            Truth::All(parts) => {
                let mut all = Some(true);
                for part in parts {
                    match part.of(row) {
                        Some(false) => return Some(false),
                        Some(true) => {}
                        None => all = None,
                    }
                }
                all
            }
            Truth::Any(parts) => {
                let mut any = Some(false);
                for part in parts {
                    match part.of(row) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => any = None,
                    }
                }
                any
            }
            Truth::Not(inner) => inner.of(row).map(|value| !value),
            Truth::Is(inner, wanted) => Some(inner.of(row) == *wanted),
            Truth::IsNull(inner) => Some(inner.is_null(row)),
            Truth::Text(text, test) => test.settled((test.fits)(&text.of(row)?)?),
            Truth::Texts(left, holds, right) => Some(holds(left.of(row)?.cmp(&right.of(row)?))),
            Truth::Number(left, holds, right) => Some(holds(left.of(row)?.cmp(&right.of(row)?))),
            Truth::NumberIn(number, values) => Some(values.contains(&number.of(row)?)),
            Truth::Some(slot, test) => {
                let (lists, place) = row.list(*slot)?;
                test.settled(list_texts(lists, place)?.any(|text| (test.fits)(text) == Some(true)))
            }
            Truth::Every(slot, test) => {
                let (lists, place) = row.list(*slot)?;
                test.settled(list_texts(lists, place)?.all(|text| (test.fits)(text) == Some(true)))
            }
            Truth::Holds(slot, values) => {
                let (lists, place) = row.list(*slot)?;
                let items = lists.value(place);
                if let Some(items) = items.as_primitive_opt::<Int32Type>() {
                    return Some(items.iter().flatten().any(|item| values.contains(&i64::from(item))));
                }
                Some(items.as_primitive_opt::<Int64Type>()?.iter().flatten().any(|item| values.contains(&item)))
            }
            Truth::Rules(slot, test) => {
                let (lists, place) = row.list(*slot)?;
                test.holds(lists, place)
            }
            Truth::Container(slot, field, wanted) => {
                let (lists, place) = row.list(*slot)?;
                any_container(lists, place, field, wanted)
            }
            Truth::Json(text, path) => json::boolean(json::find(text.of(row)?.as_ref(), path)?),
            // What is no text holds nothing, as the library's function has it.
            Truth::JsonHas(text, path) => {
                Some(text.of(row).is_some_and(|text| json::find(text.as_ref(), path).is_some()))
            }
        }
    }
}

impl Anything {
    fn is_null(&self, row: &Row<'_>) -> bool {
        match self {
            Anything::Column(slot) => row.is_null(*slot),
            Anything::Truth(truth) => truth.of(row).is_none(),
            Anything::Text(text) => text.of(row).is_none(),
            Anything::Number(number) => number.of(row).is_none(),
        }
    }
}

/// A text.
#[derive(Debug)]
pub(super) enum Text {
    Known(Option<String>),
    Column(Slot),
    Lower(Box<Text>),
    Upper(Box<Text>),
    /// The text of the first condition that is true, else the last one.
    Choice(Vec<(Truth, Text)>, Option<Box<Text>>),
    /// The first that is not null.
    First(Vec<Text>),
    /// `concat_ws`: what is not null, with a text between.
    Joined(String, Vec<Text>),
    /// `split_part`, counted from 1, from the end where negative.
    Part(Box<Text>, String, i64),
    /// `array_element`, counted as `split_part` counts.
    Element(Slot, i64),
    /// `array_to_string`.
    Elements(Slot, String),
    /// `regexp_replace`: of all matches, or the first.
    Replaced(Box<Text>, Box<Regex>, String, bool),
    Json(Box<Text>, Vec<Step>),
}

/// The place that SQL's `index` names among `length`.
fn counted(index: i64, length: usize) -> Option<usize> {
    let place = match index {
        1.. => usize::try_from(index).ok()?.checked_sub(1)?,
        0 => return None,
        _ => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
    };
    (place < length).then_some(place)
}

impl Text {
    pub fn of<'a>(&'a self, row: &Row<'a>) -> Option<Cow<'a, str>> {
        Some(match self {
            Text::Known(text) => Cow::Borrowed(text.as_deref()?),
            Text::Column(slot) => Cow::Borrowed(row.text(*slot)?),
            Text::Lower(text) => Cow::Owned(text.of(row)?.to_lowercase()),
            Text::Upper(text) => Cow::Owned(text.of(row)?.to_uppercase()),
            Text::Choice(arms, otherwise) => {
                let chosen = arms.iter().find(|(condition, _)| condition.of(row) == Some(true)).map(|(_, text)| text);
                return chosen.or(otherwise.as_deref())?.of(row);
            }
            Text::First(texts) => return texts.iter().find_map(|text| text.of(row)),
            Text::Joined(separator, parts) => {
                let mut joined: Option<String> = None;
                for part in parts.iter().filter_map(|part| part.of(row)) {
                    match &mut joined {
                        Some(joined) => {
                            joined.push_str(separator);
                            joined.push_str(&part);
                        }
                        None => joined = Some(part.into_owned()),
                    }
                }
                Cow::Owned(joined.unwrap_or_default())
            }
            Text::Part(text, delimiter, index) => {
                let text = text.of(row)?;
                let parts: Vec<&str> = text.split(delimiter.as_str()).collect();
                Cow::Owned(counted(*index, parts.len()).map(|place| parts[place].to_owned()).unwrap_or_default())
            }
            Text::Element(slot, index) => {
                let (lists, place) = row.list(*slot)?;
                let offsets = lists.value_offsets();
                let (start, end) = (offsets[place] as usize, offsets[place + 1] as usize);
                let texts = lists.values().as_string_opt::<i32>()?;
                let element = start + counted(*index, end - start)?;
                Cow::Borrowed(texts.is_valid(element).then(|| texts.value(element))?)
            }
            Text::Elements(slot, separator) => {
                let (lists, place) = row.list(*slot)?;
                let mut texts = list_texts(lists, place)?;
                let mut joined = texts.next().unwrap_or_default().to_owned();
                texts.for_each(|text| {
                    joined.push_str(separator);
                    joined.push_str(text);
                });
                Cow::Owned(joined)
            }
            Text::Replaced(text, regex, with, all) => {
                let text = text.of(row)?;
                let limit = if *all { 0 } else { 1 };
                match regex.replacen(&text, limit, regex::NoExpand(with)) {
                    Cow::Borrowed(_) => text,
                    Cow::Owned(replaced) => Cow::Owned(replaced),
                }
            }
            Text::Json(text, path) => {
                let text = text.of(row)?;
                Cow::Owned(json::find(&text, path)?.text()?.decode().into_owned())
            }
        })
    }
}

/// A whole number.
#[derive(Debug)]
pub(super) enum Number {
    Known(Option<i64>),
    Column(Slot),
    /// Elements of a list.
    Count(Slot),
    Json(Text, Vec<Step>),
}

impl Number {
    fn of(&self, row: &Row<'_>) -> Option<i64> {
        match self {
            Number::Known(number) => *number,
            Number::Column(slot) => row.integer(*slot),
            Number::Count(slot) => {
                let (lists, place) = row.list(*slot)?;
                Some(i64::from(lists.value_length(place)))
            }
            Number::Json(text, path) => json::integer(json::find(text.of(row)?.as_ref(), path)?),
        }
    }
}
