//! The configuration: one TOML file, the environment and flags, checked as a whole.
//!
//! [`load`] lays the layers over each other (a flag wins over the environment, that over the file, that over the
//! default), and returns the values with where each came from, or **every** mistake at once: unknown keys with a
//! suggestion, words and numbers that a key does not take, text that does not parse, and secrets that stand in the open.
//! A secret is only ever a reference to a file or an environment variable; nothing here reads it, so nothing can print it.
//!
//! The structs in `shape.rs` are the one description: parser, JSON Schema ([`schema`]), reference ([`reference`]) and
//! `kubetide config show` are made from them, and a test keeps the generated files in `schemas/` true.

mod layers;
mod problem;
mod reference;
mod rules;
mod shape;
mod show;
mod state;
mod tree;
mod values;

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

pub use layers::Flag;
pub use problem::{Problem, Source};
pub use reference::{reference, schema};
pub use shape::{
    BatchConfig, CloudName, Config, DetectionsConfig, ExceptionsConfig, HttpConfig, KafkaConfig, LimitsConfig,
    LogConfig, SourceConfig,
};
pub use show::{Setting, settings, to_toml};
pub use state::{StateAddress, StatePlace, default_folder as default_state_folder};
pub use tree::Origin;
pub use values::{Address, ClusterPattern, Listen, LogFilter, Parsed, Properties, Secret, SecretError};

use rules::{Rules, Violation};
use tree::{Node, Step};

/// What to load.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file, if one is named. There is no default place: a file that is found by chance is a surprise.
    pub file: Option<PathBuf>,
    /// Environment variables; only those that begin with `KUBETIDE_` matter.
    pub environment: Vec<(String, String)>,
    /// In order; a later flag wins.
    pub flags: Vec<Flag>,
}

impl Layers {
    /// The named file and this process's environment. Variables that are not UTF-8 are left out.
    pub fn of_process(file: Option<PathBuf>) -> Layers {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Layers { file, environment, flags: Vec::new() }
    }

    /// Adds a flag.
    pub fn flag(&mut self, name: impl Into<String>, key: impl Into<String>, value: impl Into<Json>) {
        self.flags.push(Flag::new(name, key, value));
    }
}

/// A configuration without mistakes, and where each value came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub(crate) tree: Node,
    pub(crate) source: Option<Source>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let mut lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.push(match problems.len() {
        1 => "the configuration has 1 mistake".to_owned(),
        count => format!("the configuration has {count} mistakes"),
    });
    lines.join("\n")
}

/// Reads and checks all layers.
///
/// # Errors
/// When the file cannot be read, or with every mistake found.
pub fn load(layers: &Layers) -> Result<Loaded, ConfigError> {
    let source = layers.file.as_deref().map(read).transpose()?;
    let mut root = match &source {
        Some(source) => parse(source).map_err(ConfigError::Invalid)?,
        None => Node::root(),
    };
    let rules = Rules::new();
    let mut problems: Vec<Problem> = Vec::new();
    let misnamed = layers::environment(&mut root, &rules, &layers.environment).into_iter().chain(layers::flags(
        &mut root,
        &rules,
        &layers.flags,
    ));
    problems.extend(misnamed.map(|wrong| {
        let message = wrong.message;
        Problem::new(&wrong.origin, message, wrong.help, source.as_ref(), false)
    }));
    let tree = root.clone();
    let found = rules.violations(&root);
    // Backwards, so that taking an element out of a list does not move those still to be taken.
    for violation in found.iter().rev() {
        root.remove(&violation.path);
    }
    problems.extend(found.into_iter().map(|violation| shown(violation, &tree, source.as_ref())));
    let config = read_values(&mut root, source.as_ref(), &mut problems);
    problems.extend(
        conflicts(&config)
            .into_iter()
            .map(|(path, message)| Problem::new(&tree.nearest(&path).origin, message, None, source.as_ref(), false)),
    );
    if problems.is_empty() {
        return Ok(Loaded { config, tree, source });
    }
    problems.sort_by_key(|problem| match &problem.origin {
        Origin::File(span) => (0, span.start),
        Origin::Default => (1, 0),
        Origin::Environment(_) => (2, 0),
        Origin::Flag(_) => (3, 0),
    });
    Err(ConfigError::Invalid(problems))
}

fn read(path: &Path) -> Result<Source, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Source { path: path.to_owned(), text }),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

fn parse(source: &Source) -> Result<Node, Vec<Problem>> {
    let (table, errors) = toml::de::DeTable::parse_recoverable(&source.text);
    if errors.is_empty() {
        return Ok(Node::from_toml(&table));
    }
    let problem = |error: &toml::de::Error| {
        let origin = Origin::File(error.span().unwrap_or(0..0));
        // The file does not parse, so nobody knows whether the line holds a secret.
        Problem::new(&origin, error.message().to_owned(), None, Some(source), true)
    };
    Err(errors.iter().map(problem).collect())
}

fn shown(violation: Violation, tree: &Node, source: Option<&Source>) -> Problem {
    let node = tree.nearest(&violation.path);
    let origin = if violation.about_key { &node.key } else { &node.origin };
    Problem::new(origin, violation.message, violation.help, source, false)
}

/// Turns the tree into values. A value that does not fit is told, taken out, and the rest is tried again, so that one
/// mistake does not hide the next.
fn read_values(root: &mut Node, source: Option<&Source>, problems: &mut Vec<Problem>) -> Config {
    const MISTAKES_MAX: usize = 50;
    for _ in 0..MISTAKES_MAX {
        let error = match serde_path_to_error::deserialize::<_, Config>(root.to_json()) {
            Ok(config) => return config,
            Err(error) => error,
        };
        let path = steps(error.path());
        let node = root.nearest(&path);
        let key = tree::display(&path);
        let hide = may_be_secret(&path);
        let message = if key.is_empty() { error.inner().to_string() } else { format!("`{key}`: {}", error.inner()) };
        problems.push(Problem::new(&node.origin, message, None, source, hide));
        if root.remove(&path).is_none() {
            break;
        }
    }
    Config::default()
}

/// Whether the value at a path may be a secret that somebody wrote in the open.
fn may_be_secret(path: &[Step]) -> bool {
    let names = |name: &str| path.iter().any(|step| matches!(step, Step::Key(key) if key == name));
    names("token") || names("properties") || names("alerts") || names("dead_letters")
}

fn steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// Values that are fine each by itself and wrong together.
fn conflicts(config: &Config) -> Vec<(Vec<Step>, String)> {
    let key = |name: &str| Step::Key(name.to_owned());
    let mut found = Vec::new();
    let limits = &config.limits;
    if limits.decompressed_bytes < limits.event_bytes {
        let message = format!(
            "`limits.decompressed_bytes` ({}) is less than `limits.event_bytes` ({}): a compressed event could never be read",
            limits.decompressed_bytes, limits.event_bytes
        );
        found.push((vec![key("limits"), key("decompressed_bytes")], message));
    }
    for (index, source) in config.sources.iter().enumerate() {
        let place = vec![key("sources"), Step::Index(index)];
        if source.tls_certificate.is_some() != source.tls_key.is_some() {
            found
                .push((place.clone(), "`tls_certificate` and `tls_key` belong together; give both or none".to_owned()));
        }
        if source.url.trim().is_empty() {
            found.push((place, "`url` is empty; give a path, `-`, a kafka:// or an http:// address".to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests;
