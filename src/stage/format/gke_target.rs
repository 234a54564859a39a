//! What a GKE audit entry is about, read from its method and resource names; and its codes.

use std::borrow::Cow;

use crate::json::write::Object;

/// API groups that are written without a domain; the name of any other is its labels in reverse.
const BARE_GROUPS: [&str; 6] = ["core", "apps", "batch", "autoscaling", "policy", "extensions"];

/// What was asked of what.
#[derive(Debug, PartialEq)]
pub(super) struct Target<'t> {
    pub verb: &'t str,
    /// `None` for URLs that are no resource.
    pub object: Option<Reference<'t>>,
}

/// What becomes `objectRef`, with the path behind it. Empty parts are absent.
#[derive(Debug, PartialEq)]
pub(super) struct Reference<'t> {
    group: Cow<'t, str>,
    version: &'t str,
    namespace: &'t str,
    resource: &'t str,
    name: &'t str,
    subresource: &'t str,
    /// Path behind the subresource, such as that of a proxy.
    rest: &'t str,
}

impl<'t> Target<'t> {
    /// Reads `methodName` and `resourceName`. The method tells the resource, as `core/v1/namespaces/x/finalize` alone
    /// could be a resource `finalize` in a namespace.
    pub fn parse(method: &'t str, path: &'t str) -> Target<'t> {
        let words: Vec<&str> = method.split('.').collect();
        let verb = words.last().copied().unwrap_or_default();
        // The version stands before resource and verb, or before resource, subresource and verb.
        let version_at = [4, 3]
            .into_iter()
            .filter_map(|back| words.len().checked_sub(back))
            .find(|at| words.get(*at).is_some_and(|word| is_version(word)));
        let object = version_at.map(|at| Reference::parse(&words, at, path));
        Target { verb, object }
    }

    /// The HTTP code of a success.
    pub fn success(&self) -> i64 {
        match &self.object {
            Some(object) if matches!(object.subresource, "exec" | "attach" | "portforward") => 101,
            Some(_) if self.verb == "create" => 201,
            _ => 200,
        }
    }
}

impl<'t> Reference<'t> {
    fn parse(words: &[&'t str], version_at: usize, path: &'t str) -> Reference<'t> {
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        let resource = word(version_at + 1);
        let has_subresource = version_at + 3 < words.len();
        let mut parts = path.trim_start_matches('/').splitn(3, '/');
        let (group, version) = match (parts.next(), parts.next()) {
            (Some(group), Some(version)) => (Cow::Borrowed(group), version),
            _ => (group_of(words.get(..version_at).unwrap_or_default()), word(version_at)),
        };
        let group = if group == "core" { Cow::Borrowed("") } else { group };
        let mut rest = parts.next().unwrap_or_default();
        let mut next = || {
            let (part, tail) = rest.split_once('/').unwrap_or((rest, ""));
            rest = tail;
            part
        };
        let mut namespace = "";
        let mut head = next();
        if head == "namespaces" && resource != "namespaces" {
            namespace = next();
            head = next();
        }
        let name = if head.is_empty() { "" } else { next() };
        let in_path = next();
        let subresource = if has_subresource { word(version_at + 2) } else { in_path };
        if resource == "namespaces" {
            // As the API server has it: a namespace lies in itself.
            namespace = name;
        }
        Reference { group, version, namespace, resource, name, subresource, rest }
    }

    /// Writes `objectRef`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        for (key, value) in [
            ("resource", self.resource),
            ("namespace", self.namespace),
            ("name", self.name),
            ("apiGroup", self.group.as_ref()),
            ("apiVersion", self.version),
            ("subresource", self.subresource),
        ] {
            if !value.is_empty() {
                object.str(key, value);
            }
        }
        object.close();
    }

    /// The path of the request: a creation is sent to the collection.
    pub fn path(&self, verb: &str) -> String {
        let mut path = match self.group.as_ref() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let in_namespace = !self.namespace.is_empty() && self.resource != "namespaces";
        let to_collection = verb == "create" && self.subresource.is_empty();
        let segments = [
            (in_namespace, "namespaces"),
            (in_namespace, self.namespace),
            (true, self.resource),
            (!to_collection, self.name),
            (true, self.subresource),
            (true, self.rest),
        ];
        for (is_wanted, segment) in segments {
            if is_wanted && !segment.is_empty() {
                path.push('/');
                path.push_str(segment);
            }
        }
        path
    }
}

