//! Everything CI runs, in the order of CI.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::servers::{self, Servers};
use crate::{bench, conformance, deny, docs, examples, features, lint, test, tidy};

type Step = fn(&Servers) -> Result<()>;

/// What is quick and often wrong comes first. The tests come last, so that the output ends with their sum.
const STEPS: [(&str, Step); 9] = [
    ("lint", |_| lint::lint()),
    ("tidy", |_| tidy::run()),
    ("docs", |_| docs::build()),
    ("features", |_| features::check()),
    ("deny", |_| deny::check()),
    ("examples", |_| examples::run_all()),
    ("bench", |_| bench::smoke()),
    ("conformance", conformance::again),
    ("test", test::run),
];

/// Looks for the servers, then runs every step, also after one failed, and names those that did.
///
/// # Errors
///
/// If a server is missing or a step failed.
pub(crate) fn run(args: &servers::Args) -> Result<()> {
    let servers = args.prepare_all()?;
    let mut done: Vec<(&str, Duration, bool)> = Vec::new();
    for (name, step) in STEPS {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let result = step(&servers);
        if let Err(error) = &result {
            eprintln!("{name}: {error:#}");
        }
        done.push((name, start.elapsed(), result.is_ok()));
    }
    eprintln!();
    for (name, time, good) in &done {
        eprintln!("{:>8.1} s  {name}{}", time.as_secs_f64(), if *good { "" } else { "  FAILED" });
    }
    let failed: Vec<&str> = done.iter().filter(|(.., good)| !good).map(|(name, ..)| *name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}
