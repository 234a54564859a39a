//! Expressions to programs. What gives nothing here is left to DataFusion.

use std::cmp::Ordering;

use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{Case, Expr, Like, Operator};
use datafusion::scalar::ScalarValue;

use super::json::Step;
use super::nodes::{Anything, Holds, Number, Test, Text, Truth};
use super::slots::Slot;
use crate::model::{Column, Kind};
use crate::sql::functions::{
    self, Covers, Equal, ILike, Matcher, Networks, Repository, RuleTest, Wanted, Within, list_texts,
};
use crate::sql::pattern::{self, compile};

/// Collects the columns of a program while it is made.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub columns: Vec<Column>,
}

/// Texts of the constants among a call's patterns, and whether one of them is null.
#[derive(Debug, Default)]
struct Patterns {
    texts: Vec<String>,
    unknown: bool,
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

/// A constant text that is not null.
fn constant(expr: &Expr) -> Option<&str> {
    literal(expr)?.try_as_str().flatten()
}

/// A constant whole number that is not null.
fn whole(expr: &Expr) -> Option<i64> {
    let value = literal(expr)?;
    if !value.data_type().is_integer() || value.is_null() {
        return None;
    }
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(number) => number,
        _ => None,
    }
}

fn patterns(arguments: &[Expr]) -> Option<Patterns> {
    let mut all = Patterns::default();
    for argument in arguments {
        let value = literal(argument)?;
        if value.is_null() {
            all.unknown = true;
        } else if let Some(text) = value.try_as_str().flatten() {
            all.texts.push(text.to_owned());
        } else if let ScalarValue::List(list) = value {
            all.texts.extend(list_texts(list, 0)?.map(str::to_owned));
        } else {
            return None;
        }
    }
    Some(all)
}

fn test<M: Matcher>(arguments: &[Expr]) -> Option<Test> {
    let all = patterns(arguments)?;
    let texts: Vec<&str> = all.texts.iter().map(String::as_str).collect();
    let matcher = M::build(&texts);
    Some(Test { fits: Box::new(move |text| matcher.test(text)), unknown: all.unknown })
}

fn known(fits: impl Fn(&str) -> Option<bool> + Send + Sync + 'static) -> Test {
    Test { fits: Box::new(fits), unknown: false }
}

/// Equal to a text.
fn exactly(wanted: &str) -> Test {
    let wanted = wanted.to_owned();
    known(move |text| Some(text == wanted))
}

/// What a comparison asks of the order of its sides.
pub fn comparison(op: Operator) -> Option<Holds> {
    Some(match op {
        Operator::Eq => Ordering::is_eq,
        Operator::NotEq => Ordering::is_ne,
        Operator::Lt => Ordering::is_lt,
        Operator::LtEq => Ordering::is_le,
        Operator::Gt => Ordering::is_gt,
        Operator::GtEq => Ordering::is_ge,
        _ => return None,
    })
}

fn not(truth: Truth, negated: bool) -> Truth {
    if negated { Truth::Not(Box::new(truth)) } else { truth }
}

/// Whether a cast changes nothing of what is read here: all texts are one type, all whole numbers another.
fn same(to: &DataType) -> bool {
    let plain = |kind: &DataType| {
        matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Int64 | DataType::Boolean)
    };
    match to {
        DataType::List(item) => plain(item.data_type()),
        other => plain(other),
    }
}

impl Builder {
    fn slot(&mut self, expr: &Expr, wanted: impl Fn(Kind) -> bool) -> Option<Slot> {
        match expr {
            Expr::Column(column) => {
                let column = Column::by_name(&column.name)?;
                if !wanted(column.info().kind) {
                    return None;
                }
                let place = self.columns.iter().position(|known| *known == column);
                Some(Slot(place.unwrap_or_else(|| {
                    self.columns.push(column);
                    self.columns.len() - 1
                })))
            }
            Expr::Alias(alias) => self.slot(&alias.expr, wanted),
            Expr::Cast(cast) if same(cast.field.data_type()) => self.slot(&cast.expr, wanted),
            _ => None,
        }
    }

