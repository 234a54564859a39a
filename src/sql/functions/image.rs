//! Image names: `image_registry`, `image_repository` and `any_image_repository`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;

use super::Kernel;
use super::arguments::{Arguments, Param};
use super::matcher::{LikeSet, Matcher};
use crate::model::ImageName;

/// An image's registry and repository; `None` for an empty name.
fn split(image: &str) -> Option<(String, String)> {
    ImageName::parse(image).map(|name| (name.registry, name.repository))
}

/// `image_registry(image)` and `image_repository(image)`.
pub(super) struct ImagePart(fn((String, String)) -> String);

impl ImagePart {
    pub(super) fn registry() -> Self {
        ImagePart(|(registry, _)| registry)
    }

    pub(super) fn repository() -> Self {
        ImagePart(|(_, repository)| repository)
    }
}

impl fmt::Debug for ImagePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImagePart")
    }
}

impl Kernel for ImagePart {
    fn params(&self) -> &[Param] {
        &[Param::Text]
    }

    fn returns(&self) -> DataType {
        DataType::Utf8
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let images = arguments.text(0)?;
        let parts: StringArray =
            (0..arguments.rows()).map(|row| images.value(row).and_then(split).map(self.0)).collect();
        Ok(Arc::new(parts))
    }
}

/// Patterns on an image's repository: those without a slash on its last segment, the others on all of it.
pub(in crate::sql) struct Repository {
    whole: LikeSet,
    segment: LikeSet,
}

impl Matcher for Repository {
    fn build(patterns: &[&str]) -> Self {
        let part = |slash: bool| {
            let of_part = patterns.iter().copied().filter(move |pattern| pattern.contains('/') == slash);
            LikeSet::new(of_part.map(|pattern| Cow::Owned(pattern.to_lowercase())))
        };
        Repository { whole: part(true), segment: part(false) }
    }

    fn test(&self, text: &str) -> Option<bool> {
        let (_, repository) = split(text)?;
        let segment = repository.rsplit('/').next().unwrap_or_default();
        Some(self.whole.matches(&repository) || self.segment.matches(segment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_split_like_the_container_runtime_splits_them() {
        for (image, registry, repository) in [
            ("nginx", "docker.io", "library/nginx"),
            ("nginx:1.27@sha256:0123", "docker.io", "library/nginx"),
            ("bitnami/redis:7", "docker.io", "bitnami/redis"),
            ("docker.io/nginx", "docker.io", "library/nginx"),
            ("index.docker.io/bitnami/redis", "docker.io", "bitnami/redis"),
            ("GHCR.io/Acme/Tool:V1", "ghcr.io", "acme/tool"),
            ("localhost/x", "localhost", "x"),
            ("registry:5000/a/b:1", "registry:5000", "a/b"),
            ("registry.k8s.io/pause@sha256:00", "registry.k8s.io", "pause"),
        ] {
            assert_eq!(split(image), Some((registry.into(), repository.into())), "{image}");
        }
        assert_eq!(split(""), None);
        assert_eq!(split(":tag"), None);
    }
}
