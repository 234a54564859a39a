//! `kubetide state`: looks inside what outlives a run. Nothing here writes, so it is safe beside a process that runs.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::config::ConfigArgs;
use super::exit::Failure;
use crate::config::{self, StatePlace};
use crate::model::{cell, time_text};
use crate::state::{
    Damage, Manifest, PartRecord, Report, Scope, StateError, StateStore, Table, check, inspect, tables_of,
};

/// Rows of a table that `show` prints.
const ROWS_MAX: usize = 10;

/// Look inside the state that outlives a run
#[derive(Debug, clap::Args)]
pub struct StateCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the epochs: when each was written, its event time, its size, the positions that it covers
    Ls(Common),
    /// What each detection remembers in each cluster; with a DETECTION the first rows of its tables
    Show {
        /// Id of a detection, or a shared part such as `findings`
        #[arg(value_name = "DETECTION")]
        detection: Option<String>,
        /// Only in this cluster
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// This epoch, not the newest one
        #[arg(long, value_name = "NUMBER")]
        epoch: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// Read everything and check it: checksums, references, the chain of epochs, positions that go back
    Verify(Common),
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Where the state is: a directory or an address (default: the configuration's)
    #[arg(long, value_name = "URL")]
    state: Option<String>,
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Human,
    Json,
}

/// Runs the command; data goes to `out`.
///
/// # Errors
/// Exit code 2 where the state is damaged or has no such part, 3 where it cannot be reached.
pub fn run(command: &StateCommand, out: &mut impl std::io::Write) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(format!("cannot start: {error}")))?;
    let common = match &command.action {
        Action::Ls(common) | Action::Verify(common) | Action::Show { common, .. } => common,
    };
    let store = open(common)?;
    let (text, code) = runtime.block_on(async {
        match &command.action {
            Action::Ls(_) => list(&store, common.format).await.map(|text| (text, ExitCode::SUCCESS)),
            Action::Verify(_) => verify(&store, common.format).await,
            Action::Show { detection, cluster, epoch, .. } => {
                let text = match detection {
                    None => overview(&store, *epoch, cluster.as_deref(), common.format).await?,
                    Some(name) => details(&store, *epoch, name, cluster.as_deref(), common.format).await?,
                };
                Ok((text, ExitCode::SUCCESS))
            }
        }
    })?;
    // A reader that went away needs no answer.
    out.write_all(text.as_bytes()).ok();
    Ok(code)
}

fn open(common: &Common) -> Result<StateStore, Failure> {
    let mut layers = common.config.layers()?;
    if let Some(state) = &common.state {
        layers.flag("--state", "state", state.as_str());
    }
    let config = config::load(&layers)?.config;
    let environment = |name: &str| std::env::var(name).ok();
    let address = match config.state_place(environment) {
        StatePlace::Given(address) => address,
        StatePlace::Default(path) => path.display().to_string(),
        StatePlace::Nowhere => match config::default_state_folder(environment) {
            Some(path) if path.is_dir() && config.state.is_none() => path.display().to_string(),
            _ => return Err(Failure::environment("no state is kept: name its place with --state, or set `state`")),
        },
    };
    Ok(StateStore::open_existing(&address)?)
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Failure {
        Failure::environment(error.to_string())
    }
}

async fn list(store: &StateStore, format: Format) -> Result<String, Failure> {
    let epochs = inspect(store).await?;
    if format == Format::Json {
        let all: Vec<Value> = epochs.iter().map(|(epoch, manifest)| epoch_json(*epoch, manifest)).collect();
        return Ok(pretty(&json!({ "place": store.place(), "epochs": all })));
    }
    let mut text = format!("{}\n", store.place());
    let newest = epochs.iter().find_map(|(_, manifest)| manifest.as_ref().ok()?.newest_us());
    for (epoch, manifest) in &epochs {
        match manifest {
            Ok(manifest) => text.push_str(&epoch_text(manifest, newest)),
            Err(damage) => text.push_str(&format!("\nepoch {epoch}  damaged: {}\n", damage.reason)),
        }
    }
    Ok(text)
}

fn epoch_text(manifest: &Manifest, newest: Option<i64>) -> String {
    let mut text = format!(
        "\nepoch {}  {}  {} parts  {}  written {} by {}\n",
        manifest.epoch,
        events_until(manifest, newest),
        manifest.parts.len(),
        bytes(manifest.bytes()),
        time_text(manifest.written_ms.saturating_mul(1000)),
        manifest.owner,
    );
    for (source, lanes) in &manifest.positions {
        let lanes: Vec<String> = lanes.iter().map(|(lane, next)| format!("{lane} {next}")).collect();
        text.push_str(&format!("  {source}: {}\n", lanes.join(", ")));
    }
    text
}

