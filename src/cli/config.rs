//! `kubetide config`: what is in force, where it comes from, and whether it is right.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::config::{self, Layers, Loaded};

/// The options by which every command that reads a configuration is told which.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "KUBETIDE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set one key, such as `batch.age_ms=50`; wins over the file and the environment
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// File, environment and `--set`; commands add their own flags with [`Layers::flag`].
    ///
    /// # Errors
    /// When a `--set` has no `=`.
    pub fn layers(&self) -> anyhow::Result<Layers> {
        let mut layers = Layers::of_process(self.config.clone());
        for text in &self.set {
            let (key, value) = text
                .split_once('=')
                .with_context(|| format!("--set {text}: expected KEY=VALUE, as in batch.age_ms=50"))?;
            layers.flag(format!("--set {key}"), key.trim(), value);
        }
        Ok(layers)
    }
}

/// Show or check the configuration
#[derive(Debug, clap::Args)]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the configuration in force, as TOML; secrets are shown by where they are
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// Say for each value where it comes from
        #[arg(long)]
        origin: bool,
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Check the configuration and print every mistake
    Check {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print the reference of all keys, environment variables and defaults
    Keys,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// TOML that can be used as a configuration file
    Text,
    /// An array of key, value and origin
    Json,
}

/// Runs the command; data goes to `out`.
///
/// # Errors
/// Mistakes in the configuration (exit code 3), or when `out` cannot be written.
pub fn run(command: &ConfigCommand, out: &mut impl Write) -> anyhow::Result<()> {
    match &command.action {
        Action::Show { config, origin, format } => show(&config::load(&config.layers()?)?, *origin, *format, out),
        Action::Check { config } => {
            let loaded = config::load(&config.layers()?)?;
            let (sources, alerts) = (loaded.config.sources.len(), loaded.config.alerts.len());
            writeln!(out, "configuration is right: {sources} sources, {alerts} alert sinks")?;
            Ok(())
        }
        Action::Keys => Ok(out.write_all(config::reference().as_bytes())?),
    }
}

fn show(loaded: &Loaded, origin: bool, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    match format {
        Format::Text => out.write_all(config::to_toml(loaded, origin).as_bytes())?,
        Format::Json => {
            let settings = config::settings(loaded);
            let settings: Vec<serde_json::Value> = settings
                .into_iter()
                .map(|setting| match origin {
                    true => serde_json::json!({"key": setting.key, "value": setting.value, "origin": setting.origin}),
                    false => serde_json::json!({"key": setting.key, "value": setting.value}),
                })
                .collect();
            serde_json::to_writer_pretty(&mut *out, &settings)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        command: ConfigCommand,
    }

    fn run_line(words: &[&str]) -> anyhow::Result<String> {
        let line = Line::try_parse_from(std::iter::once("config").chain(words.iter().copied()))?;
        let mut out = Vec::new();
        run(&line.command, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn show_gives_values_and_their_origins() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let file = folder.path().join("kubetide.toml");
        std::fs::write(&file, "[batch]\nevents = 512\n").expect("it can be written");
        let file = file.to_str().expect("UTF-8");
        let text = run_line(&["show", "--origin", "--config", file, "--set", "batch.age_ms=50"]).expect("it is right");
        let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        assert!(line("batch.events = 512").ends_with("kubetide.toml:2"), "{text}");
        assert!(line("batch.age_ms = 50").ends_with("# flag --set batch.age_ms"), "{text}");
        assert!(line("limits.depth = 128").ends_with("# default"), "{text}");
        let json = run_line(&["show", "--format", "json", "--config", file]).expect("it is right");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert!(json.as_array().is_some_and(|all| all.iter().any(|one| one["key"] == "batch.events")), "{json}");
    }

    #[test]
    fn check_tells_every_mistake() {
        let error =
            run_line(&["check", "--set", "batch.evnets=1", "--set", "limits.depth=2"]).expect_err("two mistakes");
        let text = error.to_string();
        assert!(text.contains("did you mean `events`?") && text.contains("from 8 to 1024"), "{text}");
        assert!(run_line(&["check", "--set", "batch"]).expect_err("no value").to_string().contains("KEY=VALUE"));
    }
}
