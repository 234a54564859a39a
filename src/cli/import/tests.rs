//! Converted rules against events: each has to fire and to stay quiet as the rule that it was made of says. The rules
//! are written for these tests.

mod falco;

use serde_json::{Value as Json, json};

use super::{Done, From, Refusal, convert};
use crate::detection::{SourceFile, files, load};
use crate::flow::replay::run_cases;

fn source(name: &str, text: &str) -> SourceFile {
    SourceFile { path: name.into(), text: text.into(), support: false }
}

fn converted(from: From, text: &str) -> Vec<Done> {
    convert(from, &[source("rules.yml", text)])
}

/// What a rule of these files was refused for.
fn refusals(from: From, text: &str) -> String {
    let told = converted(from, text).into_iter().map(|one| match one.result {
        Ok(draft) => format!("converted: {}", draft.text),
        Err(Refusal::Problems(problems)) => {
            problems.iter().map(|one| format!("{}: {}\n", one.place, one.reason)).collect()
        }
        Err(Refusal::Skipped(reason)) => format!("skipped: {reason}"),
        Err(Refusal::Unreadable(reason)) => format!("unreadable: {reason}"),
    });
    told.collect::<Vec<_>>().join("\n")
}

/// Changes of a sample, and whether the rule fires on it.
type Event = (&'static str, Json, bool);

/// The only detection of these rules, with the events as its tests.
#[track_caller]
fn holds(from: From, rules: &str, events: &[Event]) -> String {
    all_hold(from, rules, &[events.to_vec()]).remove(0)
}

/// The detections of these rules, each with its events as its tests. Files are loaded once for all of them.
#[track_caller]
fn all_hold(from: From, rules: &str, events: &[Vec<Event>]) -> Vec<String> {
    let done = converted(from, rules);
    let drafts: Vec<_> = done.iter().filter_map(|one| one.result.as_ref().ok()).collect();
    assert_eq!(drafts.len(), events.len(), "{}", refusals(from, rules));
    let mut sources = files::shipped_support();
    for (draft, events) in drafts.iter().zip(events) {
        let mut text = format!("{}tests:\n", draft.text);
        for (number, (sample, set, fires)) in events.iter().enumerate() {
            let event = json!({ "sample": sample, "set": set });
            let alerts = u8::from(*fires);
            text.push_str(&format!(
                "  - name: 'event {number}'\n    events: [{event}]\n    expect: {{alerts: {alerts}}}\n"
            ));
        }
        sources.push(source(&format!("{}.yaml", draft.id), &text));
    }
    let loaded = load(&sources);
    assert_eq!(loaded.set.detections.len(), drafts.len(), "{:#?}", loaded.diagnostics);
    let mut failed = String::new();
    for detection in &loaded.set.detections {
        for case in run_cases(&loaded.set, detection).expect("it runs") {
            if !case.differences.is_empty() {
                failed.push_str(&format!("{}\n{}: {:?}\n", detection.sql, case.name, case.differences));
            }
        }
    }
    assert!(failed.is_empty(), "{failed}");
    drafts.iter().map(|draft| draft.text.clone()).collect()
}

fn sigma(detection: &str) -> String {
    format!("title: A rule\nlogsource: {{product: kubernetes, service: audit}}\ndetection:\n{detection}\nlevel: low\n")
}

fn one_item(key: &str, value: &str) -> String {
    sigma(&format!("  selection:\n    {key}: {value}\n  condition: selection"))
}

fn falco(condition: &str) -> String {
    format!(
        "- rule: A rule\n  desc: D\n  condition: {condition}\n  output: O\n  priority: WARNING\n  source: k8s_audit\n"
    )
}

fn pod(spec: Json) -> Json {
    let body = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "name": "web" }, "spec": spec });
    json!({ "requestObject": body, "responseObject": null })
}

fn with_container(container: Json) -> Json {
    let mut container = container;
    container["name"] = json!("a");
    pod(json!({ "containers": [container] }))
}

