//! `kubetide lint`: everything that is wrong with detections, lists, exceptions and samples, and what could be better.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::config::ConfigArgs;
use super::diagnostics::{Format, Report};
use super::exit::Failure;
use crate::clock;
use crate::config;
use crate::detection::{self, Code, Diagnostic, Level, Span, files};

/// Check detections, lists and exceptions: every mistake of every file at once
///
/// Without paths, the shipped pack is checked together with the detections and exceptions that the configuration names.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LintArgs {
    /// Files or directories; without any, the shipped detections and what the configuration names.
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How findings are written.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// Exit with 1 when there are warnings.
    #[arg(long)]
    pub deny_warnings: bool,
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What linting gave.
#[derive(Debug)]
pub struct Outcome {
    pub report: Report,
    /// Detections without an error.
    pub detections: usize,
    /// A path that was named does not exist or cannot be read at all.
    pub unreadable_path: bool,
}

impl Outcome {
    /// 0 nothing wrong, 1 warnings that were denied, 2 errors, 3 a path that cannot be read.
    pub fn exit_code(&self, deny_warnings: bool) -> u8 {
        if self.unreadable_path {
            3
        } else if self.report.count(Level::Error) > 0 {
            2
        } else {
            u8::from(deny_warnings && self.report.count(Level::Warning) > 0)
        }
    }
}

/// Lints and writes: findings to stdout, a summary to stderr.
///
/// # Errors
/// Exit code 3 where no paths are given and the configuration is wrong.
pub fn run(args: &LintArgs) -> Result<ExitCode, Failure> {
    use std::io::Write as _;
    let outcome = lint(args, &configured(args)?);
    let text = outcome.report.render(args.format, true);
    // `anstream` takes the colours out where nobody would see them. A reader that went away needs no answer.
    let _ = anstream::stdout().write_all(text.as_bytes());
    let count = |level: Level| {
        let number = outcome.report.count(level);
        format!("{number} {}{}", level.as_str(), if number == 1 { "" } else { "s" })
    };
    let _ = writeln!(
        anstream::stderr(),
        "{} files, {} detections: {}, {}",
        outcome.report.checked.len(),
        outcome.detections,
        count(Level::Error),
        count(Level::Warning)
    );
    Ok(ExitCode::from(outcome.exit_code(args.deny_warnings)))
}

/// What the configuration names; nothing where paths are given, as then it does not matter.
fn configured(args: &LintArgs) -> Result<Vec<PathBuf>, Failure> {
    if !args.paths.is_empty() {
        return Ok(Vec::new());
    }
    let config = config::load(&args.config.layers()?)?.config;
    Ok(config.detections.paths.into_iter().chain(config.exceptions.paths).collect())
}

/// Lints without writing anything.
pub fn lint(args: &LintArgs, configured: &[PathBuf]) -> Outcome {
    let mut read = files::read(if args.paths.is_empty() { configured } else { &args.paths });
    if args.paths.is_empty() {
        read.files.extend(files::shipped());
    }
    let checked: Vec<Arc<str>> = read.files.iter().map(|file| Arc::clone(&file.path)).collect();
    let mut diagnostics = read.diagnostics;
    if checked.is_empty() && diagnostics.is_empty() {
        let names: Vec<String> = args.paths.iter().map(|path| path.display().to_string()).collect();
        let help = "detections, lists and exceptions are .yaml files, samples are .json files in samples/";
        diagnostics.push(
            Diagnostic::new(Code::Empty, &names.join(" ").into(), Span::WHOLE, "there is nothing to check").help(help),
        );
    }
    if !args.paths.is_empty() {
        read.files.extend(files::shipped_support());
    }
    let loaded = detection::load(&read.files);
    diagnostics.extend(detection::lint(&loaded, clock::today()));
    diagnostics.extend(loaded.diagnostics);
    diagnostics.sort_by(|left, right| (&left.file, left.span).cmp(&(&right.file, right.span)));
    let detections = loaded.set.detections.len();
    Outcome { report: Report { diagnostics, checked }, detections, unreadable_path: read.unreadable_path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(paths: &[&std::path::Path], deny_warnings: bool) -> (u8, Outcome) {
        let args = LintArgs { paths: paths.iter().map(|path| path.to_path_buf()).collect(), ..LintArgs::default() };
        let outcome = lint(&args, &[]);
        (outcome.exit_code(deny_warnings), outcome)
    }

    #[test]
    fn exit_codes_tell_findings_errors_and_missing_paths_apart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        let (exit, outcome) = code(&[path], false);
        assert_eq!((exit, outcome.report.diagnostics[0].code), (2, Code::Empty), "an empty selection is an error");
        let list = path.join("names.yaml");
        std::fs::write(&list, "name: names\ndescription: d\nentries:\n  - {value: a, reason: r}\n").expect("written");
        assert_eq!(code(&[path], true).0, 0);
        let twice = "name: names\ndescription: d\nentries:\n  - {value: a, reason: r}\n  - {value: a, reason: r}\n";
        std::fs::write(&list, twice).expect("written");
        assert_eq!((code(&[path], false).0, code(&[path], true).0), (0, 1));
        std::fs::write(&list, "name: names\n").expect("written");
        assert_eq!(code(&[path], false).0, 2);
        assert_eq!(code(&[path, &path.join("missing")], false).0, 3);
    }
}
