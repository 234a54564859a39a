//! What every bench measures on: a generated log and, where `KUBETIDE_BENCH_LOG` names one, a real one.
#![allow(dead_code, reason = "each bench uses its part")]

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use kubetide::detection::{DetectionSet, SourceFile, files, load};
use kubetide::flow::work::chunk_of;
use kubetide::generate::{Generator, GeneratorOptions};
use kubetide::model::{Chunk, Lane};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Events of a log: three full batches.
const EVENTS: usize = 3 * 8_192;

/// Audit events, one a line in its file.
pub struct Log {
    pub name: &'static str,
    pub events: Vec<Vec<u8>>,
}

impl Log {
    pub fn bytes(&self) -> u64 {
        self.events.iter().map(|event| event.len() as u64).sum()
    }

    /// The events in chunks as a source sends them.
    pub fn chunks(&self, events: usize) -> Vec<Chunk> {
        let lane = Lane { name: "bench".into(), fallback_cluster: "bench".into(), cluster: None };
        self.events.chunks(events).map(|events| chunk_of(events, lane.clone())).collect()
    }
}

/// The generated log, and the real one where there is one.
pub fn logs() -> Vec<Log> {
    let options = GeneratorOptions { seed: 7, ..GeneratorOptions::default() };
    let mut logs = vec![Log { name: "generated", events: Generator::new(options).take(EVENTS).collect() }];
    if let Some(path) = std::env::var_os("KUBETIDE_BENCH_LOG") {
        logs.push(Log { name: "real", events: read(Path::new(&path)) });
    }
    logs
}

fn read(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).expect("KUBETIDE_BENCH_LOG names a file that can be read");
    let text = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => {
            let mut text = Vec::new();
            flate2::read::MultiGzDecoder::new(file.as_slice()).read_to_end(&mut text).expect("whole gzip");
            text
        }
        Some("zst") => zstd::decode_all(file.as_slice()).expect("whole zstd"),
        _ => file,
    };
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(EVENTS).map(<[u8]>::to_vec).collect()
}

/// The shipped pack.
pub fn shipped() -> DetectionSet {
    load(&files::shipped()).set
}

/// `count` made-up detections of the kinds that people write, all different: most name a resource and a verb, some look
/// into containers or rules, a fifth names no resource at all.
pub fn synthetic(count: usize) -> DetectionSet {
    let mut sources = files::shipped_support();
    let mut draw = Draw(42);
    for index in 0..count {
        let condition = condition(index, &mut draw);
        let text = format!(
            "id: synthetic-{index}\ntitle: Synthetic\nseverity: low\nstatus: stable\nattack: [TA0002/T1609]\n\
             description: For measuring.\nsql: |\n  SELECT * FROM audit WHERE {condition}\nentity: [user_name]\n\
             summary: '{{user_name}}'\ntests: []\n"
        );
        let path = format!("detections/execution/synthetic-{index}.yaml");
        sources.push(SourceFile { path: path.into(), text: text.into(), support: false });
    }
    let loaded = load(&sources);
    assert_eq!(loaded.set.detections.len(), count, "{:?}", loaded.diagnostics.first());
    loaded.set
}

/// `count` detections: shipped ones spread over the pack, and synthetic ones once it is used up.
pub fn detections(
    count: usize,
    shipped: &DetectionSet,
    synthetic: &DetectionSet,
) -> Vec<Arc<kubetide::detection::Detection>> {
    let own = &shipped.detections;
    if count < own.len() {
        return (0..count).map(|index| Arc::clone(&own[index * own.len() / count])).collect();
    }
    own.iter().chain(&synthetic.detections).take(count).cloned().collect()
}

/// A small random number generator, so that the family is the same with every version of every library.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn one_of(&mut self, from: &[&str]) -> String {
        from[self.below(from.len())].to_owned()
    }
}