/// How far an epoch is in event time, and how far behind the newest.
fn events_until(manifest: &Manifest, newest: Option<i64>) -> String {
    let Some(until) = manifest.newest_us() else { return "no events".to_owned() };
    let behind = newest.unwrap_or(until).saturating_sub(until) / 1_000_000;
    match behind {
        0 => format!("events until {}", time_text(until)),
        seconds => format!("events until {} ({seconds} s before the newest)", time_text(until)),
    }
}

fn epoch_json(epoch: u64, manifest: &Result<Manifest, Damage>) -> Value {
    match manifest {
        Err(damage) => json!({ "epoch": epoch, "damaged": damage.reason }),
        Ok(manifest) => json!({
            "epoch": epoch,
            "previous": manifest.previous,
            "owner": manifest.owner,
            "generation": manifest.generation,
            "quarantined": manifest.quarantined,
            "versions": manifest.versions,
            "written_at": time_text(manifest.written_ms.saturating_mul(1000)),
            "events_until": manifest.newest_us().map(time_text),
            "parts": manifest.parts.len(),
            "bytes": manifest.bytes(),
            "positions": manifest.positions,
        }),
    }
}

/// The manifest of an epoch, or the newest that can be read.
async fn manifest(store: &StateStore, epoch: Option<u64>) -> Result<Manifest, Failure> {
    let mut epochs = inspect(store).await?;
    let known: Vec<String> = epochs.iter().map(|(epoch, _)| epoch.to_string()).collect();
    if let Some(wanted) = epoch {
        epochs.retain(|(epoch, _)| *epoch == wanted);
    }
    let Some(_) = epochs.first() else {
        let wanted = epoch.unwrap_or_default();
        return Err(Failure::rules(format!("there is no epoch {wanted}; there are {}", known.join(", "))));
    };
    let mut reason = String::new();
    for (_, manifest) in epochs {
        match manifest {
            Ok(manifest) => return Ok(manifest),
            Err(damage) => reason = damage.to_string(),
        }
    }
    Err(Failure::rules(reason))
}

fn kind_of(part: &PartRecord) -> &str {
    match part.key.scope {
        Scope::Detection(_) => &part.kind,
        Scope::Shared(_) => "shared",
    }
}

async fn overview(
    store: &StateStore,
    epoch: Option<u64>,
    cluster: Option<&str>,
    format: Format,
) -> Result<String, Failure> {
    let manifest = manifest(store, epoch).await?;
    let parts: Vec<&PartRecord> =
        manifest.parts.iter().filter(|part| cluster.is_none() || part.key.cluster.as_deref() == cluster).collect();
    let clusters = manifest.clusters.iter().filter(|(name, _)| cluster.is_none_or(|cluster| cluster == *name));
    if format == Format::Json {
        let parts: Vec<Value> = parts.iter().map(|part| part_json(part)).collect();
        let clusters: serde_json::Map<String, Value> =
            clusters.map(|(name, clock)| (name.clone(), json!(clock))).collect();
        return Ok(pretty(&json!({ "epoch": manifest.epoch, "clusters": clusters, "parts": parts })));
    }
    let mut lines = vec![["detection", "cluster", "kind", "rows", "keys", "size"].map(str::to_owned)];
    for part in &parts {
        lines.push([
            part.key.name().to_owned(),
            part.key.cluster.clone().unwrap_or_else(|| "-".to_owned()),
            kind_of(part).to_owned(),
            part.rows.to_string(),
            part.keys.to_string(),
            bytes(part.bytes()),
        ]);
    }
    let mut text = format!("epoch {} of {}\n\n{}\n", manifest.epoch, store.place(), columns(&lines));
    for (name, clock) in clusters {
        let watermark = clock.watermark_us.map_or_else(|| "none yet".to_owned(), time_text);
        text.push_str(&format!(
            "{name}: watermark {watermark}, {} lanes\n",
            clock.lanes.values().map(|lanes| lanes.len()).sum::<usize>()
        ));
    }
    Ok(text)
}

fn part_json(part: &PartRecord) -> Value {
    let tables: Vec<Value> = part
        .files
        .iter()
        .map(|file| json!({ "table": file.table, "rows": file.rows, "bytes": file.bytes, "checksum": file.checksum }))
        .collect();
    let shared = matches!(part.key.scope, Scope::Shared(_));
    json!({
        (if shared { "shared" } else { "detection" }): part.key.name(),
        "cluster": part.key.cluster,
        "kind": part.kind,
        "fingerprint": part.fingerprint,
        "rows": part.rows,
        "keys": part.keys,
        "bytes": part.bytes(),
        "tables": tables,
    })
}

