//! What a configuration file may say, and what is said about one that is wrong.

use super::*;
use crate::detection::Status;
use crate::stage::format::Format;

/// The configuration of a file's text.
fn from_text(text: &str) -> Result<Loaded, ConfigError> {
    with(text, &[], &[])
}

fn with(text: &str, environment: &[(&str, &str)], flags: &[(&str, &str, Json)]) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("kubetide.toml");
    std::fs::write(&file, text).expect("it can be written");
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags = flags.iter().map(|(name, key, value)| Flag::new(*name, *key, value.clone())).collect();
    load(&Layers { file: Some(file), environment, flags })
}

/// Each mistake as one text, without the scratch folder's name.
fn mistakes(result: Result<Loaded, ConfigError>) -> Vec<String> {
    let short = |problem: &Problem| {
        let text = problem.to_string();
        text.find("kubetide.toml").map_or(text.clone(), |at| text.get(at..).unwrap_or_default().to_owned())
    };
    match result {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(short).collect(),
        Err(error) => vec![error.to_string()],
        Ok(_) => Vec::new(),
    }
}

const FULL: &str = r#"
alerts = ["-", "kafka://broker:9092/alerts", { env = "CHAT_HOOK" }]
dead_letters = "dead.ndjson"
workers = 3
checkpoint_interval_ms = 2_000

[[sources]]
url = "kafka://broker:9092/audit?group=kubetide"
format = "aks"
cloud = "aks"
topic_cluster_pattern = "^audit-(?<cluster>.+)$"
trusted_proxies = ["10.0.0.0/8", "fd00::/8"]

[[sources]]
url = "http://0.0.0.0:8443/audit"
token = { file = "/run/secrets/token" }

[kafka.properties]
security.protocol = "SASL_SSL"
"sasl.username" = "me"
sasl.password = { file = "/run/secrets/kafka" }
socket.keepalive.enable = true

[batch]
events = 512
age_ms = 0x32

[http]
listen = "0.0.0.0:9464"

[log]
level = "info,kubetide::kafka=debug"
format = "json"
"#;

#[test]
fn every_section_is_read() {
    let Config { sources, alerts, kafka, batch, http, log, workers, .. } = from_text(FULL).expect("it is right").config;
    assert_eq!(sources.len(), 2);
    assert_eq!(sources[0].format, Format::Aks);
    let pattern = sources[0].topic_cluster_pattern.as_ref().expect("it is given");
    assert_eq!(pattern.0.cluster("audit-prod"), Some("prod"));
    assert_eq!(sources[0].trusted_proxies.len(), 2);
    assert_eq!(sources[1].token, Some(Secret::File("/run/secrets/token".into())));
    assert_eq!(alerts[2], Address::Hidden(Secret::Env("CHAT_HOOK".to_owned())));
    let properties: Vec<_> = kafka.properties.iter().collect();
    assert_eq!(
        properties,
        [
            ("sasl.password.file", "/run/secrets/kafka"),
            ("sasl.username", "me"),
            ("security.protocol", "SASL_SSL"),
            ("socket.keepalive.enable", "true"),
        ]
    );
    assert_eq!((batch.events, batch.age_ms, batch.bytes), (512, 50, 4 << 20));
    assert_eq!(http.listen.0.address(false), Some("0.0.0.0:9464".parse().expect("an address")));
    assert_eq!((log.level.0.as_str(), log.format.as_str()), ("info,kubetide::kafka=debug", "json"));
    assert_eq!(workers.map(std::num::NonZeroUsize::get), Some(3));
}

