//! Reference lists: the texts that `reference('name')` stands for.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Named lists of text. Cheap to clone, never changes: new lists need a new [`super::Planner`].
#[derive(Debug, Clone, Default)]
pub struct Lists(Arc<BTreeMap<String, Vec<String>>>);

impl Lists {
    /// Lists by name.
    pub fn new(lists: BTreeMap<String, Vec<String>>) -> Self {
        Lists(Arc::new(lists))
    }

    /// The entries of one list, in their own order.
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
