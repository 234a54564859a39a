//! Rules of roles: `rbac_allows`, `rbac_grants`, `rbac_has_verb` and `rbac_has_wildcard`.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::scalar::ScalarValue;

use super::Kernel;
use super::arguments::{Arguments, Param, Texts, list_texts, scalar_text};

/// The column `rules`.
struct Rules<'a> {
    lists: &'a ListArray,
    structs: &'a arrow::array::StructArray,
}

impl<'a> Rules<'a> {
    fn of(lists: &'a ListArray) -> Option<Self> {
        Some(Rules { lists, structs: lists.values().as_struct_opt()? })
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

/// What is asked of the rules of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sql) enum RuleTest {
    /// One rule covers verb, group and resource.
    Allows {
        verb: String,
        group: String,
        resource: String,
        /// Leave out rules that are limited to named objects.
        unlimited: bool,
    },
    /// A rule names the verb.
    HasVerb(String),
    /// A rule has a wildcard in this field.
    HasWildcard(String),
}

impl RuleTest {
    /// The test that a function of this name makes with constant texts.
    pub(in crate::sql) fn of(function: &str, texts: &[&str]) -> Option<RuleTest> {
        Some(match (function, texts) {
            ("rbac_allows" | "rbac_grants", [verb, group, resource]) => RuleTest::Allows {
                verb: (*verb).to_owned(),
                group: (*group).to_owned(),
                resource: (*resource).to_owned(),
                unlimited: function == "rbac_grants",
            },
            ("rbac_has_verb", [verb]) => RuleTest::HasVerb((*verb).to_owned()),
            ("rbac_has_wildcard", [field]) => RuleTest::HasWildcard((*field).to_owned()),
            _ => return None,
        })
    }

    /// Whether the rules of a row pass; `None` where they are unknown.
    pub(in crate::sql) fn holds(&self, lists: &ListArray, row: usize) -> Option<bool> {
        let rules = Rules::of(lists)?;
        let mut own = rules.row(row)?;
        Some(match self {
            RuleTest::Allows { verb, group, resource, unlimited } => {
                let field = |name: &str| rules.field(name);
                let (verbs, groups, resources) = (field("verbs"), field("api_groups"), field("resources"));
                let limits = field("resource_names").filter(|_| *unlimited);
                own.any(|rule| {
                    names(verbs, rule, |text| text == "*" || text == verb)
                        && names(groups, rule, |text| text == "*" || text == group)
                        && names(resources, rule, |text| covers(text, resource))
                        && !names(limits, rule, |_| true)
                })
            }
            RuleTest::HasVerb(verb) => {
                let verbs = rules.field("verbs");
                own.any(|rule| names(verbs, rule, |text| text == verb))
            }
            RuleTest::HasWildcard(field) => {
                let field = rules.field(field);
                own.any(|rule| names(field, rule, |text| matches!(text, "*" | "*/*" | "/*")))
            }
        })
    }
}

/// Fields of a rule that can hold a wildcard.
const WILDCARD_FIELDS: [&str; 4] = ["verbs", "resources", "api_groups", "non_resource_urls"];

/// The function of this name: rules, then the texts of its test.
#[derive(Debug)]
pub(super) struct OverRules(pub &'static str);

impl Kernel for OverRules {
    fn params(&self) -> &[Param] {
        match self.0 {
            "rbac_allows" | "rbac_grants" => &[Param::Rules, Param::Text, Param::Text, Param::Text],
            _ => &[Param::Rules, Param::Text],
        }
    }

    fn check(&self, _types: &[&DataType], constants: &[Option<&ScalarValue>]) -> Result<(), String> {
        if self.0 != "rbac_has_wildcard" {
            return Ok(());
        }
        match constants.get(1).copied().flatten().and_then(scalar_text) {
            Some(field) if WILDCARD_FIELDS.contains(&field) => Ok(()),
            _ => Err(format!("argument 2 must be one of '{}'", WILDCARD_FIELDS.join("', '"))),
        }
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let array = arguments.array(0)?;
        let Some(lists) = array.as_list_opt::<i32>() else {
            return datafusion::common::internal_err!("rules are {}", array.data_type());
        };
        let texts: Vec<Texts> = (1..self.params().len()).map(|index| arguments.text(index)).collect::<Result<_>>()?;
        let test = |row: usize| {
            let texts: Option<Vec<&str>> = texts.iter().map(|texts| texts.value(row)).collect();
            RuleTest::of(self.0, &texts?)
        };
        let rows = 0..arguments.rows();
        let answers: BooleanArray = match texts.iter().all(Texts::is_constant) {
            true => {
                let test = test(0);
                rows.map(|row| test.as_ref()?.holds(lists, row)).collect()
            }
            false => rows.map(|row| test(row)?.holds(lists, row)).collect(),
        };
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