#[test]
fn nothing_at_all_is_the_default() {
    assert_eq!(from_text("").expect("it is right").config, Config::default());
    assert_eq!(load(&Layers::default()).expect("it is right").config, Config::default());
    assert_eq!(Config::default().http.listen.0.address(true), Some(Listen::DEFAULT));
    assert_eq!(Config::default().http.listen.0.address(false), None);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "[batch]\nevents = 1\nbytes = 5000\nage_ms = 1\n";
    let environment = [("KUBETIDE_BATCH__EVENTS", "2"), ("KUBETIDE_BATCH__BYTES", "6000")];
    let loaded = with(file, &environment, &[("--batch", "batch.events", Json::from(3))]).expect("it is right");
    let BatchConfig { events, bytes, age_ms } = loaded.config.batch;
    assert_eq!((events, bytes, age_ms), (3, 6_000, 1));
    let origins: Vec<_> = settings(&loaded)
        .into_iter()
        .filter(|setting| setting.key.starts_with("batch."))
        .map(|setting| (setting.key, setting.origin.rsplit('/').next().unwrap_or_default().to_owned()))
        .collect();
    let expected = [
        ("batch.age_ms", "kubetide.toml:4"),
        ("batch.bytes", "environment KUBETIDE_BATCH__BYTES"),
        ("batch.events", "flag --batch"),
    ];
    assert_eq!(origins, expected.map(|(key, origin)| (key.to_owned(), origin.to_owned())));
}

