//! Rules of Falco.

use serde_json::{Value as Json, json};

use super::super::From;
use super::{all_hold, falco, holds, pod, refusals, with_container};

#[test]
fn every_field_of_falco_fires_and_stays_quiet() {
    let plain = || with_container(json!({"image": "nginx"}));
    let security = |name: &str, value: Json| with_container(json!({"securityContext": {name: value}}));
    let of_pod = |name: &str, value: Json| pod(json!({"containers": [], name: value}));
    let volume = |kind: &str, value: Json| of_pod("volumes", json!([{"name": "v", kind: value}]));
    let pods: Vec<(&str, Json, Json)> = vec![
        ("ka.req.pod.containers.image intersects (a/b:1)", with_container(json!({"image": "a/b:1"})), plain()),
        (
            "ka.req.pod.containers.image.repository in (a/b, c)",
            with_container(json!({"image": "a/b@sha256:0"})),
            plain(),
        ),
        ("ka.req.pod.containers.image[0] = a:1", with_container(json!({"image": "a:1"})), plain()),
        ("ka.req.container.image = a:1", with_container(json!({"image": "a:1"})), plain()),
        ("ka.req.container.image.repository in (a, b)", with_container(json!({"image": "b:1"})), plain()),
        ("ka.req.pod.containers.privileged intersects (true)", security("privileged", json!(true)), plain()),
        ("ka.req.container.privileged = true", security("privileged", json!(true)), plain()),
        (
            "ka.req.pod.initContainers.privileged intersects (true)",
            pod(json!({"containers": [], "initContainers": [{"name": "i", "securityContext": {"privileged": true}}]})),
            plain(),
        ),
        (
            "ka.req.pod.containers.allow_privilege_escalation intersects (true)",
            security("allowPrivilegeEscalation", json!(true)),
            security("allowPrivilegeEscalation", json!(false)),
        ),
        (
            "ka.req.pod.containers.read_only_fs intersects (false)",
            security("readOnlyRootFilesystem", json!(false)),
            plain(),
        ),
        (
            "ka.req.pod.containers.run_as_user intersects (0)",
            security("runAsUser", json!(0)),
            security("runAsUser", json!(7)),
        ),
        (
            "ka.req.pod.containers.run_as_group intersects (0)",
            security("runAsGroup", json!(0)),
            security("runAsGroup", json!(10)),
        ),
        ("ka.req.pod.containers.proc_mount intersects (Unmasked)", security("procMount", json!("Unmasked")), plain()),
        (
            "ka.req.pod.containers.add_capabilities intersects (SYS_ADMIN)",
            security("capabilities", json!({"add": ["SYS_ADMIN"]})),
            plain(),
        ),
        (
            "ka.req.pod.containers.host_port intersects (22)",
            with_container(json!({"ports": [{"containerPort": 1, "hostPort": 22}]})),
            plain(),
        ),
        ("ka.req.pod.host_ipc = true", of_pod("hostIPC", json!(true)), plain()),
        ("ka.req.pod.host_network intersects (true)", of_pod("hostNetwork", json!(true)), plain()),
        ("ka.req.container.host_network = true", of_pod("hostNetwork", json!(true)), plain()),
        ("ka.req.pod.host_pid in (true)", of_pod("hostPID", json!(true)), plain()),
        ("ka.req.pod.run_as_user = 0", of_pod("securityContext", json!({"runAsUser": 0})), plain()),
        ("ka.req.pod.run_as_group = 0", of_pod("securityContext", json!({"runAsGroup": 0})), plain()),
        (
            "ka.req.pod.fs_group > 10",
            of_pod("securityContext", json!({"fsGroup": 11})),
            of_pod("securityContext", json!({"fsGroup": 9})),
        ),
        ("ka.req.pod.volumes.hostpath intersects (/etc, /proc)", volume("hostPath", json!({"path": "/proc"})), plain()),
        (
            "ka.req.volume.hostpath[/var/*] = true",
            volume("hostPath", json!({"path": "/var/run"})),
            volume("hostPath", json!({"path": "/v"})),
        ),
        (
            "ka.req.volume.hostpath[/etc] = true",
            volume("hostPath", json!({"path": "/etc"})),
            volume("hostPath", json!({"path": "/etc2"})),
        ),
        ("ka.req.pod.volumes.flexvolume_driver intersects (d)", volume("flexVolume", json!({"driver": "d"})), plain()),
        (
            "ka.req.pod.volumes.volume_type intersects (nfs, hostPath)",
            volume("nfs", json!({"server": "s"})),
            volume("emptyDir", json!({})),
        ),
        ("jevt.value[/requestObject/spec/schedulerName]=mine", of_pod("schedulerName", json!("mine")), plain()),
        ("jevt.value[/requestObject/spec/containers/0/image] startswith ng", plain(), of_pod("x", json!(1))),
    ];
    let pods = pods.into_iter().map(|(condition, fires, quiet)| (condition, "pod-create", fires, quiet));
    let empty = || json!({});
    let heads: Vec<(&str, &'static str, Json, Json)> = vec![
        ("ka.auditid = x", "pod-create", json!({"auditID": "x"}), empty()),
        ("ka.stage in (ResponseStarted)", "exec", empty(), json!({"stage": "ResponseComplete"})),
        (
            "ka.auth.decision = \"allow\"",
            "exec",
            empty(),
            json!({"annotations": {"authorization.k8s.io/decision": "forbid"}}),
        ),
        ("ka.auth.reason contains RBAC", "exec", empty(), json!({"annotations": {"authorization.k8s.io/reason": ""}})),
        ("ka.user.name endswith @example.org", "exec", empty(), json!({"user": {"username": "x"}})),
        ("ka.user.groups intersects (platform)", "exec", empty(), json!({"user": {"groups": ["x"]}})),
        (
            "ka.user.groups in (platform, 'system:authenticated')",
            "exec",
            empty(),
            json!({"user": {"groups": ["platform", "x"]}}),
        ),
        ("ka.impuser.name exists", "exec", json!({"impersonatedUser": {"username": "x"}}), empty()),
        ("ka.verb != get", "pod-create", empty(), json!({"verb": "get"})),
        ("ka.uri startswith /api/v1/namespaces", "exec", empty(), json!({"requestURI": "/livez"})),
        ("ka.uri glob '/api/*/exec?command=*'", "exec", empty(), json!({"requestURI": "/api"})),
        (
            "ka.uri pmatch (/api/v1)",
            "pod-create",
            json!({"requestURI": "/api/v1/pods"}),
            json!({"requestURI": "/api/v12"}),
        ),
        ("ka.uri.param[command] = ls", "exec", empty(), json!({"requestURI": "/x?command=lsof"})),
        (
            "ka.uri.param[command] contains '/bin/'",
            "exec",
            json!({"requestURI": "/x?a=b&command=%2Fbin%2fsh"}),
            empty(),
        ),
        ("ka.uri.param[stdin] exists", "exec", json!({"requestURI": "/x?stdin=true"}), empty()),
        ("ka.target.name = web", "pod-create", empty(), json!({"objectRef": {"name": "x"}})),
        ("ka.target.namespace!=kube-system", "pod-create", empty(), json!({"objectRef": {"namespace": "kube-system"}})),
        ("ka.target.namespace!=x", "clusterrole-create", json!({"objectRef": {"namespace": "y"}}), empty()),
        ("ka.target.resource regex 'po?ds'", "pod-create", empty(), json!({"objectRef": {"resource": "pods2"}})),
        ("not ka.target.subresource exists", "pod-create", empty(), json!({"objectRef": {"subresource": "x"}})),
        (
            "ka.req.binding.role = cluster-admin",
            "clusterrolebinding-create",
            json!({"requestObject": {"roleRef": {"name": "cluster-admin"}}, "responseObject": null}),
            empty(),
        ),
        (
            "ka.req.configmap.name icontains WE",
            "configmap-create",
            json!({"objectRef": {"name": "web"}}),
            json!({"objectRef": {"name": "x"}}),
        ),
        (
            "ka.req.configmap.obj contains \"password\"",
            "configmap-create",
            json!({"requestObject": {"data": {"a": "password=1"}}}),
            empty(),
        ),
        (
            "ka.req.role.rules.verbs intersects (\"*\")",
            "clusterrole-create",
            json!({"requestObject": {"rules": [{"verbs": ["*"]}]}, "responseObject": null}),
            empty(),
        ),
        (
            "ka.req.role.rules.resources intersects (pods/exec)",
            "clusterrole-create",
            json!({"requestObject": {"rules": [{"verbs": [], "resources": ["pods/exec"]}]}, "responseObject": null}),
            empty(),
        ),
        (
            "ka.req.role.rules.apiGroups intersects (apps)",
            "clusterrole-create",
            json!({"requestObject": {"rules": [{"verbs": [], "apiGroups": ["apps"]}]}, "responseObject": null}),
            empty(),
        ),
        (
            "ka.req.role.rules.nonResourceURLs intersects ('/metrics')",
            "clusterrole-create",
            json!({"requestObject": {"rules": [{"verbs": [], "nonResourceURLs": ["/metrics"]}]}, "responseObject": null}),
            empty(),
        ),
        (
            "ka.req.service.type=NodePort",
            "service-create",
            json!({"requestObject": {"spec": {"type": "NodePort"}}, "responseObject": null}),
            empty(),
        ),
        (
            "ka.resp.name = web",
            "pod-create",
            json!({"responseObject": {"metadata": {"name": "web"}}}),
            json!({"responseObject": null}),
        ),
        ("ka.response.code startswith 2", "pod-create", empty(), json!({"responseStatus": {"code": 403}})),
        ("ka.response.code in (401, 403)", "pod-create", json!({"responseStatus": {"code": 401}}), empty()),
        (
            "ka.response.code >= 400 and ka.response.code < 404",
            "pod-create",
            json!({"responseStatus": {"code": 403}}),
            empty(),
        ),
        (
            "ka.response.reason = Forbidden",
            "pod-create",
            json!({"responseStatus": {"code": 403, "reason": "Forbidden"}}),
            empty(),
        ),
        (
            "tolower(ka.useragent) contains kubectl",
            "pod-create",
            json!({"userAgent": "KubeCtl"}),
            json!({"userAgent": "x"}),
        ),
        ("ka.useragent istartswith KUBE", "pod-create", empty(), json!({"userAgent": "x"})),
        ("ka.useragent iendswith 'B7'", "pod-create", empty(), json!({"userAgent": "x"})),
        ("ka.useragent iglob 'KUBE*'", "pod-create", empty(), json!({"userAgent": "x"})),
        (
            "jevt.rawtime exists and jevt.value[/stage]=ResponseStarted",
            "exec",
            empty(),
            json!({"stage": "ResponseComplete"}),
        ),
        ("jevt.value[/annotations/my.io~1x] = y", "exec", json!({"annotations": {"my.io/x": "y"}}), empty()),
    ];
    let (mut rules, mut events) = (String::new(), Vec::new());
    for (condition, sample, fires, quiet) in pods.chain(heads) {
        rules.push_str(&falco(condition).replace("A rule", &format!("Rule {}", events.len())));
        events.push(vec![(sample, fires, true), (sample, quiet, false)]);
    }
    all_hold(From::Falco, &rules, &events);
}

