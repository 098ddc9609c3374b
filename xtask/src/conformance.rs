//! The conformance kit against the backends, and against the backends that it must reject.

use anyhow::{Result, bail};

use crate::process::{cargo, output, run_tests};
use crate::servers::{self, Servers};
use crate::totals::Totals;
use crate::workspace::backends;

/// Which cases are run on what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A technology, or `all`: every one, and the backends that are broken on purpose
    #[arg(long, value_name = "NAME", default_value = ALL)]
    backend: String,
    /// Only the cases that bring about faults: kills, stops, lost replies, full disks, dropped futures
    #[arg(long)]
    faults: bool,
    /// Print the ids of the cases, one a line, and run none
    #[arg(long)]
    list: bool,
    /// Run each case this many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    #[command(flatten)]
    servers: servers::Args,
    /// Only cases whose id contains this
    #[arg(last = true)]
    filter: Option<String>,
}

const ALL: &str = "all";

/// The groups of cases in which nothing goes wrong.
const WITHOUT_FAULTS: [&str; 5] = ["exclusive::", "tokens::", "waiting::", "names::", "spi::"];

/// Runs the kit.
///
/// # Errors
///
/// If there is no such backend, or its server is missing, or a case fails, or none runs.
pub(crate) fn run(args: &Args) -> Result<()> {
    let known = backends()?;
    if args.backend != ALL && !known.contains(&args.backend) {
        bail!("there is no backend `{}`; there are: {}, {ALL}", args.backend, known.join(", "));
    }
    let chosen: Vec<String> =
        known.into_iter().filter(|backend| args.backend == ALL || args.backend == *backend).collect();
    let servers = if args.list { Servers::default() } else { args.servers.prepare(&chosen)? };
    let mut totals = Totals::default();
    for backend in &chosen {
        let mut kit = cargo(["test", "--locked", "--quiet", "--test", "conformance", "--package"]);
        kit.arg(format!("locks-backend-{backend}")).arg("--").args(&args.filter);
        if args.faults {
            kit.args(WITHOUT_FAULTS.into_iter().flat_map(|group| ["--skip", group]));
        }
        if args.list {
            let listed = output(kit.arg("--list"))?;
            for id in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
                println!("{id}");
            }
        } else {
            kit.env("LOCKS_CONFORMANCE_REPEAT", args.repeat.to_string()).envs(servers.environment());
            totals += run_tests(&mut kit)?;
        }
    }
    if args.list {
        return Ok(());
    }
    if args.backend == ALL && args.filter.is_none() && !args.faults {
        totals += run_tests(&mut cargo([
            "test",
            "--locked",
            "--package",
            "locks-conformance",
            "--test",
            "broken",
        ]))?;
    }
    totals.close()
}

/// How often CI runs each case on a backend that needs no server, beyond the once of `cargo xtask test`. On servers a case takes longer.
const REPEATS: &str = "2";

/// How many cases run at a time: they mostly wait, for expiries and graces.
pub(crate) const AT_A_TIME: (&str, &str) = ("LOCKS_CONFORMANCE_AT_A_TIME", "4");

/// How many seeds of the simulation CI tries, beyond those of `cargo xtask test`.
const SEEDS: &str = "10000";

/// What CI runs beyond the tests, which contain every case, every broken backend and the first seeds once.
///
/// # Errors
///
/// If a case or a seed fails.
pub(crate) fn again(_: &Servers) -> Result<()> {
    let mut totals = Totals::default();
    for backend in backends()?.iter().filter(|backend| !servers::is_on_a_server(backend)) {
        let package = format!("locks-backend-{backend}");
        let mut kit = cargo(["test", "--locked", "--package", &package, "--test", "conformance"]);
        kit.env("LOCKS_CONFORMANCE_REPEAT", REPEATS).env(AT_A_TIME.0, AT_A_TIME.1);
        totals += run_tests(&mut kit)?;
    }
    let mut simulation = cargo(["test", "--locked", "--package", "locks-api", "--lib", "simulation"]);
    totals += run_tests(simulation.env("LOCKS_SIM_SEEDS", SEEDS))?;
    totals.close()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    #[test]
    fn the_groups_without_faults_are_groups_of_the_kit() {
        let dir = root().join("crates/locks-conformance/src/cases");
        let sources: String = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        for group in WITHOUT_FAULTS {
            assert!(sources.contains(&format!("\"{group}")), "{group}");
        }
    }
}
