//! `kubetide coverage`: which techniques the enabled detections cover, and what each log and audit level takes away.
//!
//! One [`Report`] is computed and then written as a Navigator layer, Markdown, HTML or JSON.

mod html;
mod navigator;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;

use super::exit::Failure;
use super::pack::load_pack;
use crate::detection::coverage::{Cell, DataNeed, FEEDS, Feed, SELF_MANAGED, Sight, Target, cells, gaps};
use crate::detection::{ATTACK_VERSION, Detection, Status};
use crate::model::Level;

/// Show which ATT&CK techniques are covered, and what each log and audit level takes away
#[derive(Debug, clap::Args)]
pub struct CoverageArgs {
    /// Further detections: files or directories (repeatable)
    #[arg(long, value_name = "PATH")]
    detections: Vec<PathBuf>,
    /// Leave out the detections that ship with the program
    #[arg(long)]
    no_shipped: bool,
    /// Maturities that count as enabled
    #[arg(long, value_parser = statuses(), value_name = "STATUS", value_delimiter = ',', default_value = "stable")]
    status: Vec<Status>,
    /// Count only what this log lets through: self-managed, eks, aks, aks-admin, gke or gke-admin
    #[arg(long, value_name = "LOG", value_parser = Feed::by_name)]
    cloud: Option<&'static Feed>,
    /// Count only what works where the audit policy logs at this level
    #[arg(long, value_enum)]
    level: Option<AuditLevel>,
    #[arg(long, value_enum, default_value = "markdown")]
    format: Format,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What must be covered: a technique, or tactic/technique, a line (default: the Containers matrix)
    #[arg(long, value_name = "FILE")]
    targets: Option<PathBuf>,
    /// Exit with 1 when something that must be covered is not
    #[arg(long)]
    fail_on_gaps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Layer 4.5 of the ATT&CK Navigator
    Navigator,
    Markdown,
    Html,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum AuditLevel {
    Metadata,
    Request,
}

/// The maturities by the words of detection files.
fn statuses() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::ALL.map(Status::as_str))
        .try_map(|word| Status::ALL.into_iter().find(|status| status.as_str() == word).ok_or("no status"))
}