#[test]
fn every_head_field_of_sigma_fires_and_stays_quiet() {
    let none = || json!({});
    let cases: Vec<(&str, &str, &'static str, Json, Json)> = vec![
        ("verb", "CREATE", "pod-create", none(), json!({"verb": "update"})),
        ("stage", "responsecomplete", "pod-create", none(), json!({"stage": "ResponseStarted"})),
        ("level", "Metadata", "pod-create", json!({"level": "Metadata"}), none()),
        ("auditID", "x1", "pod-create", json!({"auditID": "X1"}), none()),
        ("requestURI|contains", "'/exec?'", "exec", none(), json!({"requestURI": "/api"})),
        ("userAgent|startswith", "KUBECTL/", "pod-create", none(), json!({"userAgent": "curl/8"})),
        ("user.username|endswith", "'@EXAMPLE.org'", "pod-create", none(), json!({"user": {"username": "bob"}})),
        ("user.uid", "u-1", "pod-create", json!({"user": {"uid": "U-1"}}), none()),
        ("user.groups", "PLATFORM", "pod-create", none(), json!({"user": {"groups": ["x"]}})),
        ("user.extra.team", "'*blue*'", "pod-create", json!({"user": {"extra": {"team": ["blue"]}}}), none()),
        ("impersonatedUser.username", "root", "pod-create", json!({"impersonatedUser": {"username": "root"}}), none()),
        (
            "impersonatedUser.groups",
            "'system:masters'",
            "pod-create",
            json!({"impersonatedUser": {"username": "a", "groups": ["system:masters"]}}),
            none(),
        ),
        ("sourceIPs", "203.0.113.40", "pod-create", none(), json!({"sourceIPs": ["10.0.0.1"]})),
        ("sourceIPs|cidr", "203.0.113.0/24", "pod-create", none(), json!({"sourceIPs": ["10.0.0.1"]})),
        ("objectRef.resource", "[pods, secrets]", "pod-create", none(), json!({"objectRef": {"resource": "nodes"}})),
        ("objectRef.subresource", "exec", "exec", none(), json!({"objectRef": {"subresource": "attach"}})),
        ("objectRef.subresource|exists", "true", "exec", none(), json!({"objectRef": {"subresource": null}})),
        ("objectRef.subresource", "null", "pod-create", none(), json!({"objectRef": {"subresource": "status"}})),
        ("objectRef.namespace", "'sh?p'", "pod-create", none(), json!({"objectRef": {"namespace": "shoop"}})),
        ("objectRef.name|re", "'^we[bB]$'", "pod-create", none(), json!({"objectRef": {"name": "webs"}})),
        ("objectRef.apiGroup", "apps", "deployment-create", none(), json!({"objectRef": {"apiGroup": "x.io"}})),
        ("objectRef.apiGroup|exists", "false", "pod-create", none(), json!({"objectRef": {"apiGroup": "x.io"}})),
        ("apiGroup", "apps", "deployment-create", none(), json!({"objectRef": {"apiGroup": "x.io"}})),
        ("objectRef.apiVersion", "v1", "pod-create", none(), json!({"objectRef": {"apiVersion": "v2"}})),
        ("objectRef.uid", "abc", "pod-create", json!({"objectRef": {"uid": "abc"}}), none()),
        ("responseStatus.code", "[401, '403']", "pod-create", json!({"responseStatus": {"code": 403}}), none()),
        ("responseStatus.code", "'4*'", "pod-create", json!({"responseStatus": {"code": 404}}), none()),
        ("responseStatus.code|startswith", "'40'", "pod-create", json!({"responseStatus": {"code": 409}}), none()),
        ("responseStatus.code|gte", "400", "pod-create", json!({"responseStatus": {"code": 400}}), none()),
        (
            "responseStatus.code|gt",
            "400",
            "pod-create",
            json!({"responseStatus": {"code": 401}}),
            json!({"responseStatus": {"code": 400}}),
        ),
        ("responseStatus.code|lt", "300", "pod-create", none(), json!({"responseStatus": {"code": 300}})),
        (
            "responseStatus.code|lte",
            "300",
            "pod-create",
            json!({"responseStatus": {"code": 300}}),
            json!({"responseStatus": {"code": 301}}),
        ),
        ("responseStatus.code|neq", "201", "pod-create", json!({"responseStatus": {"code": 200}}), none()),
        (
            "responseStatus.reason",
            "forbidden",
            "pod-create",
            json!({"responseStatus": {"code": 403, "reason": "Forbidden"}}),
            none(),
        ),
        (
            "responseStatus.message|contains",
            "quota",
            "pod-create",
            json!({"responseStatus": {"code": 403, "message": "exceeded Quota"}}),
            none(),
        ),
        (
            "annotations.authorization.k8s.io/decision",
            "allow",
            "pod-create",
            none(),
            json!({"annotations": {"authorization.k8s.io/decision": "forbid"}}),
        ),
        (
            "annotations.authorization.k8s.io/reason|contains",
            "'ClusterRoleBinding'",
            "pod-create",
            none(),
            json!({"annotations": {"authorization.k8s.io/reason": ""}}),
        ),
        ("annotations.my.io/key", "v", "pod-create", json!({"annotations": {"my.io/key": "v"}}), none()),
        ("stageTimestamp|hour", "10", "exec", none(), json!({"stageTimestamp": "2026-03-02T11:00:00.000000Z"})),
        ("requestReceivedTimestamp|exists", "true", "exec", none(), json!({"stage": "RequestReceived"})),
    ];
    let rules: Vec<String> = cases.iter().map(|(key, value, ..)| one_item(key, value)).collect();
    let events =
        cases.into_iter().map(|(_, _, sample, fires, quiet)| vec![(sample, fires, true), (sample, quiet, false)]);
    all_hold(From::Sigma, &rules.join("---\n"), &events.collect::<Vec<_>>());
}