const FALCO: &str = "# SPDX-License-Identifier: Apache-2.0\n- required_engine_version: 15\n- list: trusted\n  items: [jane]\n\
    - list: everybody\n  items: [trusted, bob]\n- macro: made\n  condition: (ka.verb=create)\n- macro: off\n  condition: \
    (jevt.rawtime=0)\n- rule: Pod made\n  desc: D\n  condition: made and ka.target.resource=pods and not off and not \
    ka.user.name in (everybody)\n  output: >\n    Pod made (user=%ka.user.name port=%ka.req.service.ports \
    ns=%ka.target.namespace {x})\n  priority: CRITICAL\n  source: k8s_audit\n  tags: [mitre_execution, T1610]\n- rule: Shell\n  \
    condition: proc.name=sh\n  output: O\n  priority: INFO\n";

#[test]
fn a_rule_of_falco_becomes_a_whole_file() {
    let text = holds(
        From::Falco,
        FALCO,
        &[
            ("pod-create", json!({}), true),
            ("pod-create", json!({"user": {"username": "bob"}}), false),
            ("pod-create", json!({"user": {"username": "jane"}}), false),
            ("pod-delete", json!({}), false),
        ],
    );
    for part in [
        "Licence of the rule: Apache-2.0",
        "id: falco-pod-made",
        "severity: critical",
        "attack: [TA0002/T1610]",
        "Pod made (user={user_name} ns={namespace} {{x}})",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(refusals(From::Falco, FALCO).contains("skipped: it is about another source: syscall"));
}

#[test]
fn later_items_of_falco_append_and_override() {
    let more = "- list: trusted\n  append: true\n  items: [eve]\n- macro: made\n  condition: or ka.verb=update\n  override: \
        {condition: append}\n- rule: Pod made\n  append: true\n  condition: and not ka.target.namespace=dev\n- rule: Pod made\n  \
        priority: NOTICE\n  override: {priority: replace}\n";
    let text = holds(
        From::Falco,
        &format!("{FALCO}{more}"),
        &[
            ("pod-create", json!({}), true),
            ("pod-create", json!({"verb": "update"}), true),
            ("pod-create", json!({"user": {"username": "eve"}}), false),
            ("pod-create", json!({"objectRef": {"namespace": "dev"}}), false),
        ],
    );
    assert!(text.contains("severity: low"), "{text}");
    // A macro that is appended to stands in brackets of its own where it is used.
    assert!(text.contains("(verb = 'create' OR verb = 'update')"), "{text}");
    let replaced = "- macro: off\n  condition: (jevt.rawtime exists)\n";
    assert!(refusals(From::Falco, &format!("{FALCO}{replaced}")).contains("skipped: it is switched off"));
    let unknown = "- rule: Nobody\n  append: true\n  condition: and ka.verb=get\n";
    assert!(refusals(From::Falco, unknown).contains("none of the files defines"));
    let disabled = "- rule: Pod made\n  enabled: false\n";
    let text = holds(From::Falco, &format!("{FALCO}{disabled}"), &[("pod-create", json!({}), true)]);
    assert!(text.contains("switched off in its file"), "{text}");
}

#[test]
fn exceptions_of_falco_leave_out_what_they_name() {
    let rule = |exceptions: &str| format!("{}  exceptions:\n{exceptions}", falco("ka.verb=create"));
    let named =
        |user: &str, namespace: &str| json!({"user": {"username": user}, "objectRef": {"namespace": namespace}});
    let two = rule(
        "    - name: known\n      fields: [ka.user.name, ka.target.namespace]\n      comps: [startswith, in]\n      \
        values:\n        - [sys, [a, b]]\n    - name: single\n      fields: ka.target.namespace\n      values: [c]\n",
    );
    holds(
        From::Falco,
        &two,
        &[
            ("pod-create", named("sys1", "a"), false),
            ("pod-create", named("sys1", "z"), true),
            ("pod-create", named("eve", "b"), true),
            ("pod-create", named("eve", "c"), false),
        ],
    );
    let more =
        "- rule: A rule\n  exceptions:\n    - name: single\n      values: [d]\n  override: {exceptions: append}\n";
    holds(
        From::Falco,
        &format!("{two}{more}"),
        &[("pod-create", named("eve", "d"), false), ("pod-create", named("eve", "e"), true)],
    );
    let wrong = rule("    - name: w\n      fields: [ka.user.name, ka.nothing]\n      values: [[a, b]]\n");
    let told = refusals(From::Falco, &wrong);
    assert!(told.contains("exceptions.w: ka.nothing =: unknown field"), "{told}");
}
