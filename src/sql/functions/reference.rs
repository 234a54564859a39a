//! `reference('name')`: a list kept beside the detections, folded into a literal while planning.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::scalar::ScalarValue;

use super::Kernel;
use super::arguments::{Arguments, Param, scalar_text};
use crate::model::Kind;
use crate::sql::error::{HELP, closest};
use crate::sql::lists::Lists;

/// The function over the lists of one planner.
#[derive(Debug)]
pub(super) struct Reference(pub(super) Lists);

impl Kernel for Reference {
    fn params(&self) -> &[Param] {
        &[Param::Text]
    }

    fn returns(&self) -> DataType {
        Kind::TextList.data_type()
    }

    fn check(&self, _types: &[&DataType], constants: &[Option<&ScalarValue>]) -> Result<(), String> {
        let Some(name) = constants.first().copied().flatten().and_then(scalar_text) else {
            return Err("takes the name of one list in single quotes".into());
        };
        if self.0.get(name).is_some() {
            return Ok(());
        }
        let hint = match (closest(name, self.0.names()), self.0.names().count()) {
            (Some(name), _) => format!("did you mean '{name}'?"),
            (None, 0) => "no lists are loaded; they are files in `detections/lists`".into(),
            (None, _) => format!("there are {}", self.0.names().collect::<Vec<_>>().join(", ")),
        };
        Err(format!("unknown list '{name}'{HELP}{hint}"))
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let entries = arguments.constant_text(0).and_then(|name| self.0.get(name)).unwrap_or_default();
        let texts: StringArray = entries.iter().map(|entry| Some(entry.as_str())).collect();
        let offsets = OffsetBuffer::from_lengths([texts.len()]);
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(texts), None)?))
    }
}
