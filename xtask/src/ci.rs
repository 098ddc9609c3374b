//! Everything CI runs, in the order of CI.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::servers::{self, Servers};
use crate::workspace::root;
use crate::{bench, deny, docs, examples, features, lint, other_servers, test, tidy};

type Step = fn(&Servers) -> Result<()>;

/// What is quick and often wrong comes first. The tests come last, so that the output ends with their sum.
const STEPS: [(&str, Step); 9] = [
    ("lint", |_| lint::lint()),
    ("tidy", |_| tidy::run()),
    ("docs", |_| docs::build()),
    ("features", |_| features::check()),
    ("deny", |_| deny::check()),
    ("examples", |_| examples::run_all()),
    ("bench", bench::smoke),
    ("other servers", other_servers::test),
    ("test", test::run),
];

/// How long each step took that has ended: for whoever ends a run that takes too long.
const TIMES: &str = "target/ci-steps.txt";

/// Looks for the servers, then runs every step, also after one failed, and ends with those that did and what they said.
///
/// # Errors
///
/// If a server is missing or a step failed.
pub(crate) fn run(args: &servers::Args) -> Result<()> {
    let mut times = Times::default();
    let servers = times.of("servers", || args.prepare_all())?;
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        eprintln!("\n== {name}");
        if let Err(error) = times.of(name, || step(&servers)) {
            eprintln!("{name}: {error:#}");
            failed.push(format!("{name}: {error:#}"));
        }
    }
    eprint!("\n{}", times.lines);
    if !failed.is_empty() {
        bail!("failed:\n\n{}", failed.join("\n\n"));
    }
    Ok(())
}

#[derive(Default)]
struct Times {
    lines: String,
}

impl Times {
    /// Does it and writes down how long it took.
    fn of<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = step();
        let (seconds, outcome) =
            (start.elapsed().as_secs_f64(), if result.is_ok() { "" } else { "  FAILED" });
        writeln!(self.lines, "{seconds:>8.1} s  {name}{outcome}").expect("writing to a String can't fail");
        let file = root().join(TIMES);
        fs::write(&file, &self.lines).with_context(|| format!("can't write {}", file.display()))?;
        result
    }
}