/// Writes the report; exit code 1 where gaps are not tolerated and there are some.
///
/// # Errors
/// Exit code 2 where detections or targets are wrong, 3 where a file cannot be read or written.
pub fn run(args: &CoverageArgs) -> Result<ExitCode, Failure> {
    let targets = match &args.targets {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::environment(format!("cannot read {}: {error}", path.display())))?;
            Target::read(&text).map_err(|error| Failure::rules(format!("{}: {error}", path.display())))?
        }
        None => Target::containers(),
    };
    let set =
        load_pack(!args.no_shipped, &args.detections)?.select(|detection| args.status.contains(&detection.status));
    let level = match args.level {
        Some(AuditLevel::Metadata) => Level::Metadata,
        Some(AuditLevel::Request) | None => Level::Request,
    };
    let report = Report::new(&set.detections, args.cloud.unwrap_or(SELF_MANAGED), level, &targets);
    let text = match args.format {
        Format::Navigator => navigator::layer(&report),
        Format::Markdown => markdown(&report),
        Format::Html => html::page(&report),
        Format::Json => as_json(&report),
    };
    match &args.out {
        Some(path) => std::fs::write(path, text)
            .map_err(|error| Failure::environment(format!("cannot write {}: {error}", path.display())))?,
        None => {
            use std::io::Write as _;
            // A reader that went away needs no answer.
            let _ = std::io::stdout().write_all(text.as_bytes());
        }
    }
    if args.fail_on_gaps && !report.gaps.is_empty() {
        let names: Vec<String> = report.gaps.iter().map(gap_text).collect();
        anstream::eprintln!("{} of {} targets are not covered: {}", names.len(), targets.len(), names.join(", "));
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that any format tells.
struct Report {
    feed: &'static Feed,
    level: Level,
    /// All that are enabled.
    enabled: Vec<Arc<Detection>>,
    /// Those that can fire on the chosen log at the chosen level, by cell.
    cells: Vec<Cell>,
    gaps: Vec<Target>,
    targets: usize,
    losses: Vec<Loss>,
}

/// What one log at one audit level takes away.
struct Loss {
    feed: &'static Feed,
    level: Level,
    blind: Vec<Arc<Detection>>,
    partial: Vec<Arc<Detection>>,
    /// Techniques that lose their last detection.
    gaps: Vec<Target>,
}

impl Loss {
    fn any(&self) -> bool {
        !self.blind.is_empty() || !self.partial.is_empty()
    }

    /// The detections that suffer, under a heading each.
    fn parts(&self) -> impl Iterator<Item = (&'static str, &[Arc<Detection>])> {
        let parts = [("Can never fire", self.blind.as_slice()), ("See less", self.partial.as_slice())];
        parts.into_iter().filter(|(_, detections)| !detections.is_empty())
    }
}

impl Report {
    fn new(enabled: &[Arc<Detection>], feed: &'static Feed, level: Level, targets: &[Target]) -> Report {
        let covered = cells(&seeing(enabled, feed, level));
        let reachable: Vec<Target> = {
            let everything = cells(enabled);
            let never = gaps(targets, &everything);
            let is_never = |target: &Target| never.iter().any(|gap| gap_text(gap) == gap_text(target));
            targets.iter().filter(|target| !is_never(target)).copied().collect()
        };
        let mut losses = Vec::new();
        for level in [Level::Request, Level::Metadata] {
            for feed in FEEDS {
                let with = |wanted: Sight| -> Vec<Arc<Detection>> {
                    enabled.iter().filter(|detection| feed.sight(detection, level) == wanted).cloned().collect()
                };
                let gaps = gaps(&reachable, &cells(&seeing(enabled, feed, level)));
                losses.push(Loss { feed, level, blind: with(Sight::Blind), partial: with(Sight::Partial), gaps });
            }
        }
        Report {
            feed,
            level,
            enabled: enabled.to_vec(),
            gaps: gaps(targets, &covered),
            cells: covered,
            targets: targets.len(),
            losses,
        }
    }

    /// The cells of one tactic after the other.
    fn by_tactic(&self) -> impl Iterator<Item = &[Cell]> {
        self.cells.chunk_by(|left, right| left.tactic.id == right.tactic.id)
    }

    fn seen(&self) -> usize {
        seeing(&self.enabled, self.feed, self.level).len()
    }

    /// What the numbers are about, as a sentence.
    fn scope(&self) -> String {
        format!(
            "{} of {} enabled detections can fire on this log: {}, audit level {}. {} of {} targets are covered.",
            self.seen(),
            self.enabled.len(),
            self.feed.title,
            level_text(self.level),
            self.targets - self.gaps.len(),
            self.targets
        )
    }
}

fn seeing(enabled: &[Arc<Detection>], feed: &Feed, level: Level) -> Vec<Arc<Detection>> {
    enabled.iter().filter(|detection| feed.sight(detection, level) < Sight::Blind).cloned().collect()
}

fn level_text(level: Level) -> &'static str {
    match level {
        Level::Metadata => "Metadata",
        Level::Request => "Request or RequestResponse",
    }
}

fn gap_text(gap: &Target) -> String {
    match gap.tactic {
        Some(tactic) => format!("{}/{} {}", tactic.id, gap.technique.id, gap.technique.name),
        None => format!("{} {}", gap.technique.id, gap.technique.name),
    }
}

