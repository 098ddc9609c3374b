//! Twenty commands that wait for the same lock in a shell, beside flock(1).

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::DirEntryExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use locks_api::Locks;
use locks_backend_file::FileBackend;
use rustix::fs::FlockOperation;
use tokio::runtime::Builder;

use crate::rounds::{Effort, Spread, interleaved};
use crate::scripts::{flock, lock_block};
use crate::table::{Goal, Table, Unit};

const WAITERS: usize = 20;

pub(crate) fn measure(effort: Effort, tools: &Path, table: &mut Table) -> Result<()> {
    let dir = tempfile::tempdir().context("can't make a directory")?;
    let probe = std::env::current_exe().context("can't find this program")?.with_file_name("probe");
    let probed = |mut command: Command| {
        command.env("PROBE_MARKER", dir.path().join("held"));
        command
    };
    let runtime = Builder::new_current_thread().build().context("can't start a runtime")?;
    let held = Locks::new(FileBackend::open(dir.path().join("locks"))?).lock("measured");
    let overlaps = Cell::new(0);
    let mut ours = || {
        let guard = runtime.block_on(held.acquire())?;
        let release = || Ok(runtime.block_on(guard.release())?);
        hand_offs(dir.path(), || probed(lock_block(tools, dir.path(), &probe)), release, &overlaps)
    };
    let mut flocks = || {
        let file = File::create(dir.path().join("flock")).context("can't open the lock file")?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).context("can't lock")?;
        let release = || {
            drop(file);
            Ok(())
        };
        hand_offs(dir.path(), || probed(flock(dir.path(), &probe)), release, &overlaps)
    };
    let [ours, flocks] = interleaved(effort, [&mut ours, &mut flocks])?;
    table.count_overlaps(overlaps.get());
    let what = format!("{WAITERS} queued `lock-block` on a file, per hand-off, over flock(1)");
    table.row(what, Goal::AtMost(1.1), Unit::Times, Spread::of_ratios(&ours, &flocks));
    Ok(())
}

/// Seconds per hand-off, from the release until the last of the commands has ended.
fn hand_offs(
    dir: &Path,
    command: impl Fn() -> Command,
    release: impl FnOnce() -> Result<()>,
    overlaps: &Cell<u64>,
) -> Result<f64> {
    let mut children: Vec<Child> = (0..WAITERS)
        .map(|_| command().spawn().with_context(|| format!("can't start {:?}", command())))
        .collect::<Result<_>>()?;
    wait_until_all_wait(dir)?;
    let start = Instant::now();
    release()?;
    for child in &mut children {
        let status = child.wait().context("can't wait for a command")?;
        if status.code() == Some(OVERLAPPED) {
            overlaps.set(overlaps.get() + 1);
        } else {
            ensure!(status.success(), "{:?} failed: {status}", command());
        }
    }
    Ok(start.elapsed().as_secs_f64() / WAITERS as f64)
}

/// The probe's exit code when it found that another one was inside.
const OVERLAPPED: i32 = 3;

/// The kernel lists who is blocked on which file; nothing tells us when that changes.
fn wait_until_all_wait(dir: &Path) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        let files = inodes(dir)?;
        let locks = fs::read_to_string("/proc/locks").context("can't see who waits for file locks")?;
        let waiting = locks.lines().filter_map(waited_for).filter(|inode| files.contains(inode)).count();
        if waiting == WAITERS {
            return Ok(());
        }
        if Instant::now() > limit {
            bail!("only {waiting} of {WAITERS} commands wait");
        }
        std::thread::yield_now();
    }
}

/// The files in `dir` and in the directories below it.
fn inodes(dir: &Path) -> Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(dir).with_context(|| format!("can't list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("can't list {}", dir.display()))?;
        if entry.file_type().context("can't tell files from directories")?.is_dir() {
            inodes.append(&mut self::inodes(&entry.path())?);
        } else {
            inodes.insert(entry.ino());
        }
    }
    Ok(inodes)
}

/// The file that somebody waits for, from a line such as `1: -> FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`. The process can't be
/// told: for some kinds of locks the kernel does not say.
fn waited_for(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("-> ")?;
    rest.split_whitespace().nth(4)?.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_told_from_holders() {
        assert_eq!(waited_for("1: -> FLOCK  ADVISORY  WRITE 4711 fe:00:753934 0 EOF"), Some(753_934));
        assert_eq!(waited_for("7:  -> OFDLCK ADVISORY  WRITE -1 fe:00:753935 2 2"), Some(753_935));
        assert_eq!(waited_for("1: FLOCK  ADVISORY  WRITE 4711 fe:00:753934 0 EOF"), None);
    }
}