    /// A boolean expression.
    pub fn truth(&mut self, expr: &Expr) -> Option<Truth> {
        let is = |truth: Truth, value: Option<bool>| Truth::Is(Box::new(truth), value);
        Some(match expr {
            Expr::Literal(ScalarValue::Boolean(value), _) => Truth::Known(*value),
            Expr::Literal(ScalarValue::Null, _) => Truth::Known(None),
            Expr::Column(_) => Truth::Column(self.slot(expr, |kind| kind == Kind::Bool)?),
            Expr::Alias(alias) => self.truth(&alias.expr)?,
            Expr::Not(inner) => not(self.truth(inner)?, true),
            Expr::IsTrue(inner) => is(self.truth(inner)?, Some(true)),
            Expr::IsFalse(inner) => is(self.truth(inner)?, Some(false)),
            Expr::IsUnknown(inner) => is(self.truth(inner)?, None),
            Expr::IsNotTrue(inner) => not(is(self.truth(inner)?, Some(true)), true),
            Expr::IsNotFalse(inner) => not(is(self.truth(inner)?, Some(false)), true),
            Expr::IsNotUnknown(inner) => not(is(self.truth(inner)?, None), true),
            Expr::IsNull(inner) => Truth::IsNull(Box::new(self.anything(inner)?)),
            Expr::IsNotNull(inner) => not(Truth::IsNull(Box::new(self.anything(inner)?)), true),
            Expr::BinaryExpr(binary) => match binary.op {
                Operator::And | Operator::Or => {
                    let mut parts = Vec::new();
                    self.chain(expr, binary.op, &mut parts)?;
                    if binary.op == Operator::And { Truth::All(parts) } else { Truth::Any(parts) }
                }
                op => match pattern::constant(binary) {
                    Some(pattern) => {
                        let (regex, negated) = pattern.ok()?;
                        not(
                            Truth::Text(self.text(&binary.left)?, known(move |text| Some(regex.is_match(text)))),
                            negated,
                        )
                    }
                    None => self.compared(&binary.left, op, &binary.right)?,
                },
            },
            Expr::InList(list) => self.listed(list)?,
            Expr::Like(like) => self.like(like)?,
            Expr::ScalarFunction(call) => self.call(call)?,
            _ => return None,
        })
    }

    fn chain(&mut self, expr: &Expr, op: Operator, parts: &mut Vec<Truth>) -> Option<()> {
        match expr {
            Expr::BinaryExpr(binary) if binary.op == op => {
                self.chain(&binary.left, op, parts)?;
                self.chain(&binary.right, op, parts)
            }
            other => {
                parts.push(self.truth(other)?);
                Some(())
            }
        }
    }

    fn compared(&mut self, left: &Expr, op: Operator, right: &Expr) -> Option<Truth> {
        let holds = comparison(op)?;
        if let (Some(text), Some(value)) = (self.text(left), constant(right)) {
            // Equality need not find out which one is less.
            return Some(match op {
                Operator::Eq | Operator::NotEq => not(Truth::Text(text, exactly(value)), op == Operator::NotEq),
                _ => {
                    let value = value.to_owned();
                    Truth::Text(text, known(move |text| Some(holds(text.cmp(value.as_str())))))
                }
            });
        }
        if let (Some(left), Some(right)) = (self.text(left), self.text(right)) {
            return Some(Truth::Texts(left, holds, right));
        }
        Some(Truth::Number(self.number(left)?, holds, self.number(right)?))
    }

    fn listed(&mut self, list: &InList) -> Option<Truth> {
        if let Some(text) = self.text(&list.expr) {
            return Some(not(Truth::Text(text, test::<Equal>(&list.list)?), list.negated));
        }
        let numbers: Option<Vec<i64>> = list.list.iter().map(whole).collect();
        Some(not(Truth::NumberIn(self.number(&list.expr)?, numbers?), list.negated))
    }

    fn like(&mut self, like: &Like) -> Option<Truth> {
        if like.escape_char.is_some_and(|escape| escape != '\\') {
            return None;
        }
        constant(&like.pattern)?;
        let pattern = std::slice::from_ref(like.pattern.as_ref());
        let test = if like.case_insensitive { test::<ILike>(pattern)? } else { test::<functions::Like>(pattern)? };
        Some(not(Truth::Text(self.text(&like.expr)?, test), like.negated))
    }