fn condition(index: usize, draw: &mut Draw) -> String {
    const RESOURCES: [&str; 24] = [
        "pods",
        "secrets",
        "configmaps",
        "services",
        "deployments",
        "daemonsets",
        "clusterroles",
        "roles",
        "events",
        "clusterrolebindings",
        "rolebindings",
        "serviceaccounts",
        "namespaces",
        "nodes",
        "cronjobs",
        "jobs",
        "ingresses",
        "networkpolicies",
        "persistentvolumes",
        "certificatesigningrequests",
        "endpointslices",
        "leases",
        "tokenreviews",
        "mutatingwebhookconfigurations",
    ];
    const VERBS: [&str; 6] = [
        "verb = 'create'",
        "verb IN ('create', 'update', 'patch')",
        "verb IN ('get', 'list', 'watch')",
        "verb = 'list'",
        "verb IN ('delete', 'deletecollection')",
        "verb IN ('update', 'patch')",
    ];
    let mut conjuncts = match draw.below(10) {
        0..=5 => {
            // The first few are what a third of all detections are about.
            let among = if draw.below(3) == 0 { 5 } else { RESOURCES.len() };
            vec![format!("resource = '{}'", RESOURCES[draw.below(among)]), draw.one_of(&VERBS)]
        }
        6 => vec![
            "resource IN ('pods', 'deployments', 'daemonsets', 'statefulsets', 'jobs', 'cronjobs')".to_owned(),
            "verb IN ('create', 'update', 'patch')".to_owned(),
            match draw.below(4) {
                0 => format!("privileged AND any_image_repository(images, 'tool{}')", index % 50),
                1 => format!("any_container(containers, 'run_as_user', {})", index % 50),
                2 => "any_in(capabilities_added, 'SYS_ADMIN')".to_owned(),
                _ => format!("any_path_within(host_paths, '/etc', '/root', '/x{}')", index % 50),
            },
        ],
        7 => vec![
            "resource IN ('roles', 'clusterroles')".to_owned(),
            "verb IN ('create', 'update', 'patch')".to_owned(),
            match draw.below(3) {
                0 => "rbac_has_wildcard(rules, 'verbs')".to_owned(),
                1 => "rbac_has_verb(rules, 'escalate')".to_owned(),
                _ => format!("rbac_allows(rules, 'get', 'group{}', 'secrets')", index % 50),
            },
        ],
        8 => vec![match draw.below(4) {
            0 => format!("uri LIKE '%command=tool{index}%'"),
            1 => format!("user_agent LIKE 'badtool{index}/%'"),
            2 => "user_agent ~ '^(curl|python-requests|Go-http-client)/'".to_owned(),
            _ => format!("exec_command ~ '(sh|bash|t{}) -c'", index % 100),
        }],
        _ => vec![
            match draw.below(3) {
                0 => format!("user_name = 'user{index}@example.com'"),
                1 => format!("user_name LIKE '%:svc{index}'"),
                _ => "user_name = 'system:anonymous'".to_owned(),
            },
            draw.one_of(&["response_code = 403", "response_code BETWEEN 200 AND 299"]),
        ],
    };
    for _ in 0..=draw.below(3) {
        let further = further(index, draw);
        if !conjuncts.contains(&further) {
            conjuncts.push(further);
        }
    }
    conjuncts.join(" AND ")
}

fn further(index: usize, draw: &mut Draw) -> String {
    match draw.below(16) {
        0 | 1 => "user_name NOT LIKE 'system:%'".to_owned(),
        2 => "user_name NOT LIKE 'system:serviceaccount:kube-system:%'".to_owned(),
        3 => "response_code BETWEEN 200 AND 299".to_owned(),
        4 => "response_code = 403".to_owned(),
        5 => "namespace IN ('kube-system', 'default')".to_owned(),
        6 => "namespace NOT LIKE 'team-%'".to_owned(),
        7 => "subresource = 'exec'".to_owned(),
        8 => "subresource IS NULL".to_owned(),
        9 => format!("name LIKE '%admin{index}%'"),
        10 => format!("uri LIKE '%fieldManager=m{}%'", index % 40),
        11 => format!("uri ~ 'limit=[0-9]+&continue={}'", index % 40),
        12 => format!("NOT (user_name = 'ops{}@example.com' OR user_name = 'root@example.com')", index % 30),
        13 => "any_in(user_groups, 'system:masters')".to_owned(),
        14 => "source_ip NOT LIKE '10.%'".to_owned(),
        _ => "(decision_reason LIKE '%cluster-admin%' OR impersonated_user IS NOT NULL)".to_owned(),
    }
}
