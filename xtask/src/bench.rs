//! Measurements against the goals.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use locks_test_servers::{Mode, SERVERS_VARIABLE};

use crate::markdown::with_part;
use crate::process::{cargo, run};
use crate::satellite::{BENCH, cargo_in};
use crate::servers::Servers;
use crate::workspace::root;

/// The stores that are servers. Each has tools of its own.
const SERVERS: [&str; 3] = ["redis", "postgres", "etcd"];

/// How long is measured.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Short rounds: shows that everything runs, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Programs that are not optimised: quicker to build
    #[arg(long)]
    dev: bool,
    /// Put the table into docs/performance.md
    #[arg(long, conflicts_with_all = ["only", "dev"])]
    write: bool,
    /// Measure this store alone
    #[arg(long, value_name = "STORE", value_parser = SERVERS)]
    only: Option<String>,
}

/// Builds the tools, as they are shipped unless told otherwise, measures, and prints one row for each goal.
///
/// # Errors
///
/// If something can't be built or run, or two holders overlapped. A goal that is missed is a row of the table.
pub(crate) fn run_and_report(args: &Args) -> Result<()> {
    let build = if args.dev { Build::DEV } else { Build::RELEASE };
    let wanted = SERVERS.into_iter().filter(|store| args.only.as_deref().is_none_or(|only| only == *store));
    let with = wanted.map(|store| Ok((store, build.tools_with(store)?))).collect::<Result<Vec<_>>>()?;
    run(&mut build.cargo(["build", "--locked", "--package", "locks-cli", "--bins"]))?;
    // Its lock file follows the workspace's; that it was committed so is for `cargo xtask lint` to say.
    let profile = ["--profile", build.profile];
    run(cargo_in(BENCH, ["build", "--bins"])?.args(profile))?;
    let table = root().join("target/bench.md");
    let mut bench = cargo_in(BENCH, ["run", "--quiet"])?;
    // A container would be measured, too.
    bench.env(SERVERS_VARIABLE, Mode::Native.to_string());
    bench.args(profile).arg("--");
    bench.arg("--tools").arg(build.tools()).arg("--table").arg(&table);
    for (store, tools) in with {
        bench.arg(format!("--{store}-tools")).arg(tools);
    }
    if let Some(store) = &args.only {
        bench.arg("--only").arg(store);
    }
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
/// else uses the machine, and is no reason to fail, so nothing is optimised.
///
/// # Errors
///
/// As [`run_and_report`], or if a server program is missing.
pub(crate) fn smoke(servers: &Servers) -> Result<()> {
    servers.in_mode(Mode::Native).prepare(&SERVERS.map(str::to_owned))?;
    run_and_report(&Args { quick: true, dev: true, write: false, only: None })
}

/// How what is measured is built, and where it is then.
struct Build {
    profile: &'static str,
    directory: &'static str,
}

impl Build {
    const RELEASE: Self = Self { profile: "release", directory: "release" };
    const DEV: Self = Self { profile: "dev", directory: "debug" };

    fn cargo<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut cargo = cargo(args);
        cargo.args(["--profile", self.profile]);
        cargo
    }

    /// Builds `lock-block` with the feature of a store and puts it aside: what is measured on files is the tool without it.
    fn tools_with(&self, feature: &str) -> Result<PathBuf> {
        let mut build = self.cargo(["build", "--locked", "--package", "locks-cli", "--bins"]);
        run(build.args(["--features", feature]))?;
        let aside = self.tools().join(format!("with-{feature}"));
        fs::create_dir_all(&aside).with_context(|| format!("can't make {}", aside.display()))?;
        let (from, to) = (self.tools().join("lock-block"), aside.join("lock-block"));
        fs::copy(&from, &to).with_context(|| format!("can't copy {}", from.display()))?;
        Ok(aside)
    }

    fn tools(&self) -> PathBuf {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        target.join(self.directory)
    }
}
