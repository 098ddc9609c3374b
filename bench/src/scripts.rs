//! `lock-block` around a command that does nothing, beside flock(1).

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::rounds::{Effort, Spread, interleaved};
use crate::table::{Goal, Table, Unit};

pub(crate) fn measure(effort: Effort, tools: &Path, table: &mut Table) -> Result<()> {
    let dir = tempfile::tempdir().context("can't make a directory")?;
    let [ours, flocks, plain] = interleaved(
        effort,
        [
            &mut || time(effort.spawns, || lock_block(tools, dir.path(), "true")),
            &mut || time(effort.spawns, || flock(dir.path(), "true")),
            &mut || time(effort.spawns, || Command::new("true")),
        ],
    )?;
    let what = "`lock-block -- true` on a file, over `flock FILE true`";
    table.row(what, Goal::AtMost(1.10), Unit::Times, Spread::of_ratios(&ours, &flocks));
    let added = |wrapped: &[f64]| wrapped.iter().zip(&plain).map(|(all, own)| all - own).collect::<Vec<_>>();
    let what = "what `lock-block` adds to plain `true`, over what flock(1) adds";
    table.row(what, Goal::AtMost(1.10), Unit::Times, Spread::of_ratios(&added(&ours), &added(&flocks)));
    Ok(())
}

/// What the program weighs, on disk and in memory.
pub(crate) fn footprint(tools: &Path, table: &mut Table) -> Result<()> {
    let dir = tempfile::tempdir().context("can't make a directory")?;
    let binary = fs::metadata(tools.join("lock-block")).context("no lock-block among the tools")?.len();
    table.row("`lock-block`, size of the program", Goal::AtMost(4.0), Unit::MiB, Spread::of(&[mib(binary)]));
    let what = "`lock-block` on a file, most memory resident";
    let resident = Spread::of(&[resident(lock_block(tools, dir.path(), "cat"))?]);
    table.row(what, Goal::AtMost(4.0), Unit::MiB, resident);
    let resident = Spread::of(&[self::resident(flock(dir.path(), "cat"))?]);
    table.row("flock(1), most memory resident", Goal::None, Unit::MiB, resident);
    Ok(())
}

/// `lock-block` around `program`, with its lock in `dir`.
pub(crate) fn lock_block(tools: &Path, dir: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(tools.join("lock-block"));
    command.arg("--url").arg(format!("file:{}", dir.join("locks").display()));
    command.args(["--name", "measured", "--"]).arg(program);
    command
}

/// flock(1) around `program`, with its lock in `dir`.
pub(crate) fn flock(dir: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("flock");
    command.arg(dir.join("flock")).arg(program);
    command
}

/// Seconds per run.
pub(crate) fn time(spawns: u32, command: impl Fn() -> Command) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..spawns {
        let status = command().status().with_context(|| format!("can't start {:?}", command()))?;
        ensure!(status.success(), "{:?} failed: {status}", command());
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(spawns))
}

/// The most memory that the wrapper itself had resident, in MiB. Its command is `cat`, which lives for as long as we look.
///
/// What the kernel tells a parent about a dead child can't be used: it includes what the parent had before the child
/// became another program.
fn resident(mut command: Command) -> Result<f64> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("can't start the wrapper")?;
    let mut stdin = child.stdin.take().context("its input is not piped")?;
    let mut stdout = child.stdout.take().context("its output is not piped")?;
    stdin.write_all(b"x").context("can't write to cat")?;
    stdout.read_exact(&mut [0]).context("can't read from cat")?;
    let path = format!("/proc/{}/status", child.id());
    let status = fs::read_to_string(&path).with_context(|| format!("can't read {path}"))?;
    drop(stdin);
    ensure!(child.wait().context("can't wait for the wrapper")?.success(), "{command:?} failed");
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in its status")?;
    let kib: u64 =
        peak.trim().trim_end_matches(" kB").parse().with_context(|| format!("VmHWM is {peak:?}"))?;
    Ok(mib(kib * 1024))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