/// `v1`, `v1beta1`, `v2alpha12`.
fn is_version(word: &str) -> bool {
    let Some(rest) = word.strip_prefix('v') else { return false };
    let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let digits = word.len() - 1 - rest.len();
    let suffix = rest.strip_prefix("alpha").or_else(|| rest.strip_prefix("beta")).unwrap_or(rest);
    digits > 0 && suffix.chars().all(|digit| digit.is_ascii_digit())
}

/// The API group that a method's reversed labels name.
fn group_of<'t>(reversed: &[&'t str]) -> Cow<'t, str> {
    if let ["io", "k8s", group] = reversed
        && BARE_GROUPS.contains(group)
    {
        return Cow::Borrowed(group);
    }
    let labels: Vec<&str> = reversed.iter().rev().copied().collect();
    Cow::Owned(labels.join("."))
}

/// The HTTP code that a google.rpc code other than 0 stands for.
pub(super) fn http_code(rpc: i64) -> Option<i64> {
    Some(match rpc {
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        2 | 13 | 15 => 500,
        // Some exporter put an HTTP code there.
        400..=599 => rpc,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, uri: &str, object: &str) {
        let target = Target::parse(method, path);
        let mut out = Vec::new();
        let found = match &target.object {
            Some(reference) => {
                reference.write(&mut out);
                reference.path(target.verb)
            }
            None => "none".to_owned(),
        };
        assert_eq!((found.as_str(), String::from_utf8_lossy(&out).as_ref()), (uri, object), "{method} {path}");
    }

    #[test]
    fn methods_and_paths_become_references() {
        check(
            "io.k8s.core.v1.pods.exec.create",
            "core/v1/namespaces/shop/pods/cart-0/exec",
            "/api/v1/namespaces/shop/pods/cart-0/exec",
            r#"{"resource":"pods","namespace":"shop","name":"cart-0","apiVersion":"v1","subresource":"exec"}"#,
        );
        check(
            "io.k8s.authorization.rbac.v1.clusterrolebindings.create",
            "rbac.authorization.k8s.io/v1/clusterrolebindings/breakglass",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            r#"{"resource":"clusterrolebindings","name":"breakglass","apiGroup":"rbac.authorization.k8s.io","apiVersion":"v1"}"#,
        );
        check(
            "com.example.db.v1.backups.delete",
            "db.example.com/v1/namespaces/shop/backups/b-1",
            "/apis/db.example.com/v1/namespaces/shop/backups/b-1",
            r#"{"resource":"backups","namespace":"shop","name":"b-1","apiGroup":"db.example.com","apiVersion":"v1"}"#,
        );
        check(
            "io.k8s.core.v1.namespaces.finalize.update",
            "core/v1/namespaces/shop/finalize",
            "/api/v1/namespaces/shop/finalize",
            r#"{"resource":"namespaces","namespace":"shop","name":"shop","apiVersion":"v1","subresource":"finalize"}"#,
        );
        check(
            "io.k8s.core.v1.secrets.list",
            "core/v1/namespaces/shop/secrets",
            "/api/v1/namespaces/shop/secrets",
            r#"{"resource":"secrets","namespace":"shop","apiVersion":"v1"}"#,
        );
        check(
            "io.k8s.core.v1.nodes.proxy.get",
            "core/v1/nodes/n-1/proxy/run/shop/cart-0",
            "/api/v1/nodes/n-1/proxy/run/shop/cart-0",
            r#"{"resource":"nodes","name":"n-1","apiVersion":"v1","subresource":"proxy"}"#,
        );
        check("io.k8s.core.v1.pods.list", "", "/api/v1/pods", r#"{"resource":"pods","apiVersion":"v1"}"#);
        check(
            "com.example.db.v1beta1.backups.get",
            "",
            "/apis/db.example.com/v1beta1/backups",
            r#"{"resource":"backups","apiGroup":"db.example.com","apiVersion":"v1beta1"}"#,
        );
        check("io.k8s.get", "login.php", "none", "");
        check("io.k8s.get", "api/v1", "none", "");
    }

    #[test]
    fn versions_are_told_from_names() {
        for (word, expected) in
            [("v1", true), ("v2beta10", true), ("v1alpha1", true), ("v", false), ("vpa", false), ("v1x", false)]
        {
            assert_eq!(is_version(word), expected, "{word}");
        }
    }

    #[test]
    fn a_success_has_the_code_of_its_verb() {
        let success = |method: &str| Target::parse(method, "").success();
        assert_eq!(success("io.k8s.core.v1.pods.create"), 201);
        assert_eq!(success("io.k8s.core.v1.pods.attach.create"), 101);
        assert_eq!(success("io.k8s.core.v1.pods.get"), 200);
    }
}