#[test]
fn every_body_field_of_sigma_fires_and_stays_quiet() {
    let plain = || with_container(json!({"image": "nginx"}));
    let container = "requestObject.spec.containers";
    let security = |name: &str, value: Json| with_container(json!({"securityContext": {name: value}}));
    let cases: Vec<(String, &str, Json, Json)> = vec![
        (format!("{container}.image|contains"), "MINER", with_container(json!({"image": "x/miner:1"})), plain()),
        (format!("{container}[*].image|endswith"), "':latest'", with_container(json!({"image": "x:latest"})), plain()),
        (
            format!("{container}.command|contains"),
            "'/bin/sh'",
            with_container(json!({"command": ["/bin/sh"]})),
            plain(),
        ),
        (format!("{container}.securityContext.privileged"), "true", security("privileged", json!(true)), plain()),
        (format!("{container}.securityContext.privileged"), "false", security("privileged", json!(false)), plain()),
        (
            format!("{container}.securityContext.allowPrivilegeEscalation"),
            "true",
            security("allowPrivilegeEscalation", json!(true)),
            security("allowPrivilegeEscalation", json!(false)),
        ),
        (format!("{container}.securityContext.runAsUser"), "0", security("runAsUser", json!(0)), plain()),
        (format!("{container}.securityContext.runAsNonRoot"), "false", security("runAsNonRoot", json!(false)), plain()),
        (
            format!("{container}.securityContext.readOnlyRootFilesystem"),
            "true",
            security("readOnlyRootFilesystem", json!(true)),
            plain(),
        ),
        (
            format!("{container}.securityContext.procMount"),
            "Unmasked",
            security("procMount", json!("Unmasked")),
            plain(),
        ),
        (
            format!("{container}.securityContext.seccompProfile.type"),
            "Unconfined",
            security("seccompProfile", json!({"type": "Unconfined"})),
            plain(),
        ),
        (
            format!("{container}.securityContext.capabilities.add"),
            "[cap_sys_admin, ALL]",
            security("capabilities", json!({"add": ["SYS_ADMIN"]})),
            security("capabilities", json!({"add": ["CHOWN"]})),
        ),
        (
            format!("{container}.securityContext.capabilities.drop"),
            "ALL",
            security("capabilities", json!({"drop": ["ALL"]})),
            plain(),
        ),
        (
            format!("{container}.ports.hostPort"),
            "22",
            with_container(json!({"ports": [{"containerPort": 1, "hostPort": 22}]})),
            with_container(json!({"ports": [{"containerPort": 22}]})),
        ),
        (format!("{container}.tty"), "true", with_container(json!({"tty": true})), plain()),
        (
            format!("{container}.workingDir|startswith"),
            "'/PROC/'",
            with_container(json!({"workingDir": "/proc/1"})),
            plain(),
        ),
        (format!("{container}[0].stdin"), "'true'", with_container(json!({"stdin": true})), plain()),
        (
            "requestObject.spec.volumes.hostPath.path".to_owned(),
            "'/etc/'",
            pod(json!({"containers": [], "volumes": [{"name": "a", "hostPath": {"path": "/etc"}}]})),
            plain(),
        ),
        (
            "hostPath".to_owned(),
            "'*'",
            pod(json!({"containers": [], "volumes": [{"name": "a", "hostPath": {"path": "/x"}}]})),
            plain(),
        ),
        ("capabilities".to_owned(), "'*'", security("capabilities", json!({"add": ["X"]})), plain()),
        (
            "requestObject.spec.volumes.nfs.server".to_owned(),
            "10.0.0.1",
            pod(json!({"containers": [], "volumes": [{"name": "a", "nfs": {"server": "10.0.0.1"}}]})),
            plain(),
        ),
        (
            "requestObject.spec.hostNetwork".to_owned(),
            "true",
            pod(json!({"containers": [], "hostNetwork": true})),
            plain(),
        ),
        ("requestObject.spec.hostPID".to_owned(), "'true'", pod(json!({"containers": [], "hostPID": true})), plain()),
        ("requestObject.spec.hostIPC".to_owned(), "false", pod(json!({"containers": [], "hostIPC": false})), plain()),
        (
            "requestObject.spec.serviceAccountName".to_owned(),
            "admin",
            pod(json!({"containers": [], "serviceAccountName": "admin"})),
            plain(),
        ),
        (
            "requestObject.spec.nodeName|exists".to_owned(),
            "true",
            pod(json!({"containers": [], "nodeName": "n"})),
            plain(),
        ),
        (
            "requestObject.metadata.labels.app.my.io/x".to_owned(),
            "y",
            json!({"requestObject": {"metadata": {"labels":
         {"app.my.io/x": "Y"}}}}),
            plain(),
        ),
        (
            "requestObject.spec.terminationGracePeriodSeconds|gt".to_owned(),
            "60",
            pod(json!({"containers": [], "terminationGracePeriodSeconds": 90})),
            pod(json!({"containers": [], "terminationGracePeriodSeconds": 30})),
        ),
    ];
    let rules: Vec<String> = cases.iter().map(|(key, value, ..)| one_item(key, value)).collect();
    let events =
        cases.into_iter().map(|(_, _, fires, quiet)| vec![("pod-create", fires, true), ("pod-create", quiet, false)]);
    all_hold(From::Sigma, &rules.join("---\n"), &events.collect::<Vec<_>>());
}

