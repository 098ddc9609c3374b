//! Measurements against the goals.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::markdown::with_part;
use crate::process::{cargo, run};
use crate::workspace::root;

/// How long is measured.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Short rounds: shows that everything runs, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Put the table into docs/performance.md
    #[arg(long)]
    write: bool,
}

/// Builds the tools as they are shipped, measures, and prints one row for each goal.
///
/// # Errors
///
/// If something can't be built or run, or two holders overlapped. A goal that is missed is a row of the table.
pub(crate) fn run_and_report(args: &Args) -> Result<()> {
    let (redis_tools, postgres_tools) = (tools_with("redis")?, tools_with("postgres")?);
    run(&mut cargo(["build", "--locked", "--release", "--package", "locks-cli", "--bins"]))?;
    let dir = root().join("bench");
    // Its lock file follows the workspace's; that it was committed so is for `cargo xtask lint` to say.
    run(cargo(["build", "--release", "--bins"]).current_dir(&dir))?;
    let table = root().join("target/bench.md");
    let mut bench = cargo(["run", "--quiet", "--release", "--"]);
    bench.current_dir(&dir).arg("--tools").arg(tools()).arg("--redis-tools").arg(redis_tools);
    bench.arg("--postgres-tools").arg(postgres_tools).arg("--table").arg(&table);
    if args.quick {
        bench.arg("--quick");
    }
    run(&mut bench)?;
    if args.write {
        let page = root().join("docs/performance.md");
        let text = fs::read_to_string(&page).with_context(|| format!("can't read {}", page.display()))?;
        let results =
            fs::read_to_string(&table).with_context(|| format!("can't read {}", table.display()))?;
        let text = with_part(&text, "results", &results).with_context(|| page.display().to_string())?;
        fs::write(&page, text).with_context(|| format!("can't write {}", page.display()))?;
    }
    Ok(())
}

/// What CI runs: that the measurements work and that no two holders overlap while they do. How fast it is depends on who
/// else uses the machine, and is no reason to fail.
///
/// # Errors
///
/// As [`run_and_report`].
pub(crate) fn smoke() -> Result<()> {
    run_and_report(&Args { quick: true, write: false })
}

/// Builds `lock-block` with the feature of a store and puts it aside: what is measured on files is the tool without it.
fn tools_with(feature: &str) -> Result<PathBuf> {
    let features = ["--features", feature];
    run(cargo(["build", "--locked", "--release", "--package", "locks-cli", "--bins"]).args(features))?;
    let aside = tools().join(format!("with-{feature}"));
    fs::create_dir_all(&aside).with_context(|| format!("can't make {}", aside.display()))?;
    let (from, to) = (tools().join("lock-block"), aside.join("lock-block"));
    fs::copy(&from, &to).with_context(|| format!("can't copy {}", from.display()))?;
    Ok(aside)
}

fn tools() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("release")
}