async fn details(
    store: &StateStore,
    epoch: Option<u64>,
    name: &str,
    cluster: Option<&str>,
    format: Format,
) -> Result<String, Failure> {
    let manifest = manifest(store, epoch).await?;
    let named: Vec<&PartRecord> = manifest.parts.iter().filter(|part| part.key.name() == name).collect();
    if named.is_empty() {
        let known: std::collections::BTreeSet<&str> = manifest.parts.iter().map(|part| part.key.name()).collect();
        let known: Vec<&str> = known.into_iter().collect();
        let help = crate::options::unknown("part", name, &known);
        return Err(Failure::rules(format!("epoch {} holds nothing of it: {help}", manifest.epoch)));
    }
    let parts: Vec<&PartRecord> =
        named.iter().copied().filter(|part| cluster.is_none() || part.key.cluster.as_deref() == cluster).collect();
    if parts.is_empty() {
        let known: Vec<&str> = named.iter().filter_map(|part| part.key.cluster.as_deref()).collect();
        let help = crate::options::unknown("cluster", cluster.unwrap_or_default(), &known);
        return Err(Failure::rules(format!("{name}: {help}")));
    }
    let mut text = String::new();
    let mut all = Vec::new();
    for part in parts {
        let tables = tables_of(store, &manifest, part).await?.map_err(Failure::rules)?;
        match format {
            Format::Json => {
                let tables: Vec<Value> = tables.iter().map(table_json).collect();
                all.push(json!({ "part": part_json(part), "heads": tables }));
            }
            Format::Human => {
                text.push_str(&format!("{}: {}, fingerprint {}\n", part.key, part.kind, part.fingerprint));
                tables.iter().for_each(|table| text.push_str(&table_text(table)));
                text.push('\n');
            }
        }
    }
    Ok(if format == Format::Json { pretty(&Value::Array(all)) } else { text })
}

/// A cell as people read it: a number whose column is named after microseconds is a time.
fn shown(name: &str, column: &arrow::array::ArrayRef, row: usize) -> Value {
    match cell(column, row) {
        Value::Number(number) if name.ends_with("_us") => {
            number.as_i64().map_or(Value::Number(number), |us| time_text(us).into())
        }
        value => value,
    }
}

fn heads((_, table): &Table) -> Vec<Vec<(String, Value)>> {
    let schema = table.schema();
    let names = || schema.fields().iter().map(|field| field.name().clone());
    let row =
        |row| names().zip(table.columns()).map(|(name, column)| (name.clone(), shown(&name, column, row))).collect();
    (0..table.num_rows().min(ROWS_MAX)).map(row).collect()
}

fn table_json(table: &Table) -> Value {
    let rows: Vec<Value> = heads(table).into_iter().map(|row| row.into_iter().collect()).collect();
    json!({ "table": table.0, "rows": table.1.num_rows(), "head": rows })
}

fn table_text(table: &Table) -> String {
    let rows = table.1.num_rows();
    let mut text = format!("\n  {} ({rows} rows)\n", table.0);
    for row in heads(table) {
        let cells = row.into_iter().map(|(name, value)| match value {
            Value::String(value) => format!("{name}={value}"),
            value => format!("{name}={value}"),
        });
        text.push_str(&format!("    {}\n", cells.collect::<Vec<_>>().join("  ")));
    }
    if rows > ROWS_MAX {
        text.push_str(&format!("    … and {} more\n", rows - ROWS_MAX));
    }
    text
}

async fn verify(store: &StateStore, format: Format) -> Result<(String, ExitCode), Failure> {
    let Report { epochs, tables, bytes: size, damages } = check(store).await?;
    let code = if damages.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) };
    if format == Format::Json {
        let damages: Vec<Value> = damages.iter().map(|d| json!({ "epoch": d.epoch, "reason": d.reason })).collect();
        return Ok((pretty(&json!({ "epochs": epochs, "tables": tables, "bytes": size, "damages": damages })), code));
    }
    let mut text: String = damages.iter().map(|damage| format!("{damage}\n")).collect();
    let verdict = match damages.len() {
        0 => "whole".to_owned(),
        1 => "1 thing is damaged".to_owned(),
        count => format!("{count} things are damaged"),
    };
    text.push_str(&format!("{epochs} epochs, {tables} tables, {} read: {verdict}\n", bytes(size)));
    Ok((text, code))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// Lines of cells, padded so that columns stand below each other.
fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |line: &[String; N]| {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
