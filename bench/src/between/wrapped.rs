//! `lock-block` around a command that does nothing, beside the least that a wrapper could do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Store;
use crate::rounds::{Effort, Spread, interleaved};
use crate::scripts::time;
use crate::table::{Goal, Table, Unit};

/// `least` is the other wrapper with its command, `goal` how much longer ours may take.
pub(crate) fn measure(
    effort: Effort,
    tools: &Path,
    store: &impl Store,
    (what, least): (&str, &dyn Fn() -> Command),
    goal: f64,
    table: &mut Table,
) -> Result<()> {
    let ours = || {
        let mut command = Command::new(tools.join("lock-block"));
        command.args(["--url", store.locks(), "--name", "wrapped", "--", "true"]);
        command
    };
    let [ours, theirs] =
        interleaved(effort, [&mut || time(effort.spawns, ours), &mut || time(effort.spawns, least)])?;
    table.row(what, Goal::AtMost(goal), Unit::Times, Spread::of_ratios(&ours, &theirs));
    Ok(())
}

/// One of the other programs of this package.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe().context("can't find this program")?.with_file_name(name))
}
