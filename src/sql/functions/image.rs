//! Image names: `image_registry`, `image_repository` and `any_image_repository`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;

use super::Kernel;
use super::arguments::{Arguments, Param};
use super::matcher::{LikeSet, Matcher, lower};

/// The registry of short names.
const DOCKER_HUB: &str = "docker.io";

/// Splits an image into registry and repository, lower case and without tag and digest; `None` for an empty name.
fn split(image: &str) -> Option<(String, String)> {
    let image = lower(image.trim());
    let name = image.split('@').next().unwrap_or_default();
    // A colon after the last slash starts the tag; one before it belongs to the registry's port.
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let name = match name.get(last..).and_then(|segment| segment.find(':')) {
        Some(colon) => name.get(..last + colon).unwrap_or(name),
        None => name,
    };
    if name.is_empty() {
        return None;
    }
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DOCKER_HUB, name),
    };
    match registry {
        DOCKER_HUB | "index.docker.io" | "registry-1.docker.io" if !repository.contains('/') => {
            Some((DOCKER_HUB.to_owned(), format!("library/{repository}")))
        }
        "index.docker.io" | "registry-1.docker.io" => Some((DOCKER_HUB.to_owned(), repository.to_owned())),
        _ => Some((registry.to_owned(), repository.to_owned())),
    }
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
pub(super) struct Repository {
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
