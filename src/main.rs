//! The program: parses arguments, runs one command, turns its end into an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use kubetide::cli;
use kubetide::cli::exit::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// SQL detections over Kubernetes audit logs
#[derive(Debug, Parser)]
#[command(name = "kubetide", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<cli::run::RunArgs>),
    Test(cli::test::TestArgs),
    Lint(cli::lint::LintArgs),
    Explain(cli::explain::ExplainArgs),
    New(cli::new::NewArgs),
    Import(cli::import::ImportArgs),
    Coverage(cli::coverage::CoverageArgs),
    Docs(cli::reference::DocsArgs),
    Generate(cli::generate::GenerateArgs),
    Schema(cli::schema::SchemaArgs),
    Config(cli::config::ConfigCommand),
    State(cli::state::StateCommand),
    /// Print completions for a shell
    Completions {
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    // A huge page is cleared as a whole when the allocator first touches it, of which much is never used: that costs a
    // tenth of a run and a fifth of its memory. Where the kernel will not, it runs all the same.
    rustix::thread::disable_transparent_huge_pages(true).ok();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output with code 0; a mistake in the arguments is one of configuration.
            let code = if error.use_stderr() { 3 } else { 0 };
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    match run(&arguments.command) {
        Ok(code) => code,
        Err(failure) => {
            let (red, reset) = (anstyle::AnsiColor::Red.render_fg(), anstyle::Reset);
            anstream::eprintln!("{red}error{reset}: {failure}");
            failure.exit_code()
        }
    }
}

fn run(command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Run(args) => cli::run::run(args),
        Command::Test(args) => cli::test::run(args),
        Command::Lint(args) => cli::lint::run(args),
        Command::Explain(args) => cli::explain::run(args),
        Command::New(args) => cli::new::run(args),
        Command::Import(args) => cli::import::run(args),
        Command::Coverage(args) => cli::coverage::run(args),
        Command::Docs(args) => cli::reference::run(args),
        Command::Generate(args) => cli::generate::run(args),
        Command::Schema(args) => Ok(cli::schema::run(args)),
        Command::Config(command) => {
            let mut out = Vec::new();
            let result = cli::config::run(command, &mut out);
            std::io::stdout().write_all(&out).ok();
            result.map(|()| ExitCode::SUCCESS).map_err(Failure::from)
        }
        Command::State(command) => cli::state::run(command, &mut std::io::stdout()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "kubetide", &mut script);
            // A reader that went away needs no answer.
            std::io::stdout().write_all(&script).ok();
            Ok(ExitCode::SUCCESS)
        }
    }
}
