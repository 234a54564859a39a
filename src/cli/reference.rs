//! `kubetide docs`: reference pages made from the detection files.
//!
//! The pages of the shipped pack are checked in under `docs/detections`; a test compares them, every page, and
//! `KUBETIDE_BLESS=1 cargo test --lib cli::reference` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::exit::Failure;
use super::pack::load_pack;
use crate::detection::coverage::{DataNeed, FEEDS, Feed, Sight};
use crate::detection::{ATTACK_VERSION, Attack, Detection, MATRIX};
use crate::model::Level;

/// Write reference pages: one a detection, and an index by tactic, by log and by data need
#[derive(Debug, clap::Args)]
pub struct DocsArgs {
    /// Directory to write to; it is made where it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Further detections: files or directories (repeatable)
    #[arg(long, value_name = "PATH")]
    detections: Vec<PathBuf>,
    /// Leave out the detections that ship with the program
    #[arg(long)]
    no_shipped: bool,
}

/// Writes the pages.
///
/// # Errors
/// Exit code 2 where detections are wrong or there are none, 3 where a file cannot be read or written.
pub fn run(args: &DocsArgs) -> Result<ExitCode, Failure> {
    let set = load_pack(!args.no_shipped, &args.detections)?;
    if set.detections.is_empty() {
        return Err(Failure::rules("there is no detection to write about"));
    }
    let pages = pages(&set.detections);
    for (path, text) in &pages {
        let file = args.out.join(path);
        let written = match file.parent() {
            Some(folder) => std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text)),
            None => std::fs::write(&file, text),
        };
        written.map_err(|error| Failure::environment(format!("cannot write {}: {error}", file.display())))?;
    }
    anstream::eprintln!("{} pages written to {}", pages.len(), args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// Every page: its path below the directory, and its text.
pub fn pages(detections: &[Arc<Detection>]) -> BTreeMap<String, String> {
    let mut pages: BTreeMap<String, String> =
        detections.iter().map(|detection| (path(detection), page(detection))).collect();
    pages.insert("README.md".to_owned(), by_tactic(detections));
    pages.insert("by-log.md".to_owned(), by_log(detections));
    pages.insert("by-data.md".to_owned(), by_data(detections));
    pages
}

/// The folder of the file where that is a tactic's, else that of the first tactic that the detection names.
fn path(detection: &Detection) -> String {
    let parent = detection.file.rsplit(['/', '\\']).nth(1).filter(|folder| MATRIX.tactic_of_folder(folder).is_some());
    let named = || detection.attack.iter().find_map(|place| place.tactic.folder.as_deref());
    format!("{}/{}.md", parent.or_else(named).unwrap_or("other"), detection.id)
}

fn page(detection: &Detection) -> String {
    let mut out = format!("# {}\n\n", detection.title);
    out.push_str("| | |\n|---|---|\n");
    let mut row = |name: &str, value: String| out.push_str(&format!("| {name} | {} |\n", cell(&value)));
    row("id", format!("`{}`", detection.id));
    row("severity", detection.severity.as_str().to_owned());
    row("status", detection.status.as_str().to_owned());
    row(&format!("ATT&CK v{ATTACK_VERSION}"), detection.attack.iter().map(place).collect::<Vec<_>>().join("<br>"));
    row("needs audit level", DataNeed::of(detection).as_str().to_owned());
    row("an alert is about", detection.entity.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "));
    row("repeats are one alert for", duration(detection.suppress));
    row("file", format!("`{}`", detection.file));
    let _ = write!(out, "\n{}\n", detection.description.trim());
    let summary = detection.summary.render(|column| Some(format!("{{{column}}}")));
    let _ = write!(out, "\nThe alert says: `{summary}`\n");
    let _ = write!(out, "\n## Query\n\n```sql\n{}\n```\n", detection.sql.trim_end());
    let columns: Vec<String> = detection.plan.columns.iter().map(|column| format!("`{column}`")).collect();
    let _ = write!(out, "\nReads {}.\n", if columns.is_empty() { "no column".to_owned() } else { columns.join(", ") });
    let lists = lists(&detection.sql);
    if !lists.is_empty() {
        let lists: Vec<String> = lists.iter().map(|name| format!("`detections/lists/{name}.yaml`")).collect();
        let _ = write!(out, "\nLists: {}.\n", lists.join(", "));
    }
    if !detection.triage.trim().is_empty() {
        let _ = write!(out, "\n## When it fires\n\n{}\n", detection.triage.trim());
    }
    bullets(&mut out, "Who does this for good reasons", &detection.false_positives);
    out.push_str(&where_it_works(detection));
    let tests: Vec<String> = detection
        .tests
        .iter()
        .map(|case| {
            let alerts = match case.expect.alerts {
                0 => "quiet".to_owned(),
                1 => "fires".to_owned(),
                alerts => format!("fires {alerts} times"),
            };
            format!("{alerts}: {}", case.name.trim())
        })
        .collect();
    bullets(&mut out, "Tests", &tests);
    bullets(&mut out, "Read more", &detection.references);
    let _ = write!(out, "\nMade from `{}` by `kubetide docs`.\n", detection.file);
    out
}

fn where_it_works(detection: &Detection) -> String {
    let mut out = String::from("\n## Where it works\n\n| log | level Request | level Metadata |\n|---|---|---|\n");
    for feed in FEEDS {
        let sight = |level| {
            let limits = feed.limits(detection, level);
            let sight = feed.sight(detection, level);
            if sight == Sight::Full { sight.as_str().to_owned() } else { format!("{}: {limits}", sight.as_str()) }
        };
        let _ = writeln!(out, "| {} | {} | {} |", feed.title, sight(Level::Request), sight(Level::Metadata));
    }
    out
}

fn bullets(out: &mut String, heading: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    let _ = write!(out, "\n## {heading}\n\n");
    items.iter().for_each(|item| out.push_str(&format!("- {}\n", item.trim())));
}

/// `TA0004 Privilege Escalation: T1611 Escape to Host`.
fn place(place: &Attack) -> String {
    let technique = place.sub_technique.unwrap_or(place.technique);
    let name = match place.sub_technique {
        Some(sub) => format!("{}: {}", place.technique.name, sub.name),
        None => technique.name.clone(),
    };
    format!("{} {}, {} {name}", place.tactic.id, place.tactic.name, technique.id)
}

fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => "never: each event is one".to_owned(),
        seconds if seconds % 86_400 == 0 => format!("{} d", seconds / 86_400),
        seconds if seconds % 3_600 == 0 => format!("{} h", seconds / 3_600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// Names of the reference lists in a query, in order, each once.
fn lists(sql: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for part in sql.split("reference('").skip(1) {
        let name = part.split('\'').next().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A row of an index.
fn link(detection: &Detection) -> String {
    format!("[{}]({})", cell(&detection.title), path(detection))
}

const HEAD: &str = "Made from the detection files by `kubetide docs`. Indexes: [by tactic](README.md), \
                    [by log](by-log.md), [by data need](by-data.md).\n";

fn by_tactic(detections: &[Arc<Detection>]) -> String {
    let mut out = format!("# Detections by tactic\n\n{HEAD}\n{} detections.\n", detections.len());
    for tactic in &MATRIX.tactics {
        let within: Vec<&Arc<Detection>> = detections
            .iter()
            .filter(|detection| detection.attack.iter().any(|place| place.tactic.id == tactic.id))
            .collect();
        if within.is_empty() {
            continue;
        }
        let _ = write!(out, "\n## {} {} ({})\n\n", tactic.id, tactic.name, within.len());
        out.push_str("| detection | severity | technique | audit level |\n|---|---|---|---|\n");
        for detection in within {
            let places = detection.attack.iter().filter(|place| place.tactic.id == tactic.id);
            let techniques: Vec<&str> =
                places.map(|place| place.sub_technique.unwrap_or(place.technique).id.as_str()).collect();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                link(detection),
                detection.severity.as_str(),
                techniques.join(", "),
                DataNeed::of(detection).as_str()
            );
        }
    }
    out
}

fn by_log(detections: &[Arc<Detection>]) -> String {
    let mut out = format!("# Detections by log\n\n{HEAD}");
    out.push_str(
        "\nA detection is *blind* where it can never fire, *partial* where it misses some of what it looks for or cannot \
         tell some look-alikes apart. Those that a section does not name work in full.\n",
    );
    for feed in FEEDS {
        let count = |level: Level, wanted: Sight| {
            detections.iter().filter(|detection| feed.sight(detection, level) == wanted).count()
        };
        let _ = write!(out, "\n## {}\n\n{}\n", feed.title, feed.note);
        out.push_str("\n| audit level | full | partial | blind |\n|---|---|---|---|\n");
        for (name, level) in [("Request", Level::Request), ("Metadata", Level::Metadata)] {
            let [full, partial, blind] = [Sight::Full, Sight::Partial, Sight::Blind].map(|sight| count(level, sight));
            let _ = writeln!(out, "| {name} | {full} | {partial} | {blind} |");
        }
        for sight in [Sight::Blind, Sight::Partial] {
            affected(&mut out, detections, feed, sight);
        }
    }
    out
}

/// The detections that a log makes blind or partial although the audit policy logs bodies.
fn affected(out: &mut String, detections: &[Arc<Detection>], feed: &Feed, sight: Sight) {
    let named: Vec<String> = detections
        .iter()
        .filter(|detection| feed.sight(detection, Level::Request) == sight)
        .map(|detection| format!("- {}: {}\n", link(detection), feed.limits(detection, Level::Request)))
        .collect();
    if !named.is_empty() {
        let _ = write!(out, "\n### {} at level Request\n\n{}", sight_heading(sight), named.concat());
    }
}

fn sight_heading(sight: Sight) -> &'static str {
    match sight {
        Sight::Full => "Full",
        Sight::Partial => "Partial",
        Sight::Blind => "Blind",
    }
}

fn by_data(detections: &[Arc<Detection>]) -> String {
    let mut out = format!("# Detections by data need\n\n{HEAD}");
    out.push_str("\nWhat the audit policy must log, at least, of the resources that a detection looks at.\n");
    for need in DataNeed::ALL {
        let within: Vec<&Arc<Detection>> =
            detections.iter().filter(|detection| DataNeed::of(detection) == need).collect();
        let _ = write!(out, "\n## {} ({})\n\n", need.as_str(), within.len());
        out.push_str("| detection | columns of bodies |\n|---|---|\n");
        for detection in within {
            let columns = detection.plan.columns.iter().filter(|column| column.info().level == Level::Request);
            let columns: Vec<String> = columns.map(|column| format!("`{column}`")).collect();
            let _ = writeln!(out, "| {} | {} |", link(detection), columns.join(", "));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::LazyLock;

    use crate::detection::{files, load};

    static SHIPPED: LazyLock<Vec<Arc<Detection>>> = LazyLock::new(|| load(&files::shipped()).set.detections);

    fn checked_in(folder: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                checked_in(&path, root, found);
            } else {
                let name = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
                found.insert(name, std::fs::read_to_string(&path).expect("text"));
            }
        }
    }

    #[test]
    fn the_pages_are_those_that_are_checked_in() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/detections");
        let wanted = pages(&SHIPPED);
        let mut found = BTreeMap::new();
        checked_in(&root, &root, &mut found);
        if std::env::var_os("KUBETIDE_BLESS").is_some() {
            for stale in found.keys().filter(|name| !wanted.contains_key(*name)) {
                std::fs::remove_file(root.join(stale)).expect("a writable checkout");
            }
            for (name, text) in &wanted {
                let file = root.join(name);
                std::fs::create_dir_all(file.parent().expect("a folder")).expect("a writable checkout");
                std::fs::write(file, text).expect("a writable checkout");
            }
            return;
        }
        let names = wanted.keys().chain(found.keys());
        let mut differing: Vec<&String> = names.filter(|name| wanted.get(*name) != found.get(*name)).collect();
        differing.dedup();
        assert!(
            differing.is_empty(),
            "docs/detections is not what the detections say: {differing:?}; refresh with \
             `KUBETIDE_BLESS=1 cargo test --lib cli::reference`"
        );
    }

    #[test]
    fn a_page_tells_all_that_its_file_does() {
        let detection = SHIPPED.iter().find(|detection| &*detection.id == "secrets-listed").expect("shipped");
        let page = page(detection);
        for wanted in [
            "# Secrets of a namespace listed",
            "TA0006 Credential Access, T1552.007 Unsecured Credentials: Container API",
            "```sql\nSELECT * FROM audit",
            "| AKS, kube-audit-admin | blind: no list | blind: no list |",
            "- quiet: one secret",
            "`detections/lists/secret-operators.yaml`",
            "| repeats are one alert for | 1 d |",
        ] {
            assert!(page.contains(wanted), "{wanted}\n{page}");
        }
        for text in [&detection.description, &detection.triage] {
            assert!(page.contains(text.trim()));
        }
    }

    #[test]
    fn every_link_of_an_index_leads_to_a_page() {
        let pages = pages(&SHIPPED);
        for index in ["README.md", "by-log.md", "by-data.md"] {
            let targets = pages[index].split("](").skip(1).filter_map(|part| part.split(')').next());
            for target in targets {
                assert!(pages.contains_key(target), "{index}: {target}");
            }
        }
    }
}
