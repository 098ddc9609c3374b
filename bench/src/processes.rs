//! Several processes that want the same lock.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use locks_api::Locks;
use locks_backend_file::FileBackend;
use rustix::fs::{FlockOperation, flock};
use tokio::runtime::Builder;

use crate::child::Child;
use crate::rounds::{Effort, Spread, interleaved, jain};
use crate::table::{Goal, Table, Unit};

const PROCESSES: usize = 8;

pub(crate) fn measure(effort: Effort, table: &mut Table) -> Result<()> {
    let overlaps = Cell::new(0);
    let turn = |with: With| {
        let dir = tempfile::tempdir().context("can't make a directory")?;
        let outcomes = contend(dir.path(), with, effort.contention)?;
        overlaps.set(overlaps.get() + outcomes.iter().map(|outcome| outcome.overlaps).sum::<u64>());
        let shares: Vec<u64> = outcomes.iter().map(|outcome| outcome.share).collect();
        Ok(jain(&shares))
    };
    let [ours, plain] = interleaved(effort, [&mut || turn(With::Locks), &mut || turn(With::Flock)])?;
    table.count_overlaps(overlaps.get());
    let what = format!("file, fairness over {PROCESSES} processes, Jain");
    table.row(what, Goal::AtLeast(0.95), Unit::Number, Spread::of(&ours));
    let what = format!("plain flock, fairness over {PROCESSES} processes, Jain");
    table.row(what, Goal::None, Unit::Number, Spread::of(&plain));
    Ok(())
}

/// What a process locks with.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum With {
    Locks,
    Flock,
}

struct Outcome {
    share: u64,
    overlaps: u64,
}

/// Starts all processes, lets them go together and asks each what it got.
fn contend(dir: &Path, with: With, time: Duration) -> Result<Vec<Outcome>> {
    let with = with.to_possible_value().context("a way to lock without a name")?;
    let milliseconds = time.as_millis().to_string();
    let arguments = ["contender".as_ref(), dir.as_os_str(), with.get_name().as_ref(), milliseconds.as_ref()];
    let mut children: Vec<Child> = (0..PROCESSES).map(|_| Child::start(arguments)).collect::<Result<_>>()?;
    for child in &mut children {
        child.hear()?;
    }
    for child in &mut children {
        child.tell("go")?;
    }
    children.into_iter().map(outcome).collect()
}

fn outcome(mut child: Child) -> Result<Outcome> {
    let said = child.numbers()?;
    let [share, overlaps] = said[..] else { bail!("a contender said {said:?}") };
    child.end()?;
    Ok(Outcome { share, overlaps })
}

/// One of the processes, as it sees itself.
#[derive(clap::Args)]
pub(crate) struct Contender {
    dir: PathBuf,
    with: With,
    milliseconds: u64,
}

impl Contender {
    /// Says that it is ready, waits for the word, takes the lock as often as it can, and says how often that was.
    pub(crate) fn run(&self) -> Result<()> {
        let mut watch = Watch { marker: self.dir.join("held"), share: 0, overlaps: 0 };
        match self.with {
            With::Locks => self.contend_with_locks(&mut watch)?,
            With::Flock => self.contend_with_flock(&mut watch)?,
        }
        println!("{} {}", watch.share, watch.overlaps);
        Ok(())
    }

    fn contend_with_locks(&self, watch: &mut Watch) -> Result<()> {
        let lock = Locks::new(FileBackend::open(self.dir.join("locks"))?).lock("contended");
        let runtime = Builder::new_current_thread().build().context("can't start a runtime")?;
        let end = self.start_together()?;
        while Instant::now() < end {
            runtime.block_on(async {
                let guard = lock.acquire().await?;
                watch.pass()?;
                guard.release().await?;
                anyhow::Ok(())
            })?;
        }
        Ok(())
    }

    fn contend_with_flock(&self, watch: &mut Watch) -> Result<()> {
        let path = self.dir.join("raw");
        let end = self.start_together()?;
        while Instant::now() < end {
            let file =
                File::options().create(true).append(true).open(&path).context("can't open the lock file")?;
            flock(&file, FlockOperation::LockExclusive).context("can't lock")?;
            watch.pass()?;
        }
        Ok(())
    }

    fn start_together(&self) -> Result<Instant> {
        println!("ready");
        let mut word = String::new();
        std::io::stdin().read_line(&mut word).context("can't hear the word to go")?;
        Ok(Instant::now() + Duration::from_millis(self.milliseconds))
    }
}

/// Sees when two are inside: the marker can be made by one alone.
struct Watch {
    marker: PathBuf,
    share: u64,
    overlaps: u64,
}

impl Watch {
    fn pass(&mut self) -> Result<()> {
        if File::create_new(&self.marker).is_err() {
            self.overlaps += 1;
            return Ok(());
        }
        fs::remove_file(&self.marker).context("can't remove the marker")?;
        self.share += 1;
        Ok(())
    }
}