#[test]
fn roles_and_bindings_of_sigma() {
    let binding = json!({"requestObject": {"roleRef": {"name": "cluster-admin", "kind": "ClusterRole"}, "subjects":
        [{"kind": "User", "name": "eve"}]}, "responseObject": null});
    for (key, value) in [
        ("roleRef.name", "Cluster-Admin"),
        ("roleRef.kind", "clusterrole"),
        ("subjects.name", "eve"),
        ("subjects.kind", "user"),
    ] {
        let rule = one_item(&format!("requestObject.{key}"), value);
        let other = one_item(&format!("requestObject.{key}"), "other");
        holds(From::Sigma, &rule, &[("clusterrolebinding-create", binding.clone(), true)]);
        holds(From::Sigma, &other, &[("clusterrolebinding-create", binding.clone(), false)]);
    }
    let role = |key: &str, words: &[&str]| json!({"requestObject": {"rules": [{"verbs": [], key: words}]}, "responseObject": null});
    for key in ["verbs", "resources", "apiGroups", "nonResourceURLs"] {
        let any = one_item(&format!("requestObject.rules.{key}"), "'\\*'");
        holds(
            From::Sigma,
            &any,
            &[("clusterrole-create", role(key, &["*"]), true), ("clusterrole-create", role(key, &["x"]), false)],
        );
        let one = one_item(&format!("requestObject.rules.{key}"), "[a, pods/exec]");
        holds(
            From::Sigma,
            &one,
            &[
                ("clusterrole-create", role(key, &["get", "pods/exec"]), true),
                ("clusterrole-create", role(key, &["pods/exec/x"]), false),
                ("clusterrole-create", role("resourceNames", &["pods/exec"]), false),
            ],
        );
    }
    let service =
        |kind: &str| json!({"requestObject": {"kind": "Service", "spec": {"type": kind}}, "responseObject": null});
    holds(
        From::Sigma,
        &one_item("requestObject.spec.type", "nodeport"),
        &[("service-create", service("NodePort"), true), ("service-create", service("ClusterIP"), false)],
    );
}

