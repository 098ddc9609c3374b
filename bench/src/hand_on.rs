//! Many tasks of one process that want the same lock.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use locks_api::spi::Backend;
use locks_api::{Lock, LockGuard, Locks};
use locks_backend_file::FileBackend;
use locks_backend_memory::MemoryBackend;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinSet;

use crate::counting::Counting;
use crate::rounds::{Effort, Spread, interleaved, jain};
use crate::table::{Goal, Table, Unit};

const TASKS: usize = 64;

pub(crate) fn measure(effort: Effort, cores: usize, table: &mut Table) -> Result<()> {
    let runtime =
        Builder::new_multi_thread().worker_threads(cores).build().context("can't start a runtime")?;
    let dir = tempfile::tempdir().context("can't make a directory")?;
    let open = |name: &str| FileBackend::open(dir.path().join(name));
    counted("file", effort, &runtime, table, open("handed-on")?, open("by-the-store")?)?;
    counted("memory", effort, &runtime, table, MemoryBackend::new(), MemoryBackend::new())
}

/// Compares over stores that can't say how often they were asked.
fn counted(
    store: &str,
    effort: Effort,
    runtime: &Runtime,
    table: &mut Table,
    handed_on: impl Backend,
    by_the_store: impl Backend,
) -> Result<()> {
    let handed_on = Counting::new(handed_on);
    let asked = handed_on.counter();
    let asked = || Ok(asked.load(Ordering::Relaxed));
    compare(store, effort, runtime, table, handed_on, by_the_store, &asked)
}

/// Hand-on over `handed_on`, hand-offs over `by_the_store`. `asked` says how many requests there were so far.
pub(crate) fn compare(
    store: &str,
    effort: Effort,
    runtime: &Runtime,
    table: &mut Table,
    handed_on: impl Backend,
    by_the_store: impl Backend,
    asked: &dyn Fn() -> Result<u64>,
) -> Result<()> {
    let with = Subject::Lock(Locks::new(handed_on).lock("contended"));
    let without = Subject::Lock(Locks::builder(by_the_store).hand_on(false).build().lock("contended"));
    let tokios = Subject::Mutex(Arc::default());
    let overlaps = Cell::new(0);
    let turn = |subject: &Subject| {
        let outcome = contend(runtime, subject, effort.contention)?;
        overlaps.set(overlaps.get() + outcome.overlaps);
        anyhow::Ok(outcome)
    };
    let mut fairness = Vec::new();
    let mut requests = Vec::new();
    let [with, without, tokios] = interleaved(
        effort,
        [
            &mut || {
                let before = asked()?;
                let outcome = turn(&with)?;
                fairness.push(jain(&outcome.shares));
                requests.push((asked()? - before) as f64 / outcome.total());
                Ok(outcome.per_second())
            },
            &mut || Ok(turn(&without)?.per_second()),
            &mut || Ok(turn(&tokios)?.per_second()),
        ],
    )?;
    table.count_overlaps(overlaps.get());
    let what = |what: &str| format!("{store}, {TASKS} tasks of a process, {what}");
    let ratio = Spread::of_ratios(&with, &without);
    table.row(what("hand-offs over the same without hand-on"), Goal::AtLeast(25.0), Unit::Times, ratio);
    let ratio = Spread::of_ratios(&with, &tokios);
    table.row(what("hand-offs over tokio's Mutex"), Goal::AtLeast(0.25), Unit::Times, ratio);
    let requests = Spread::of(&requests);
    table.row(what("requests to the store per hand-off"), Goal::AtMost(0.1), Unit::Number, requests);
    table.row(what("fairness (Jain)"), Goal::AtLeast(0.99), Unit::Number, Spread::of(&fairness));
    Ok(())
}

/// What the tasks contend for.
#[derive(Clone)]
enum Subject {
    Lock(Lock),
    Mutex(Arc<Mutex<()>>),
}

/// Holds either of them.
enum Guard {
    Lock(LockGuard),
    Mutex(OwnedMutexGuard<()>),
}

impl Subject {
    async fn acquire(&self) -> Result<Guard> {
        Ok(match self {
            Self::Lock(lock) => Guard::Lock(lock.acquire().await?),
            Self::Mutex(mutex) => Guard::Mutex(Arc::clone(mutex).lock_owned().await),
        })
    }
}

impl Guard {
    async fn release(self) -> Result<()> {
        match self {
            Self::Lock(guard) => guard.release().await?,
            Self::Mutex(guard) => drop(guard),
        }
        Ok(())
    }
}

struct Outcome {
    seconds: f64,
    shares: Vec<u64>,
    overlaps: u64,
}

impl Outcome {
    fn total(&self) -> f64 {
        self.shares.iter().sum::<u64>() as f64
    }

    fn per_second(&self) -> f64 {
        self.total() / self.seconds
    }
}

/// Lets the tasks take the lock in turns for this long.
///
/// It is held until all of them are there, since a task that is alone never has to wait and so never lets the others start.
#[expect(
    clippy::disallowed_methods,
    reason = "how long they contend is what is chosen, nothing waits for it"
)]
fn contend(runtime: &Runtime, subject: &Subject, time: Duration) -> Result<Outcome> {
    let arena = Arc::new(Arena::default());
    let gate = runtime.block_on(subject.acquire())?;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn_on(contender(subject.clone(), Arc::clone(&arena)), runtime.handle());
    }
    while arena.arrived.load(Ordering::SeqCst) < TASKS {
        std::thread::yield_now();
    }
    let start = Instant::now();
    runtime.block_on(gate.release())?;
    std::thread::sleep(time);
    arena.stop.store(true, Ordering::SeqCst);
    let seconds = start.elapsed().as_secs_f64();
    let mut shares = Vec::new();
    while let Some(share) = runtime.block_on(tasks.join_next()) {
        shares.push(share.context("a task panicked")??);
    }
    Ok(Outcome { seconds, shares, overlaps: arena.overlaps.load(Ordering::SeqCst) })
}

async fn contender(subject: Subject, arena: Arc<Arena>) -> Result<u64> {
    arena.arrived.fetch_add(1, Ordering::SeqCst);
    let mut share = 0;
    loop {
        let guard = subject.acquire().await?;
        arena.pass();
        guard.release().await?;
        if arena.stop.load(Ordering::Relaxed) {
            return Ok(share);
        }
        share += 1;
    }
}

/// Where they meet, and who sees when two are inside.
#[derive(Default)]
struct Arena {
    arrived: AtomicUsize,
    stop: AtomicBool,
    inside: AtomicU32,
    overlaps: AtomicU64,
}

impl Arena {
    fn pass(&self) {
        if self.inside.fetch_add(1, Ordering::SeqCst) != 0 {
            self.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}
