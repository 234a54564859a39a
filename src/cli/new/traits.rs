//! What is telling about an event: the conditions of a query that finds its like, and words for them.

use super::Event;
use crate::model::Column;

/// A detection in the making.
pub(super) struct Sketch {
    pub id: String,
    pub title: String,
    /// `tactic/technique`, as a list without brackets.
    pub attack: &'static str,
    /// Conjuncts of the query.
    pub conditions: Vec<String>,
    pub entity: Vec<&'static str>,
    pub summary: String,
    /// Whether the request failed, so that the query looks for attempts.
    pub refused: bool,
    pub excludes_dry_runs: bool,
    /// What was done, such as `pods were created`.
    deed: String,
    /// What is special about it.
    traits: Vec<Trait>,
}

/// Something special about the event.
struct Trait {
    sql: String,
    words: String,
    slug: &'static str,
    /// Any one trait of this sort is enough for the query.
    one_of_many: bool,
}

impl Sketch {
    pub(super) fn of(event: &Event) -> Sketch {
        let target = Target::of(event);
        let traits = traits(event);
        let code = event.number(Column::ResponseCode);
        let refused = code.is_some_and(|code| code >= 400);
        let excludes_dry_runs = target.writes && !event.flag(Column::DryRun);
        let mut conditions = target.conditions(event, !traits.is_empty());
        conditions.extend(code.map(outcome));
        if excludes_dry_runs {
            conditions.push("dry_run IS NOT TRUE".to_owned());
        }
        let (many, single): (Vec<&Trait>, Vec<&Trait>) = traits.iter().partition(|one| one.one_of_many);
        conditions.extend(single.iter().map(|one| one.sql.clone()));
        match many.as_slice() {
            [] => {}
            [only] => conditions.push(only.sql.clone()),
            many => {
                let any: Vec<&str> = many.iter().map(|one| one.sql.as_str()).collect();
                conditions.push(format!("({})", any.join(" OR ")));
            }
        }
        let deed = target.deed();
        let words: Vec<&str> = traits.iter().map(|one| one.words.as_str()).collect();
        let mut title = if refused { format!("Refused: {deed}") } else { capitalised(&deed) };
        if !words.is_empty() {
            title = format!("{title}: {}", words.join(", "));
        }
        Sketch {
            id: target.id(refused, &traits),
            title,
            attack: target.attack(&traits),
            conditions,
            entity: target.entity(),
            summary: target.summary(),
            refused,
            excludes_dry_runs,
            deed,
            traits,
        }
    }

