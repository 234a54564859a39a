//! What is linked keeps to `deny.toml`: licences, sources, and no second version of what is heavy.
//!
//! `cargo deny` says the same and knows advisories too, for every platform, but takes minutes to build; this needs
//! nothing but cargo.

use std::collections::{BTreeMap, BTreeSet};

struct Package {
    name: String,
    version: String,
    license: String,
    source: Option<String>,
}

/// The platform that we run on: crates for other platforms are not downloaded, so nothing is known about them here.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

fn packages() -> Vec<Package> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let text = |package: &serde_json::Value, key: &str| package[key].as_str().map(str::to_owned);
    let all = metadata["packages"].as_array().expect("metadata lists packages");
    all.iter()
        .map(|package| Package {
            name: text(package, "name").expect("a package has a name"),
            version: text(package, "version").expect("a package has a version"),
            license: text(package, "license").unwrap_or_default(),
            source: text(package, "source"),
        })
        .collect()
}

fn rules() -> toml::Table {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml")).expect("deny.toml is there");
    toml::from_str(&text).expect("deny.toml is TOML")
}

/// Whether an SPDX expression can be met by the allowed licences. `/` is how old crates write OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (met, rest) = either(&words, allowed);
    met && rest.is_empty()
}

fn either<'a>(words: &'a [&'a str], allowed: &BTreeSet<&str>) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = both(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (next, after) = both(more, allowed);
        (met, rest) = (met | next, after);
    }
    (met, rest)
}

fn both<'a>(words: &'a [&'a str], allowed: &BTreeSet<&str>) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = one(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (next, after) = one(more, allowed);
        (met, rest) = (met & next, after);
    }
    (met, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &BTreeSet<&str>) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => {
            let (met, rest) = either(inner, allowed);
            match rest {
                [")", rest @ ..] => (met, rest),
                rest => (false, rest),
            }
        }
        [name, "WITH", exception, rest @ ..] => (allowed.contains(format!("{name} WITH {exception}").as_str()), rest),
        [name, rest @ ..] => (allowed.contains(name), rest),
        [] => (false, words),
    }
}

#[test]
fn licences_are_read_as_expressions() {
    let allowed = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]);
    for yes in ["MIT", "GPL-3.0 OR MIT", "Apache-2.0/MIT", "(GPL-3.0 OR MIT) AND ISC", "Apache-2.0 WITH LLVM-exception"]
    {
        assert!(is_allowed(yes, &allowed), "{yes}");
    }
    for no in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "Apache-2.0", "MIT MIT"] {
        assert!(!is_allowed(no, &allowed), "{no}");
    }
}

#[test]
fn licences_and_sources_are_allowed() {
    let rules = rules();
    let list = |section: &str, key: &str| rules[section][key].as_array().expect("a list").clone();
    let licences = list("licenses", "allow");
    let licences: BTreeSet<&str> = licences.iter().filter_map(toml::Value::as_str).collect();
    let registries = list("sources", "allow-registry");
    let registries: BTreeSet<String> =
        registries.iter().filter_map(toml::Value::as_str).map(|url| format!("registry+{url}")).collect();
    let mut wrong = Vec::new();
    for Package { name, version, license, source } in packages() {
        if !is_allowed(&license, &licences) {
            wrong.push(format!("{name} {version}: licence `{license}` is not allowed by deny.toml"));
        }
        if source.as_ref().is_some_and(|source| !registries.contains(source)) {
            wrong.push(format!("{name} {version}: comes from {source:?}, which deny.toml does not allow"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn heavy_crates_are_there_once_and_banned_ones_not_at_all() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        versions.entry(package.name).or_default().insert(package.version);
    }
    let rules = rules();
    let mut wrong = Vec::new();
    for ban in rules["bans"]["deny"].as_array().expect("a list") {
        let name = ban["crate"].as_str().expect("a ban names a crate");
        let once = ban.get("deny-multiple-versions").and_then(toml::Value::as_bool).unwrap_or(false);
        let found = versions.get(name).map_or(0, BTreeSet::len);
        if found > usize::from(once) {
            wrong.push(format!("{name}: {:?}, but {}", versions[name], ban["reason"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
