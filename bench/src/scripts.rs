//! `lock-block` around a command that does nothing, beside flock(1) and setlock.

use std::fs;
use std::io::{self, Read as _, Write as _};
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
    let what = "`lock-block -- true` on a file, over plain `true`";
    table.row(what, Goal::None, Unit::Times, Spread::of_ratios(&ours, &plain));
    let mut start = || time(effort.spawns, || version(tools));
    let mut plain = || time(effort.spawns, || Command::new("true"));
    let [start, plain] = interleaved(effort, [&mut start, &mut plain])?;
    let what = "`lock-block --version`, from its start to its end, over plain `true`";
    table.row(what, Goal::None, Unit::Times, Spread::of_ratios(&start, &plain));
    beside_setlock(effort, tools, dir.path(), table)
}

/// setlock of daemontools, where it is installed.
fn beside_setlock(effort: Effort, tools: &Path, dir: &Path, table: &mut Table) -> Result<()> {
    let setlock = || {
        let mut command = Command::new("setlock");
        command.arg(dir.join("setlock")).arg("true");
        command
    };
    match setlock().status() {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            table.note("Not installed: setlock (the package daemontools)");
            return Ok(());
        }
        Err(error) => return Err(error).context("can't start setlock"),
    }
    let mut ours = || time(effort.spawns, || lock_block(tools, dir, "true"));
    let mut theirs = || time(effort.spawns, setlock);
    let [ours, theirs] = interleaved(effort, [&mut ours, &mut theirs])?;
    let what = "`lock-block -- true` on a file, over `setlock FILE true`";
    table.row(what, Goal::None, Unit::Times, Spread::of_ratios(&ours, &theirs));
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

fn version(tools: &Path) -> Command {
    let mut command = Command::new(tools.join("lock-block"));
    command.arg("--version").stdout(Stdio::null());
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