#[test]
fn the_environment_reaches_lists_tables_and_secrets() {
    let environment = [
        ("KUBETIDE_SOURCES", "kafka://a:1,b:2/audit other.log"),
        ("KUBETIDE_SOURCES__0__CLUSTER", "prod"),
        ("KUBETIDE_SOURCES__1__TOKEN", "hunter2"),
        ("KUBETIDE_ALERTS", r#"["-", { env = "HOOK" }]"#),
        ("KUBETIDE_DETECTIONS__STATUSES", "stable testing"),
        ("KUBETIDE_DETECTIONS__SHIPPED", "false"),
        ("KUBETIDE_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
        ("KUBETIDE_KAFKA__PROPERTIES__SASL_USERNAME", "me"),
        ("KUBETIDE_WORKERS", "2"),
        ("KUBETIDE_SERVICE_HOST", "10.0.0.1"),
        ("KUBETIDE_CONFIG", "kubetide.toml"),
    ];
    let loaded = with("", &environment, &[]).expect("it is right");
    let config = &loaded.config;
    assert_eq!(config.sources[0].url, "kafka://a:1,b:2/audit");
    assert_eq!(config.sources[0].cluster.as_deref(), Some("prod"));
    assert_eq!(config.sources[1].token, Some(Secret::Env("KUBETIDE_SOURCES__1__TOKEN".to_owned())));
    assert_eq!(config.alerts.len(), 2);
    assert_eq!(config.detections.statuses, [Status::Stable, Status::Testing]);
    assert!(!config.detections.shipped);
    let properties: Vec<_> = config.kafka.properties.iter().collect();
    let password = ("sasl.password.env", "KUBETIDE_KAFKA__PROPERTIES__SASL_PASSWORD");
    assert_eq!(properties, [password, ("sasl.username", "me")]);
    assert!(!to_toml(&loaded, true).contains("hunter2"));
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let text = "workers = 0\n[batch]\nevnets = 5\nage_ms = \"soon\"\n[limits]\ndepth = 2\n[log]\nformat = \"jsno\"\nlevel = \"inof\"\n\
                [http]\nlisten = \"nowhere\"\n[[sources]]\nformat = \"aks\"\n[[sources]]\nurl = \"-\"\ntrusted_proxies = [\"10.0.0.0/40\"]\n";
    let environment = [("KUBETIDE_BATCH__AGE", "5"), ("KUBETIDE_LIMIT__DEPTH", "5")];
    let found = mistakes(with(text, &environment, &[("--set nope", "nope", Json::from(1))]));
    let expected = [
        ("kubetide.toml:1:11:", "at least 1"),
        ("kubetide.toml:3:1:", "unknown key `evnets` in `batch`; did you mean `events`?"),
        ("kubetide.toml:4:10:", "`batch.age_ms`: invalid type: string \"soon\""),
        ("kubetide.toml:6:9:", "from 8 to 1024"),
        ("kubetide.toml:8:10:", "did you mean `json`?"),
        ("kubetide.toml:9:9:", "`inof` is no level"),
        ("kubetide.toml:11:10:", "expected `auto`, `off` or an address"),
        ("kubetide.toml:12:1:", "missing field `url`"),
        ("kubetide.toml:16:20:", "`10.0.0.0/40` does not parse"),
        ("environment variable KUBETIDE_BATCH__AGE", "unknown key `age` in `batch`"),
        ("environment variable KUBETIDE_LIMIT__DEPTH", "did you mean `limits`?"),
        ("flag --set nope", "unknown key `nope`"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((place, message), found) in expected.iter().zip(&found) {
        assert!(found.starts_with(place) && found.contains(message), "expected {place} … {message}, found\n{found}");
    }
    assert!(found[1].ends_with("  |\n3 | evnets …\n  | ^^^^^^"), "{}", found[1]);
}

#[test]
fn a_key_of_another_section_is_found() {
    let found = mistakes(from_text("listen = \"off\"\n"));
    assert!(found[0].contains("unknown key `listen` at the top level; did you mean `http.listen`?"), "{found:?}");
}

#[test]
fn broken_toml_is_told_with_its_line() {
    let found = mistakes(from_text("[batch\nevents = 5\n"));
    assert!(found[0].starts_with("kubetide.toml:1:"), "{found:?}");
    let layers = Layers { file: Some("/nonexistent/kubetide.toml".into()), ..Default::default() };
    let error = load(&layers).expect_err("there is no file").to_string();
    assert!(error.starts_with("cannot read the configuration file /nonexistent/kubetide.toml"), "{error}");
}

#[test]
fn a_secret_in_the_open_is_refused_and_not_repeated() {
    for text in [
        "[[sources]]\nurl = \"-\"\ntoken = \"hunter2\"\n",
        "[kafka.properties]\nsasl.password = \"hunter2\"\n",
        "kafka.properties.\"ssl.key.password\" = \"hunter2\"\n",
        "alerts = [{ value = \"hunter2\" }]\n",
        "[[sources]]\nurl = \"-\"\ntoken = { file = \"a\", env = \"hunter2\" }\n",
        "[kafka.properties]\nsasl.password = \"hunter2\n",
        "[[sources]]\nurl = \"-\"\ntokne = \"hunter2\"\n",
        "sources = [{ url = \"-\", token = \"hunter2\", formta = 1 }]\n",
        "dead_letters = [\"hunter2\"]\n",
    ] {
        let found = mistakes(from_text(text));
        assert!(!found.is_empty(), "accepted: {text}");
        assert!(!found.concat().contains("hunter2"), "repeated: {found:#?}");
    }
}

#[test]
fn keys_that_exclude_each_other_are_told() {
    let text =
        "[limits]\nevent_bytes = 4096\ndecompressed_bytes = 2048\n[[sources]]\nurl = \"-\"\ntls_key = \"k.pem\"\n";
    let found = mistakes(from_text(text));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("kubetide.toml:3:22: `limits.decompressed_bytes`"), "{found:?}");
    assert!(found[1].contains("belong together"), "{found:?}");
}

#[test]
fn what_show_prints_can_be_loaded_again() {
    let loaded = from_text(FULL).expect("it is right");
    let printed = to_toml(&loaded, true);
    let again = from_text(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    assert_eq!(again.config, loaded.config);
}

#[test]
fn a_secret_is_read_when_it_is_used() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2\n").expect("it can be written");
    assert_eq!(Secret::File(file).read().expect("it is there"), "hunter2");
    let error = Secret::Env("KUBETIDE_TEST_NOT_SET".to_owned()).read().expect_err("it is not set");
    assert!(error.to_string().contains("KUBETIDE_TEST_NOT_SET"));
}

#[test]
fn generated_files_are_up_to_date() {
    let schema = serde_json::to_string_pretty(&schema()).expect("a schema is JSON") + "\n";
    for (name, text) in [("config.schema.json", schema), ("config.md", reference())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
        if std::env::var_os("KUBETIDE_BLESS").is_some() {
            std::fs::write(&path, &text).expect("the file can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "schemas/{name} is stale: run KUBETIDE_BLESS=1 cargo test --lib config");
    }
}