    fn anything(&mut self, expr: &Expr) -> Option<Anything> {
        if let Some(slot) = self.slot(expr, |_| true) {
            return Some(Anything::Column(slot));
        }
        if let Some(text) = self.text(expr) {
            return Some(Anything::Text(text));
        }
        if let Some(number) = self.number(expr) {
            return Some(Anything::Number(number));
        }
        Some(Anything::Truth(self.truth(expr)?))
    }

    fn call(&mut self, call: &ScalarFunction) -> Option<Truth> {
        let (subject, rest) = call.args.split_first()?;
        let list = |kind: Kind| kind == Kind::TextList;
        Some(match call.name() {
            "any_like" => Truth::Some(self.slot(subject, list)?, test::<functions::Like>(rest)?),
            "any_ilike" => Truth::Some(self.slot(subject, list)?, test::<ILike>(rest)?),
            "like_any" => Truth::Text(self.text(subject)?, test::<functions::Like>(rest)?),
            "ilike_any" => Truth::Text(self.text(subject)?, test::<ILike>(rest)?),
            "any_in" => Truth::Some(self.slot(subject, list)?, test::<Equal>(rest)?),
            "all_in" => Truth::Every(self.slot(subject, list)?, test::<Equal>(rest)?),
            "any_path_within" => Truth::Some(self.slot(subject, list)?, test::<Within>(rest)?),
            "any_path_covers" => Truth::Some(self.slot(subject, list)?, test::<Covers>(rest)?),
            "any_image_repository" => Truth::Some(self.slot(subject, list)?, test::<Repository>(rest)?),
            "ip_in" => Truth::Text(self.text(subject)?, test::<Networks>(rest)?),
            "is_public_ip" => Truth::Text(self.text(subject)?, known(functions::is_public_ip)),
            "starts_with" => {
                let prefix = constant(rest.first()?)?.to_owned();
                Truth::Text(self.text(subject)?, known(move |text| Some(text.starts_with(&prefix))))
            }
            "array_has" => match self.slot(subject, list) {
                Some(slot) => Truth::Some(slot, exactly(constant(rest.first()?)?)),
                None => {
                    let slot = self.slot(subject, |kind| kind == Kind::IntList)?;
                    Truth::Holds(slot, vec![whole(rest.first()?)?])
                }
            },
            "rbac_allows" | "rbac_grants" | "rbac_has_verb" | "rbac_has_wildcard" => {
                let texts: Option<Vec<&str>> = rest.iter().map(constant).collect();
                Truth::Rules(self.slot(subject, |kind| kind == Kind::Rules)?, RuleTest::of(call.name(), &texts?)?)
            }
            "any_container" => {
                let wanted = match rest.get(1).map(literal) {
                    None => Wanted::Boolean(true),
                    Some(Some(ScalarValue::Boolean(Some(wanted)))) => Wanted::Boolean(*wanted),
                    Some(Some(value)) if value.data_type().is_integer() => Wanted::Integer(whole(rest.get(1)?)?),
                    Some(_) => Wanted::Text(constant(rest.get(1)?)?.to_owned()),
                };
                let slot = self.slot(subject, |kind| kind == Kind::Containers)?;
                Truth::Container(slot, constant(rest.first()?)?.to_owned(), wanted)
            }
            "json_get_bool" => Truth::Json(self.text(subject)?, path(rest)?),
            "json_contains" => Truth::JsonHas(self.text(subject)?, path(rest)?),
            _ => return None,
        })
    }

    fn texts(&mut self, exprs: &[Expr]) -> Option<Vec<Text>> {
        exprs.iter().map(|expr| self.text(expr)).collect()
    }