#[test]
fn modifiers_and_values_of_sigma() {
    let agent = |text: &str| json!({"userAgent": text});
    let (mut rules, mut cases) = (Vec::new(), Vec::new());
    let mut check = |key: &str, value: &str, fires: &[&str], quiet: &[&str]| {
        let events =
            |texts: &[&str], fires| texts.iter().map(|text| ("pod-create", agent(text), fires)).collect::<Vec<_>>();
        let events: Vec<Event> = events(fires, true).into_iter().chain(events(quiet, false)).collect();
        rules.push(one_item(&format!("userAgent{key}"), value));
        cases.push(events);
    };
    check("", "'a*c?e'", &["abbcde", "ACXE"], &["acde!", "ace"]);
    check("", "'50\\%_\\*'", &["50\\%_*"], &["50%__", "50\\%_x"]);
    check("|cased", "Curl", &["Curl"], &["curl"]);
    check("|contains|cased", "[Aa, bB]", &["xAax", "bB"], &["aa", "BB"]);
    check("|contains|all", "[one, two]", &["two ONE"], &["one", "two"]);
    check("|contains", "[one, two]", &["two", "one"], &["three"]);
    check("|startswith", "[one, two]", &["two!", "ONE"], &["a two"]);
    check("|re", "'^cu.l/\\d+$'", &["curl/12"], &["Curl/12", "curl/x"]);
    check("|re|i", "'^curl'", &["CURL"], &["a curl"]);
    check("|windash|contains", "' -x'", &["a -x", "a /x", "a \u{2013}x"], &["a x"]);
    check("|base64", "ab", &["YWI="], &["ywi=", "ab"]);
    check("|base64offset|contains", "secret", &["c2VjcmV0", "IHNlY3JldA==", "ICBzZWNyZXQ="], &["secret"]);
    check("", "\"o'hara\"", &["O'Hara"], &["ohara"]);
    all_hold(From::Sigma, &rules.join("---\n"), &cases);
    let rule = one_item("objectRef.name|fieldref", "objectRef.namespace");
    holds(
        From::Sigma,
        &rule,
        &[("pod-create", json!({"objectRef": {"name": "Shop"}}), true), ("pod-create", json!({}), false)],
    );
}

#[test]
fn conditions_of_sigma_hold_for_what_is_absent() {
    let rule = sigma(
        "  selection:\n    verb: [create, replace]\n  filter_user:\n    user.username|startswith: 'system:'\n  \
        filter_exec:\n    objectRef.subresource: exec\n  either:\n    - objectRef.namespace: shop\n    - objectRef.name: \
        web\n      objectRef.resource: pods\n  condition: selection and either and not 1 of filter_*",
    );
    let text = holds(
        From::Sigma,
        &rule,
        &[
            ("pod-create", json!({}), true),
            ("pod-create", json!({"user": {"username": "system:admin"}}), false),
            // Nobody is known: the filter is about somebody.
            ("pod-create", json!({"user": {"username": null}}), true),
            ("pod-create", json!({"objectRef": {"subresource": "exec"}}), false),
            ("pod-create", json!({"objectRef": {"namespace": "x"}}), true),
            ("pod-create", json!({"objectRef": {"namespace": "x", "name": "y"}}), false),
        ],
    );
    assert!(text.contains("'replace' is no verb"), "{text}");
    let two = sigma(
        "  a:\n    verb: create\n  b:\n    objectRef.name: web\n  c:\n    objectRef.namespace: x\n  condition: 2 of them",
    );
    holds(From::Sigma, &two, &[("pod-create", json!({}), true), ("pod-create", json!({"verb": "get"}), false)]);
    let several = sigma("  a:\n    verb: get\n  b:\n    objectRef.name: web\n  condition: [a, b]");
    holds(From::Sigma, &several, &[("pod-create", json!({}), true), ("secret-list", json!({}), false)]);
}

