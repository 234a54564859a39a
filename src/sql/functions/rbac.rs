//! Rules of roles: `rbac_allows`, `rbac_grants`, `rbac_has_verb` and `rbac_has_wildcard`.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::scalar::ScalarValue;

use super::Kernel;
use super::arguments::{Arguments, Param, list_texts, scalar_text};

/// The column `rules` over one batch.
struct Rules<'a> {
    lists: &'a ListArray,
    structs: &'a arrow::array::StructArray,
}

impl<'a> Rules<'a> {
    fn new(array: &'a ArrayRef) -> Result<Self> {
        let lists = array.as_list_opt::<i32>();
        match lists.and_then(|lists| Some((lists, lists.values().as_struct_opt()?))) {
            Some((lists, structs)) => Ok(Rules { lists, structs }),
            None => datafusion::common::internal_err!("rules are {}", array.data_type()),
        }
    }

    /// One list of every rule; `None` where the rules have no such field.
    fn field(&self, name: &str) -> Option<&'a ListArray> {
        self.structs.column_by_name(name)?.as_list_opt::<i32>()
    }

    /// The rules of a row, `None` where they are unknown. Rules that are NULL are left out.
    fn row(&self, row: usize) -> Option<impl Iterator<Item = usize> + use<'a>> {
        if self.lists.is_null(row) {
            return None;
        }
        let offset =
            |index: usize| self.lists.value_offsets().get(index).and_then(|offset| usize::try_from(*offset).ok());
        let range: Range<usize> = offset(row)?..offset(row + 1)?;
        let structs = self.structs;
        Some(range.filter(move |rule| structs.is_valid(*rule)))
    }
}

/// Whether a rule's list holds a text that `fits`; a missing list holds none.
fn names(field: Option<&ListArray>, rule: usize, fits: impl Fn(&str) -> bool) -> bool {
    field.and_then(|lists| list_texts(lists, rule)).is_some_and(|mut texts| texts.any(fits))
}

/// Whether a rule's resource covers a resource such as `pods` or `pods/exec`.
fn covers(granted: &str, wanted: &str) -> bool {
    if granted == "*" || granted == wanted {
        return true;
    }
    match (granted.split_once('/'), wanted.split_once('/')) {
        (Some((resource, subresource)), Some((wanted_resource, wanted_subresource))) => {
            (resource == "*" || resource == wanted_resource)
                && (subresource == "*" || subresource == wanted_subresource)
        }
        _ => false,
    }
}

/// `rbac_allows` and `rbac_grants`.
#[derive(Debug)]
pub(super) struct Allows {
    /// Leave out rules that are limited to named objects.
    pub(super) unlimited: bool,
}

impl Kernel for Allows {
    fn params(&self) -> &[Param] {
        &[Param::Rules, Param::Text, Param::Text, Param::Text]
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let array = arguments.array(0)?;
        let rules = Rules::new(&array)?;
        let (verbs, groups, resources) = (rules.field("verbs"), rules.field("api_groups"), rules.field("resources"));
        let limits = rules.field("resource_names").filter(|_| self.unlimited);
        let (verb, group, resource) = (arguments.text(1)?, arguments.text(2)?, arguments.text(3)?);
        let answers: BooleanArray = (0..arguments.rows())
            .map(|row| {
                let (verb, group, resource) = (verb.value(row)?, group.value(row)?, resource.value(row)?);
                Some(rules.row(row)?.any(|rule| {
                    names(verbs, rule, |text| text == "*" || text == verb)
                        && names(groups, rule, |text| text == "*" || text == group)
                        && names(resources, rule, |text| covers(text, resource))
                        && !names(limits, rule, |_| true)
                }))
            })
            .collect();
        Ok(Arc::new(answers))
    }
}

/// `rbac_has_verb(rules, verb)`.
#[derive(Debug)]
pub(super) struct HasVerb;

impl Kernel for HasVerb {
    fn params(&self) -> &[Param] {
        &[Param::Rules, Param::Text]
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let array = arguments.array(0)?;
        let rules = Rules::new(&array)?;
        let (verbs, verb) = (rules.field("verbs"), arguments.text(1)?);
        let answers: BooleanArray = (0..arguments.rows())
            .map(|row| {
                let verb = verb.value(row)?;
                Some(rules.row(row)?.any(|rule| names(verbs, rule, |text| text == verb)))
            })
            .collect();
        Ok(Arc::new(answers))
    }
}

/// Fields of a rule that can hold a wildcard.
const WILDCARD_FIELDS: [&str; 4] = ["verbs", "resources", "api_groups", "non_resource_urls"];

/// `rbac_has_wildcard(rules, field)`.
#[derive(Debug)]
pub(super) struct HasWildcard;

impl Kernel for HasWildcard {
    fn params(&self) -> &[Param] {
        &[Param::Rules, Param::Text]
    }

    fn check(&self, _types: &[&DataType], constants: &[Option<&ScalarValue>]) -> Result<(), String> {
        let field = constants.get(1).copied().flatten().and_then(scalar_text);
        match field {
            Some(field) if WILDCARD_FIELDS.contains(&field) => Ok(()),
            _ => Err(format!("argument 2 must be one of '{}'", WILDCARD_FIELDS.join("', '"))),
        }
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let array = arguments.array(0)?;
        let rules = Rules::new(&array)?;
        let field = arguments.constant_text(1).and_then(|name| rules.field(name));
        let answers: BooleanArray = (0..arguments.rows())
            .map(|row| Some(rules.row(row)?.any(|rule| names(field, rule, |text| matches!(text, "*" | "*/*" | "/*")))))
            .collect();
        Ok(Arc::new(answers))
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn resources_cover_their_subresources_only_when_they_say_so() {
        for (granted, wanted, expected) in [
            ("*", "pods/exec", true),
            ("pods", "pods", true),
            ("pods", "pods/exec", false),
            ("pods/exec", "pods/exec", true),
            ("pods/exec", "pods", false),
            ("*/exec", "pods/exec", true),
            ("*/exec", "pods", false),
            ("pods/*", "pods/exec", true),
            ("pods/*", "pods", false),
            ("*/*", "pods", false),
            ("nodes/*", "pods/exec", false),
        ] {
            assert_eq!(covers(granted, wanted), expected, "{granted} over {wanted}");
        }
    }
}
