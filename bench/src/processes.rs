//! Several processes that want the same lock.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use locks_api::Locks;
use locks_backend_file::FileBackend;
use rustix::fs::{FlockOperation, flock};
use tokio::runtime::Builder;

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
    let started: Vec<Running> =
        (0..PROCESSES).map(|_| Running::start(dir, with, time)).collect::<Result<_>>()?;
    let ready: Vec<Running> = started.into_iter().map(Running::wait_until_ready).collect::<Result<_>>()?;
    let gone: Vec<Running> = ready.into_iter().map(Running::go).collect::<Result<_>>()?;
    gone.into_iter().map(Running::outcome).collect()
}

/// One of the processes, as the measurement sees it.
struct Running {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Running {
    fn start(dir: &Path, with: With, time: Duration) -> Result<Self> {
        let with = with.to_possible_value().context("a way to lock without a name")?;
        let mut child = Command::new(std::env::current_exe().context("can't find this program")?)
            .arg("contender")
            .arg(dir)
            .arg(with.get_name())
            .arg(time.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't start a contender")?;
        let says = BufReader::new(child.stdout.take().context("the contender's output is not piped")?);
        Ok(Self { child, says })
    }

    fn wait_until_ready(mut self) -> Result<Self> {
        self.line()?;
        Ok(self)
    }

    fn go(mut self) -> Result<Self> {
        let mut stdin = self.child.stdin.take().context("the contender's input is not piped")?;
        stdin.write_all(b"go\n").context("can't start the contention")?;
        Ok(self)
    }

    fn outcome(mut self) -> Result<Outcome> {
        let line = self.line()?;
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next().with_context(|| format!("a contender said {line:?}"));
        let outcome = Outcome { share: next()??, overlaps: next()?? };
        let status = self.child.wait().context("can't wait for a contender")?;
        anyhow::ensure!(status.success(), "a contender failed: {status}");
        Ok(outcome)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line).context("can't hear a contender")?;
        anyhow::ensure!(!line.is_empty(), "a contender ended early");
        Ok(line)
    }
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