    /// An expression that gives text.
    fn text(&mut self, expr: &Expr) -> Option<Text> {
        let known = |expr: &Expr| constant(expr).map(str::to_owned);
        Some(match expr {
            Expr::Literal(value, _) if is_text(value) => Text::Known(known(expr)),
            Expr::Column(_) => Text::Column(self.slot(expr, |kind| matches!(kind, Kind::Text | Kind::Json))?),
            Expr::Alias(alias) => self.text(&alias.expr)?,
            Expr::Cast(cast) if same(cast.field.data_type()) => self.text(&cast.expr)?,
            Expr::Case(case) => self.choice(case)?,
            Expr::ScalarFunction(call) => {
                let (first, rest) = call.args.split_first()?;
                match (call.name(), rest) {
                    ("lower", []) => Text::Lower(Box::new(self.text(first)?)),
                    ("upper", []) => Text::Upper(Box::new(self.text(first)?)),
                    ("coalesce", _) => Text::First(self.texts(&call.args)?),
                    ("concat_ws", _) => Text::Joined(known(first)?, self.texts(rest)?),
                    ("split_part", [delimiter, index]) => {
                        let delimiter = known(delimiter).filter(|delimiter| !delimiter.is_empty())?;
                        Text::Part(Box::new(self.text(first)?), delimiter, whole(index).filter(|index| *index != 0)?)
                    }
                    ("array_element", [index]) => {
                        Text::Element(self.slot(first, |kind| kind == Kind::TextList)?, whole(index)?)
                    }
                    ("array_to_string", [separator]) => {
                        Text::Elements(self.slot(first, |kind| kind == Kind::TextList)?, known(separator)?)
                    }
                    ("regexp_replace", [pattern, with]) => self.replaced(first, pattern, with, "")?,
                    ("regexp_replace", [pattern, with, flags]) => {
                        self.replaced(first, pattern, with, constant(flags)?)?
                    }
                    ("json_get_str", _) => Text::Json(Box::new(self.text(first)?), path(rest)?),
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    fn choice(&mut self, case: &Case) -> Option<Text> {
        if case.expr.is_some() {
            return None;
        }
        let arms: Option<Vec<(Truth, Text)>> =
            case.when_then_expr.iter().map(|(when, then)| Some((self.truth(when)?, self.text(then)?))).collect();
        let otherwise = match &case.else_expr {
            Some(otherwise) => Some(Box::new(self.text(otherwise)?)),
            None => None,
        };
        Some(Text::Choice(arms?, otherwise))
    }

    fn replaced(&mut self, text: &Expr, pattern: &Expr, with: &Expr, flags: &str) -> Option<Text> {
        let with = constant(with).filter(|with| !with.contains(['\\', '$']))?;
        let all = flags.contains('g');
        let flags = flags.replace('g', "");
        let pattern = constant(pattern)?;
        let regex = compile(&if flags.is_empty() { pattern.to_owned() } else { format!("(?{flags}){pattern}") });
        Some(Text::Replaced(Box::new(self.text(text)?), Box::new(regex.ok()?), with.to_owned(), all))
    }

    /// An expression that gives a whole number.
    fn number(&mut self, expr: &Expr) -> Option<Number> {
        Some(match expr {
            Expr::Literal(..) => Number::Known(Some(whole(expr)?)),
            Expr::Column(_) => Number::Column(self.slot(expr, |kind| kind == Kind::Int)?),
            Expr::Alias(alias) => self.number(&alias.expr)?,
            Expr::Cast(cast) if cast.field.data_type().is_integer() => self.number(&cast.expr)?,
            Expr::ScalarFunction(call) => match (call.name(), call.args.split_first()?) {
                ("cardinality", (list, [])) => Number::Count(self.slot(list, is_list)?),
                ("json_get_int", (text, rest)) => Number::Json(self.text(text)?, path(rest)?),
                _ => return None,
            },
            _ => return None,
        })
    }
}

fn is_list(kind: Kind) -> bool {
    use Kind::{Containers, IntList, Rules, Subjects, TextList, Volumes};
    matches!(kind, TextList | IntList | Containers | Volumes | Subjects | Rules)
}

fn is_text(value: &ScalarValue) -> bool {
    matches!(value.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn path(steps: &[Expr]) -> Option<Vec<Step>> {
    let step = |expr: &Expr| match constant(expr) {
        Some(key) => Some(Step::Key(key.to_owned())),
        None => Some(Step::Index(usize::try_from(whole(expr)?).ok()?)),
    };
    steps.iter().map(step).collect()
}
