//! What people and CI run on this repository: `cargo xtask --help`.
//!
//! Every command line is shown before it runs and again if it fails, so that a failure can be repeated by hand.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for a terminal")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod ci;
mod conformance;
mod containers;
mod deny;
mod docs;
mod examples;
mod failures;
mod features;
#[cfg(test)]
mod guarantees;
mod lint;
mod live;
mod markdown;
mod other_servers;
mod process;
mod report;
mod satellite;
mod servers;
mod test;
mod tidy;
mod totals;
mod workspace;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "What people and CI run on this repository")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything CI runs, in the order of CI
    Ci(servers::Args),
    /// All tests: unit, integration, documentation and conformance
    Test(servers::Args),
    /// Format and clippy, for all packages together and for each, warnings denied
    Lint,
    /// The rules of this repository that no compiler knows
    Tidy,
    /// The documentation, warnings denied
    Docs,
    /// The facade with each of its features on and off, and what the default build must not pull in
    Features,
    /// Licences, sources and unwanted crates among the dependencies (cargo-deny; installed if missing)
    Deny,
    /// Every example and every command in the README, their output compared
    Examples,
    /// The conformance kit against the backends
    Conformance(conformance::Args),
    /// Images of all servers for the Docker engine: pulled, or made from Debian's packages
    Images(containers::Args),
    /// Measurements against the goals, as ratios
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Ci(args) => ci::run(&args),
        Command::Test(args) => test::prepare_and_run(&args),
        Command::Lint => lint::lint(),
        Command::Tidy => tidy::run(),
        Command::Docs => docs::build(),
        Command::Features => features::check(),
        Command::Deny => deny::check(),
        Command::Examples => examples::run_all(),
        Command::Conformance(args) => conformance::run_and_report(&args),
        Command::Images(args) => containers::make_images(&args),
        Command::Bench(args) => bench::run_and_report(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }
}