    /// A description that is true of the event and leaves room for better reasons.
    pub(super) fn description(&self) -> String {
        let how = if self.refused { "Somebody was refused what would have meant that" } else { "In one request," };
        let mut text = format!("{how} {}", self.deed);
        if !self.traits.is_empty() {
            let words: Vec<&str> = self.traits.iter().map(|one| one.words.as_str()).collect();
            text = format!("{text} ({})", words.join(", "));
        }
        format!(
            "{text}. Drawn from one event that was judged suspicious: whoever does this without being known for it may be \
             preparing an attack or carrying one out."
        )
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn outcome(code: i64) -> String {
    match code {
        401 | 403 => "response_code IN (401, 403)".to_owned(),
        400.. => format!("response_code = {code}"),
        101 => "response_code = 101".to_owned(),
        _ => "response_code BETWEEN 200 AND 299".to_owned(),
    }
}

/// A text as SQL writes it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn literals(texts: &[String]) -> String {
    texts.iter().map(|text| literal(text)).collect::<Vec<_>>().join(", ")
}

/// What the request was for.
struct Target {
    group: Option<String>,
    resource: Option<String>,
    subresource: Option<String>,
    verb: String,
    path: String,
    namespaced: bool,
    named: bool,
    writes: bool,
}

impl Target {
    fn of(event: &Event) -> Target {
        let verb = event.text(Column::Verb).unwrap_or_default();
        let subresource = event.text(Column::Subresource);
        let connects = matches!(subresource.as_deref(), Some("exec" | "attach" | "portforward" | "proxy"));
        let uri = event.text(Column::Uri).unwrap_or_default();
        let resource = event.text(Column::Resource);
        Target {
            group: event.text(Column::ApiGroup),
            writes: resource.is_some()
                && !connects
                && matches!(verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection"),
            resource,
            subresource,
            verb,
            path: uri.split('?').next().unwrap_or_default().to_owned(),
            namespaced: event.text(Column::Namespace).is_some(),
            named: event.text(Column::Name).is_some(),
        }
    }

    /// `pods/exec`.
    fn full(&self) -> String {
        match (&self.resource, &self.subresource) {
            (Some(resource), Some(subresource)) => format!("{resource}/{subresource}"),
            (Some(resource), None) => resource.clone(),
            (None, _) => self.path.clone(),
        }
    }

    fn is_session(&self) -> bool {
        matches!(self.subresource.as_deref(), Some("exec" | "attach" | "portforward"))
    }

    fn conditions(&self, event: &Event, special: bool) -> Vec<String> {
        let mut conditions = Vec::new();
        let mut equal = |column: Column, value: &Option<String>| match value {
            Some(value) => conditions.push(format!("{} = {}", column.name(), literal(value))),
            None => conditions.push(format!("{} IS NULL", column.name())),
        };
        match &self.resource {
            Some(_) => {
                equal(Column::ApiGroup, &self.group);
                equal(Column::Resource, &self.resource);
                equal(Column::Subresource, &self.subresource);
            }
            None => {
                equal(Column::Resource, &None);
                conditions.push(format!("split_part(uri, '?', 1) = {}", literal(&self.path)));
            }
        }
        conditions.push(match self.verb.as_str() {
            "create" | "get" if self.is_session() => "verb IN ('create', 'get')".to_owned(),
            "create" | "update" | "patch" if special => "verb IN ('create', 'update', 'patch')".to_owned(),
            verb => format!("verb = {}", literal(verb)),
        });
        match event.text(Column::Namespace) {
            Some(namespace) if namespace.starts_with("kube-") => {
                conditions.push(format!("namespace = {}", literal(&namespace)));
            }
            None if self.resource.is_some() && matches!(self.verb.as_str(), "list" | "watch") => {
                conditions.push("namespace IS NULL".to_owned());
            }
            _ => {}
        }
        conditions
    }

    fn deed(&self) -> String {
        let full = self.full();
        if self.subresource.is_some() || self.resource.is_none() {
            return format!("{full} was called with {}", self.verb);
        }
        match self.verb.as_str() {
            "get" => format!("{full} were read"),
            "list" => format!("{full} were listed"),
            "watch" => format!("{full} were watched"),
            "create" => format!("{full} were created"),
            "update" | "patch" => format!("{full} were changed"),
            "delete" => format!("{full} were deleted"),
            "deletecollection" => format!("{full} were deleted all at once"),
            verb => format!("{full} were called with {verb}"),
        }
    }

    fn id(&self, refused: bool, traits: &[Trait]) -> String {
        let mut words = vec![self.full(), self.verb.clone()];
        words.extend(traits.iter().map(|one| one.slug.to_owned()));
        words.extend(refused.then(|| "refused".to_owned()));
        let text = words.join("-").to_lowercase();
        let parts = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
        let id = parts.collect::<Vec<_>>().join("-");
        if id.is_empty() { "event".to_owned() } else { id }
    }

    fn entity(&self) -> Vec<&'static str> {
        match (self.resource.is_some(), self.named, self.namespaced) {
            (true, true, true) => vec!["cluster", "namespace", "name"],
            (true, true, false) => vec!["cluster", "name"],
            (true, false, true) => vec!["cluster", "user_name", "namespace"],
            (true, false, false) => vec!["cluster", "user_name"],
            (false, ..) => vec!["cluster", "user_name", "source_ip"],
        }
    }

    fn summary(&self) -> String {
        let object = match (self.named, self.namespaced) {
            (true, true) => " {namespace}/{name}",
            (true, false) => " {name}",
            (false, true) => " in {namespace}",
            (false, false) => "",
        };
        match (&self.resource, &self.subresource) {
            (Some(_), Some(_)) => format!("{{user_name}}: {{verb}} of {{resource}}/{{subresource}}{object}"),
            (Some(_), None) => format!("{{user_name}}: {{verb}} of {{resource}}{object}"),
            (None, _) => "{user_name}: {verb} of {uri} from {source_ip}".to_owned(),
        }
    }

