//! JSON Schemas of the files that authors write, made from the Rust types, made once.

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use super::file::{DetectionFile, ExceptionsFile, ListFile};

/// Of a detection.
pub static DETECTION: LazyLock<Json> = LazyLock::new(of::<DetectionFile>);
/// Of a reference list.
pub static LIST: LazyLock<Json> = LazyLock::new(of::<ListFile>);
/// Of a file of exceptions.
pub static EXCEPTIONS: LazyLock<Json> = LazyLock::new(of::<ExceptionsFile>);

fn of<T: JsonSchema>() -> Json {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}
