//! `kubetide test --watch`: tests again what changes.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anstream::eprintln;

use super::{TestArgs, round};
use crate::cli::exit::Failure;
use crate::cli::watched::{Files, changes, look, texts};
use crate::detection::{Detection, files};

/// Time between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Tests, and tests again, until the user ends it.
///
/// # Errors
/// Exit code 3 where there is nothing that can change: no path, or one that cannot be read.
pub(super) fn run(args: &TestArgs) -> Result<ExitCode, Failure> {
    if args.paths.is_empty() {
        return Err(Failure::environment("--watch needs a PATH: the shipped pack is part of the program"));
    }
    let read = files::read(&args.paths);
    if read.unreadable_path {
        return Err(Failure::environment("a path that was named cannot be read"));
    }
    let mut seen = texts(read);
    tell(round(args, None));
    loop {
        std::thread::sleep(LOOK_EVERY);
        let now = look(&args.paths);
        let changed = changes(&seen, &now);
        if changed.is_empty() {
            continue;
        }
        seen = now;
        let names: Vec<&str> = changed.iter().map(|path| &**path).collect();
        eprintln!("\n{} changed", names.join(", "));
        tell(round(args, Some(&changed)));
    }
}

fn tell(result: Result<ExitCode, Failure>) {
    let (red, green, reset) =
        (anstyle::AnsiColor::Red.render_fg(), anstyle::AnsiColor::Green.render_fg(), anstyle::Reset);
    match result {
        Ok(code) if code == ExitCode::SUCCESS => eprintln!("{green}good{reset}, waiting for changes"),
        Ok(_) => eprintln!("{red}not yet{reset}, waiting for changes"),
        Err(failure) => eprintln!("{red}error{reset}: {failure}; waiting for changes"),
    }
}

/// Keeps the detections of these files; all of them where one is something that others use, or is gone.
pub(super) fn narrow(selected: &mut Vec<Arc<Detection>>, changed: &Files) {
    let own = |path: &Arc<str>| selected.iter().any(|detection| detection.file == *path);
    if changed.iter().all(own) {
        selected.retain(|detection| changed.contains(&detection.file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::load;

    #[test]
    fn a_detection_concerns_itself_and_a_list_concerns_all() {
        let all = load(&files::shipped()).set.detections;
        let narrowed = |paths: &[&str]| {
            let mut selected = all.clone();
            narrow(&mut selected, &paths.iter().map(|path| Arc::from(*path)).collect());
            selected.len()
        };
        let file = &*all[0].file;
        assert_eq!(narrowed(&[file]), 1);
        assert_eq!(narrowed(&[file, "detections/lists/any.yaml"]), all.len());
    }

    #[test]
    fn the_shipped_pack_cannot_be_watched() {
        let args = TestArgs {
            paths: Vec::new(),
            id: None,
            mutants: false,
            watch: true,
            format: super::super::Format::Human,
            verbose: false,
        };
        assert!(run(&args).is_err());
    }
}
