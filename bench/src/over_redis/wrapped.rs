//! `lock-block` over Redis around a command that does nothing, beside the least that a wrapper could do.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::server::Server;
use crate::rounds::{Effort, Spread, interleaved};
use crate::scripts::time;
use crate::table::{Goal, Table, Unit};

pub(crate) fn measure(effort: Effort, tools: &Path, server: &Server, table: &mut Table) -> Result<()> {
    let least = std::env::current_exe().context("can't find this program")?.with_file_name("blocking");
    let ours = || {
        let mut command = Command::new(tools.join("lock-block"));
        command.args(["--url", server.locks(), "--name", "wrapped", "--", "true"]);
        command
    };
    let theirs = || {
        let mut command = Command::new(&least);
        command.args([&server.address(), "wrapped-bare", "true"]);
        command
    };
    let [ours, theirs] =
        interleaved(effort, [&mut || time(effort.spawns, ours), &mut || time(effort.spawns, theirs)])?;
    let what = "`lock-block -- true` on Redis, over SET NX and compare-and-delete on a blocking socket";
    table.row(what, Goal::AtMost(1.6), Unit::Times, Spread::of_ratios(&ours, &theirs));
    Ok(())
}