    /// The nearest place in ATT&CK.
    fn attack(&self, traits: &[Trait]) -> &'static str {
        let has = |slug: &str| traits.iter().any(|one| one.slug == slug);
        if traits.iter().any(|one| one.one_of_many) {
            return "TA0004/T1611";
        }
        if has("anonymous") {
            return "TA0001/T1078.001";
        }
        let removes = self.verb.starts_with("delete");
        let resource = self.resource.as_deref().unwrap_or_default();
        match (resource, self.subresource.as_deref()) {
            ("pods", Some("exec" | "attach" | "ephemeralcontainers")) => "TA0002/T1609",
            (_, Some("portforward")) => "TA0008/T1550.001",
            ("serviceaccounts", Some("token")) => "TA0006/T1528",
            ("secrets", _) if !self.writes => "TA0006/T1552.007",
            ("rolebindings" | "clusterrolebindings" | "roles" | "clusterroles", _) if self.writes && !removes => {
                "TA0003/T1098.006, TA0004/T1098.006"
            }
            ("serviceaccounts" | "certificatesigningrequests", _) if self.writes && !removes => "TA0003/T1136.001",
            ("cronjobs" | "jobs", None) if self.writes && !removes => "TA0002/T1053.007",
            ("daemonsets", None) if self.writes && !removes => "TA0003/T1543.005",
            ("pods" | "deployments" | "statefulsets" | "replicasets" | "replicationcontrollers", None)
                if self.writes && !removes =>
            {
                "TA0002/T1610"
            }
            ("mutatingwebhookconfigurations" | "validatingwebhookconfigurations" | "networkpolicies", _)
                if self.writes =>
            {
                "TA0112/T1685"
            }
            ("services" | "ingresses", None) if self.writes && !removes => "TA0001/T1133",
            ("events", _) if removes => "TA0005/T1070",
            (_, None) if removes => "TA0040/T1485",
            _ if matches!(self.verb.as_str(), "get" | "list" | "watch") => "TA0007/T1613",
            _ => "TA0002/T1059.013",
        }
    }
}

fn traits(event: &Event) -> Vec<Trait> {
    let mut found = Vec::new();
    let flags = [
        (Column::Privileged, "privileged", "privileged"),
        (Column::HostPid, "sees the node's processes", "host-pid"),
        (Column::HostNetwork, "on the node's network", "host-network"),
        (Column::HostIpc, "shares the node's memory segments", "host-ipc"),
    ];
    for (column, words, slug) in flags {
        if event.flag(column) {
            let sql = column.name().to_owned();
            found.push(Trait { sql, words: words.to_owned(), slug, one_of_many: true });
        }
    }
    let lists = [
        (Column::HostPaths, "mounts of the node", "host-path"),
        (Column::CapabilitiesAdded, "capabilities", "capabilities"),
    ];
    for (column, words, slug) in lists {
        let values = event.list(column);
        if !values.is_empty() {
            let sql = format!("any_in({}, {})", column.name(), literals(&values));
            found.push(Trait { sql, words: format!("{words} {}", values.join(" ")), slug, one_of_many: true });
        }
    }
    let mut one = |sql: String, words: String, slug| found.push(Trait { sql, words, slug, one_of_many: false });
    let texts = [
        (Column::RoleRefName, "role", "role", &[][..]),
        (Column::CsrSigner, "signer", "signer", &[]),
        (Column::ServiceType, "service of type", "exposed", &["ClusterIP"]),
        (Column::FailurePolicy, "failure policy", "fails-open", &["Fail"]),
    ];
    for (column, words, slug, ordinary) in texts {
        if let Some(value) = event.text(column).filter(|value| !ordinary.contains(&value.as_str())) {
            one(format!("{} = {}", column.name(), literal(&value)), format!("{words} {value}"), slug);
        }
    }
    let strangers = ["system:anonymous", "system:unauthenticated", "system:authenticated"];
    let mut subjects = event.list(Column::SubjectNames);
    subjects.retain(|subject| strangers.contains(&subject.as_str()));
    if !subjects.is_empty() {
        let sql = format!("any_in(subject_names, {})", literals(&subjects));
        one(sql, format!("for {}", subjects.join(" ")), "for-strangers");
    }
    if event.value(Column::Rules).to_string().contains("\"*\"") {
        let sql = "(rbac_has_wildcard(rules, 'verbs') OR rbac_has_wildcard(rules, 'resources') \
                   OR rbac_has_wildcard(rules, 'api_groups') OR rbac_has_wildcard(rules, 'non_resource_urls'))";
        one(sql.to_owned(), "with a wildcard".to_owned(), "wildcard");
    }
    if !event.list(Column::ExternalIps).is_empty() {
        one("cardinality(external_ips) > 0".to_owned(), "with external addresses".to_owned(), "external-ips");
    }
    if event.text(Column::ImpersonatedUser).is_some() {
        one("impersonated_user IS NOT NULL".to_owned(), "as somebody else".to_owned(), "impersonated");
    }
    if event.text(Column::UserName).as_deref() == Some("system:anonymous") {
        one("user_name = 'system:anonymous'".to_owned(), "without credentials".to_owned(), "anonymous");
    }
    found
}
