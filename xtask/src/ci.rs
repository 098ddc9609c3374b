//! Everything CI runs, in the order of CI.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::servers::{self, Servers};
use crate::{bench, conformance, deny, docs, examples, features, lint, other_servers, test, tidy};

type Step = fn(&Servers) -> Result<()>;

/// What is quick and often wrong comes first. The tests come last, so that the output ends with their sum.
const STEPS: [(&str, Step); 10] = [
    ("lint", |_| lint::lint()),
    ("tidy", |_| tidy::run()),
    ("docs", |_| docs::build()),
    ("features", |_| features::check()),
    ("deny", |_| deny::check()),
    ("examples", |_| examples::run_all()),
    ("bench", |_| bench::smoke()),
    ("conformance", conformance::again),
    ("other servers", other_servers::test),
    ("test", test::run),
];

/// Looks for the servers, then runs every step, also after one failed, and ends with those that did and what they said.
///
/// # Errors
///
/// If a server is missing or a step failed.
pub(crate) fn run(args: &servers::Args) -> Result<()> {
    let servers = args.prepare_all()?;
    let mut done: Vec<(&str, Duration, Result<()>)> = Vec::new();
    for (name, step) in STEPS {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let result = step(&servers);
        if let Err(error) = &result {
            eprintln!("{name}: {error:#}");
        }
        done.push((name, start.elapsed(), result));
    }
    eprintln!();
    for (name, time, result) in &done {
        eprintln!("{:>8.1} s  {name}{}", time.as_secs_f64(), if result.is_ok() { "" } else { "  FAILED" });
    }
    let failed: Vec<String> = done
        .iter()
        .filter_map(|(name, _, result)| result.as_ref().err().map(|error| format!("{name}: {error:#}")))
        .collect();
    if !failed.is_empty() {
        bail!("failed:\n\n{}", failed.join("\n\n"));
    }
    Ok(())
}