#[test]
fn a_rule_of_sigma_becomes_a_whole_file() {
    let rule = "title: 'Tokens: {asked} for'\nid: 0a1b\nstatus: deprecated\ndescription: |\n  Why it\n  matters.\nauthor: \
        Somebody\nlicense: MIT\nreferences: [https://example.org/x]\ntags: [attack.credential-access, attack.t1528]\n\
        logsource: {product: kubernetes, service: audit}\ndetection:\n  s: {verb: create, objectRef.subresource: token}\n  \
        condition: s\nfalsepositives: [Unknown, 'controllers: all of them']\nlevel: high\n";
    let text = holds(From::Sigma, rule, &[("token-request", json!({}), true), ("pod-create", json!({}), false)]);
    for part in [
        "from rules.yml",
        "(0a1b)",
        "Author of the rule: Somebody",
        "Licence of the rule: MIT",
        "call it deprecated",
        "id: sigma-tokens-asked-for",
        "severity: high",
        "status: experimental",
        "attack: [TA0006/T1528]",
        "\"controllers: all of them\"",
        "https://example.org/x",
        "{{asked}}",
        "subresource = 'token'\n    AND verb = 'create'",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("Unknown"), "{text}");
}

#[test]
fn what_sigma_says_and_no_column_does_is_told_with_its_place() {
    for (rule, parts) in [
        (one_item("CommandLine|contains", "x"), ["detection.selection.CommandLine|contains", "no field"]),
        (one_item("responseStatus.code", "ALLOW"), ["selection.responseStatus.code", "'ALLOW' can never be its value"]),
        (one_item("verb|expand", "'%verbs%'"), ["verb|expand", "placeholder"]),
        (one_item("verb|wide", "x"), ["verb|wide", "UTF-16"]),
        (one_item("verb|fuzzy", "x"), ["verb|fuzzy", "unknown modifier"]),
        (one_item("verb|not", "x"), ["verb|not", "negate in the condition"]),
        (one_item("verb|re", "'(?=x)'"), ["verb|re", "look-around"]),
        (one_item("verb|gt", "x"), ["verb|gt", "no number"]),
        (one_item("verb|exists", "x"), ["verb|exists", "true or false"]),
        (one_item("verb", "[]"), ["selection.verb", "no values"]),
        (one_item("verb", "{a: b}"), ["selection.verb", "a value is"]),
        (one_item("sourceIPs|fieldref", "verb"), ["fieldref", "only compare texts"]),
        (one_item("stage", "RequestReceived"), ["detection", "can never hold"]),
        (sigma("  k: [one, two]\n  condition: k"), ["detection.k", "keywords"]),
        (sigma("  s: {'|contains': x}\n  condition: s"), ["detection.s.|contains", "keywords"]),
        (sigma("  s: {verb: get}\n  condition: s | count() > 3"), ["detection.condition", "counts events"]),
        (sigma("  s: {verb: get}\n  timeframe: 5m\n  condition: s"), ["detection.timeframe", "over a time"]),
        (sigma("  s: {verb: get}"), ["detection.condition", "missing"]),
        ("title: C\ncorrelation: {type: event_count}\n".to_owned(), ["correlation", "window"]),
        ("title: F\nfilter: {}\n".to_owned(), ["filter", "exception"]),
        ("title: W\nlogsource: {product: windows}\ndetection: {}\n".to_owned(), ["skipped", "windows"]),
        ("a: [".to_owned(), ["unreadable", ""]),
    ] {
        let told = refusals(From::Sigma, &rule);
        assert!(parts.iter().all(|part| told.contains(part)), "{parts:?} are not in {told}\n{rule}");
    }
    // All of a rule's at once, and its neighbours in the file are not lost.
    let both = sigma("  s: {CommandLine: a, Image: b}\n  condition: s");
    let told = refusals(From::Sigma, &format!("{both}---\n{}", one_item("verb", "get")));
    assert!(told.contains("CommandLine") && told.contains("Image") && told.contains("converted"), "{told}");
}

#[test]
fn nothing_makes_the_readers_panic_or_run_away() {
    let deep = "(".repeat(10_000);
    for condition in
        [deep.as_str(), "m0", "ka.uri.param[", "ka.verb = \"\\", "ka.verb in (", "jevt.value[/a~/~2] = x", "\u{2028}"]
    {
        let mut rules = String::new();
        for level in 0..60 {
            rules.push_str(&format!("- macro: m{level}\n  condition: (m{} and m{})\n", level + 1, level + 1));
        }
        rules.push_str(&falco(&Json::from(condition).to_string()));
        assert!(!converted(From::Falco, &rules).is_empty());
        let _ = refusals(From::Sigma, &sigma(&format!("  a: {{verb: get}}\n  condition: {}", Json::from(condition))));
    }
}
