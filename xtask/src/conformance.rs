//! The conformance kit against the backends, and against the backends that it must reject.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::live::{Live, TICK};
use crate::process::{cargo, follow_tests, output, run, run_tests};
use crate::report::{self, Environment, Record, proven};
use crate::servers;
use crate::totals::Totals;
use crate::workspace::{backends, root};

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
    /// Only the backends that are broken on purpose, each with the case that has to reject it
    #[arg(long, conflicts_with_all = ["backend", "faults", "list", "repeat"])]
    broken: bool,
    /// Run nothing, and make the report of the records in this directory, as the kit writes them anywhere; it is put there as well
    #[arg(long, value_name = "DIR", conflicts_with_all = ["backend", "faults", "list", "repeat", "broken"])]
    records: Option<PathBuf>,
    /// Put what was shown into the tables of the documents; needs a run of whole backends in which nothing failed
    #[arg(long, conflicts_with_all = ["faults", "list", "broken", "filter"])]
    update_docs: bool,
    /// Open the report in a browser, say what it finds, and take pictures at two widths
    #[arg(long)]
    pictures: bool,
    #[command(flatten)]
    servers: servers::Args,
    /// Only cases whose id contains this
    #[arg(last = true)]
    filter: Option<String>,
}

const ALL: &str = "all";

/// The groups of cases in which nothing goes wrong.
const WITHOUT_FAULTS: [&str; 5] = ["exclusive::", "tokens::", "waiting::", "names::", "spi::"];

/// Runs the kit and makes the report.
///
/// # Errors
///
/// If there is no such backend, or its server is missing, or a case fails, or none runs.
pub(crate) fn run_and_report(args: &Args) -> Result<()> {
    let reports = root().join("target/conformance");
    if let Some(records) = &args.records {
        let shown = finish(args, records, records, &Environment::of_this_run())?;
        return if args.update_docs { proven::update(&shown) } else { Ok(()) };
    }
    if args.broken {
        let totals = broken(args, &reports.join("broken"), &["rejects"])?;
        return totals.close();
    }
    let known = backends()?;
    if args.backend != ALL && !known.contains(&args.backend) {
        bail!("there is no backend `{}`; there are: {}, {ALL}", args.backend, known.join(", "));
    }
    let chosen: Vec<String> =
        known.into_iter().filter(|backend| args.backend == ALL || args.backend == *backend).collect();
    if args.list {
        return list(args, &chosen);
    }
    let servers = args.servers.prepare(&chosen)?;
    let mut environment = Environment::of_this_run();
    for backend in &chosen {
        for (technology, source) in args.servers.sources(backend)? {
            environment.add(technology, Some(source));
        }
    }
    let records = reports.join("records");
    empty(&records)?;
    let mut totals = Totals::default();
    let mut live = Live::new(&records);
    for backend in &chosen {
        let mut kit = kit(args, backend);
        kit.env("LOCKS_CONFORMANCE_REPEAT", args.repeat.to_string()).envs(servers.environment());
        totals += show(kit.env(RECORD, &records), &mut live)?;
    }
    let shown = finish(args, &records, &reports, &environment)?;
    if args.update_docs {
        proven::update(&shown)?;
    }
    if args.backend == ALL && args.filter.is_none() && !args.faults {
        totals += broken(args, &reports.join("broken"), &[])?;
    }
    totals.close()
}

/// Where the kit writes its records.
const RECORD: &str = "LOCKS_CONFORMANCE_RECORD";

/// The kit of one backend, with its arguments.
fn kit(args: &Args, backend: &str) -> Command {
    let mut kit = cargo(["test", "--locked", "--quiet", "--test", "conformance", "--package"]);
    kit.arg(format!("locks-backend-{backend}")).arg("--").args(&args.filter);
    if args.faults {
        kit.args(WITHOUT_FAULTS.into_iter().flat_map(|group| ["--skip", group]));
    }
    kit
}

fn list(args: &Args, chosen: &[String]) -> Result<()> {
    for backend in chosen {
        let listed = output(kit(args, backend).arg("--list"))?;
        for id in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
            println!("{id}");
        }
    }
    Ok(())
}

/// Tries the kit on the backends that it must reject, and makes a report of it.
fn broken(args: &Args, reports: &Path, filter: &[&str]) -> Result<Totals> {
    let records = reports.join("records");
    empty(&records)?;
    let mut kit = cargo(["test", "--locked", "--package", "locks-conformance", "--test", "broken", "--"]);
    kit.args(filter).args(&args.filter).env(RECORD, &records);
    let totals = run_tests(&mut kit)?;
    finish(args, &records, reports, &Environment::of_this_run())?;
    Ok(totals)
}

/// Makes the report, and returns the records that it is made from.
fn finish(args: &Args, records: &Path, reports: &Path, environment: &Environment) -> Result<Vec<Record>> {
    fs::create_dir_all(reports).with_context(|| format!("can't make {}", reports.display()))?;
    let records = report::write(records, reports, environment)?;
    if args.pictures {
        report::take_pictures(reports, &records)?;
    }
    Ok(records)
}

/// Makes an empty directory of it.
fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("can't empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))
}

/// Runs the kit and shows how far it is. On a terminal, what tests say is told at the end, if they failed.
fn show(kit: &mut Command, live: &mut Live) -> Result<Totals> {
    if live.passes_lines_on() {
        return follow_tests(kit, TICK, |line| {
            match line {
                Some(line) => println!("{line}"),
                None => live.show()?,
            }
            Ok(())
        });
    }
    // Built before, so that what cargo says of it is not torn by the picture.
    let before = kit.get_args().position(|argument| argument == "--").unwrap_or(kit.get_args().len());
    let mut build = cargo(kit.get_args().take(before).filter(|argument| *argument != "--quiet"));
    run(build.arg("--no-run"))?;
    let mut said = Vec::new();
    live.begin_anew();
    let totals = follow_tests(kit.stderr(Stdio::piped()), TICK, |line| {
        match line {
            Some(line) => said.push(line.to_owned()),
            None => live.show()?,
        }
        Ok(())
    })?;
    if totals.has_failures() {
        for line in said.iter().filter(|line| !line.ends_with("... ok") && !line.starts_with("ignored ")) {
            eprintln!("{line}");
        }
    }
    Ok(totals)
}

/// How many cases run at a time: they mostly wait, for expiries and graces.
pub(crate) const AT_A_TIME: (&str, &str) = ("LOCKS_CONFORMANCE_AT_A_TIME", "4");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_without_faults_are_groups_of_the_kit() {
        let dir = root().join("crates/locks-conformance/src/cases");
        let sources: String = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        for group in WITHOUT_FAULTS {
            assert!(sources.contains(&format!("\"{group}")), "{group}");
        }
    }
}
