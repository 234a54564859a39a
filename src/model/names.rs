//! Names that Kubernetes writes in several ways, in one way.

/// A container image's name in parts, lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// Host of the registry; `docker.io` for short names.
    pub registry: String,
    /// Path in the registry; `library/` is added to Docker Hub's short names.
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl ImageName {
    /// Splits an image as a pod names it; `None` for an empty name.
    pub fn parse(image: &str) -> Option<ImageName> {
        let image = image.trim().to_ascii_lowercase();
        let (name, digest) = match image.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (image.as_str(), None),
        };
        // A colon behind the last slash starts the tag; one before it belongs to the registry's port.
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match name[last..].find(':') {
            Some(colon) => (&name[..last + colon], Some(name[last + colon + 1..].to_owned())),
            None => (name, None),
        };
        if name.is_empty() {
            return None;
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => ("docker.io", name),
        };
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => "docker.io",
            other => other,
        };
        let repository = if registry == "docker.io" && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        Some(ImageName { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// A path without empty, `.` and `..` parts and without a slash at its end: `//etc/../etc/` is `/etc`.
///
/// Works on the text alone, as the kubelet does not follow links of a path in a volume before it mounts it. A path that
/// is not absolute stays relative.
pub fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// A capability in upper case without `CAP_`.
pub fn clean_capability(capability: &str) -> String {
    let name = capability.trim().to_ascii_uppercase();
    name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_split_as_a_container_runtime_does() {
        let parts = |image: &str| {
            ImageName::parse(image).map(|name| (name.registry, name.repository, name.tag, name.digest.is_some()))
        };
        let some = |registry: &str, repository: &str, tag: Option<&str>, digest| {
            Some((registry.to_owned(), repository.to_owned(), tag.map(str::to_owned), digest))
        };
        assert_eq!(parts("nginx"), some("docker.io", "library/nginx", None, false));
        assert_eq!(parts("Kannix/Monero-Miner:1"), some("docker.io", "kannix/monero-miner", Some("1"), false));
        assert_eq!(parts("localhost:5000/a/b:v1@sha256:00"), some("localhost:5000", "a/b", Some("v1"), true));
        assert_eq!(parts("index.docker.io/nginx"), some("docker.io", "library/nginx", None, false));
        assert_eq!(parts(" "), None);
    }

    #[test]
    fn paths_and_capabilities_have_one_form() {
        for (path, clean) in
            [("//etc/../etc/", "/etc"), ("/", "/"), ("/../..", "/"), ("/a/./b//", "/a/b"), ("", ""), ("a/b/..", "a")]
        {
            assert_eq!(clean_path(path), clean, "{path}");
        }
        assert_eq!(clean_capability("cap_sys_admin"), "SYS_ADMIN");
        assert_eq!(clean_capability("Sys_Admin"), "SYS_ADMIN");
    }
}