fn ids(detections: &[Arc<Detection>]) -> Vec<&str> {
    detections.iter().map(|detection| &*detection.id).collect()
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn markdown(report: &Report) -> String {
    let mut out = format!("# Coverage of ATT&CK v{ATTACK_VERSION} for Containers\n\n{}\n", report.scope());
    out.push_str("A detection of a sub-technique covers its parent too. Bars show the number of detections.\n");
    for column in report.by_tactic() {
        let Some(first) = column.first() else { continue };
        let _ = write!(
            out,
            "\n## {} {}\n\n| technique | detections | |\n|---|---|---|\n",
            first.tactic.id, first.tactic.name
        );
        for cell in column {
            let count = cell.count();
            let bar = if count == 0 { "none".to_owned() } else { "█".repeat(count.min(20)) };
            let mut names: Vec<String> = ids(&cell.direct).iter().map(|id| format!("`{id}`")).collect();
            if !cell.through.is_empty() {
                names.push(format!("{} by sub-techniques", cell.through.len()));
            }
            let _ = writeln!(
                out,
                "| {} {} | {count} {bar} | {} |",
                cell.technique.id,
                cell.technique.name,
                names.join(", ")
            );
        }
    }
    out.push_str("\n## Gaps\n\n");
    if report.gaps.is_empty() {
        out.push_str("None.\n");
    }
    report.gaps.iter().for_each(|gap| out.push_str(&format!("- {}\n", gap_text(gap))));
    out.push_str("\n## What each log takes away\n\n");
    out.push_str("*Blind* can never fire there; *partial* misses some of what it looks for, or cannot tell some look-alikes apart.\n\n");
    out.push_str("| log | audit level | full | partial | blind | techniques lost |\n|---|---|---|---|---|---|\n");
    for loss in &report.losses {
        let full = report.enabled.len() - loss.blind.len() - loss.partial.len();
        let lost: Vec<&str> = loss.gaps.iter().map(|gap| gap.technique.id.as_str()).collect();
        let _ = writeln!(
            out,
            "| {} | {} | {full} | {} | {} | {} |",
            loss.feed.title,
            level_text(loss.level),
            loss.partial.len(),
            loss.blind.len(),
            lost.join(", ")
        );
    }
    for loss in report.losses.iter().filter(|loss| loss.any()) {
        let _ = write!(out, "\n### {}\n\n{}\n", loss_heading(loss), loss.feed.note);
        for (heading, detections) in loss.parts() {
            let _ = write!(out, "\n{heading}:\n\n");
            for detection in detections {
                let _ = writeln!(out, "- `{}`: {}", detection.id, loss.feed.limits(detection, loss.level));
            }
        }
    }
    out
}

/// `AKS, kube-audit-admin at level Request or RequestResponse: you lose 12 detections, and 3 see less`.
fn loss_heading(loss: &Loss) -> String {
    let lost = plural(loss.blind.len(), "detection");
    let (title, level) = (loss.feed.title, level_text(loss.level));
    format!("{title} at level {level}: you lose {lost}, and {} see less", loss.partial.len())
}

fn as_json(report: &Report) -> String {
    let gap = |gap: &Target| {
        json!({
            "tactic": gap.tactic.map(|tactic| tactic.id.as_str()),
            "technique": gap.technique.id,
            "name": gap.technique.name,
        })
    };
    let list = |gaps: &[Target]| gaps.iter().map(gap).collect::<Vec<_>>();
    let techniques: Vec<_> = report
        .cells
        .iter()
        .map(|cell| {
            json!({
                "tactic": cell.tactic.id,
                "technique": cell.technique.id,
                "name": cell.technique.name,
                "platform": cell.technique.platform.as_deref().unwrap_or("Containers"),
                "count": cell.count(),
                "detections": ids(&cell.direct),
                "by_sub_techniques": ids(&cell.through),
            })
        })
        .collect();
    let detections: Vec<_> = report
        .enabled
        .iter()
        .map(|detection| {
            let sight = |level: Level| {
                let feeds =
                    FEEDS.iter().map(|feed| (feed.name.to_owned(), json!(feed.sight(detection, level).as_str())));
                serde_json::Value::Object(feeds.collect())
            };
            json!({
                "id": &*detection.id,
                "needs": DataNeed::of(detection).as_str(),
                "request": sight(Level::Request),
                "metadata": sight(Level::Metadata),
            })
        })
        .collect();
    let losses: Vec<_> = report
        .losses
        .iter()
        .map(|loss| {
            json!({
                "cloud": loss.feed.name,
                "level": format!("{:?}", loss.level).to_lowercase(),
                "blind": ids(&loss.blind),
                "partial": ids(&loss.partial),
                "techniques_lost": list(&loss.gaps),
            })
        })
        .collect();
    let report = json!({
        "attack": ATTACK_VERSION,
        "cloud": report.feed.name,
        "level": format!("{:?}", report.level).to_lowercase(),
        "enabled": report.enabled.len(),
        "targets": report.targets,
        "gaps": list(&report.gaps),
        "techniques": techniques,
        "detections": detections,
        "losses": losses,
    });
    format!("{report:#}\n")
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::detection::{files, load};

    static SHIPPED: LazyLock<Vec<Arc<Detection>>> = LazyLock::new(|| load(&files::shipped()).set.detections);

    fn report(feed: &str, level: Level) -> Report {
        Report::new(&SHIPPED, Feed::by_name(feed).expect("a known log"), level, &Target::containers())
    }

    #[test]
    fn the_layer_has_what_the_navigator_asks_for() {
        let layer: serde_json::Value =
            serde_json::from_str(&navigator::layer(&report("eks", Level::Request))).expect("JSON");
        assert_eq!(layer["versions"], json!({"attack": ATTACK_VERSION, "navigator": "5.1.0", "layer": "4.5"}));
        let (low, high) = (layer["gradient"]["minValue"].as_u64(), layer["gradient"]["maxValue"].as_u64());
        assert!(low < high, "{low:?} {high:?}");
        let techniques = layer["techniques"].as_array().expect("a list");
        let escape = techniques.iter().find(|one| one["techniqueID"] == "T1611").expect("escape to host");
        assert_eq!(escape["tactic"], "privilege-escalation");
        assert!(escape["score"].as_u64() > Some(0));
        let fields = ["techniqueID", "tactic", "score", "comment", "enabled", "metadata", "showSubtechniques"];
        for one in techniques {
            assert!(one.as_object().expect("an object").keys().all(|key| fields.contains(&key.as_str())), "{one}");
        }
    }

    #[test]
    fn each_form_tells_the_counts_as_text() {
        let report = report("self-managed", Level::Request);
        let escape = report.cells.iter().find(|cell| cell.technique.id == "T1611").expect("a cell");
        let (text, page) = (markdown(&report), html::page(&report));
        let reads = report.losses.iter().find(|loss| loss.feed.name == "aks-admin").expect("a loss");
        assert!(text.contains(&loss_heading(reads)) && text.contains("- `secrets-listed`: no list\n"));
        assert!(text.contains(&format!("| T1611 Escape to Host | {} ", escape.count())), "{text}");
        assert!(page.contains("Escape to Host") && page.contains(&plural(escape.count(), "detection")));
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "the page is self-contained, but holds {outside}");
        }
        let value: serde_json::Value = serde_json::from_str(&as_json(&report)).expect("JSON");
        assert_eq!(value["enabled"], report.enabled.len());
        assert_eq!(value["losses"].as_array().map(Vec::len), Some(FEEDS.len() * 2));
    }

    #[test]
    fn less_data_never_shows_more() {
        let whole = report("self-managed", Level::Request);
        assert_eq!(whole.seen(), whole.enabled.len(), "every shipped detection can fire on a complete log");
        for loss in &whole.losses {
            let same =
                whole.losses.iter().find(|other| other.feed.name == loss.feed.name && other.level == Level::Request);
            assert!(same.is_some_and(|same| same.blind.len() <= loss.blind.len()), "{}", loss.feed.name);
        }
        let blind = |feed: &str| {
            let loss = whole.losses.iter().find(|loss| loss.feed.name == feed && loss.level == Level::Request);
            loss.map(|loss| ids(&loss.blind)).unwrap_or_default()
        };
        assert!(blind("aks-admin").contains(&"secrets-listed"));
        assert!(blind("aks").is_empty() && blind("eks").is_empty());
    }
}
