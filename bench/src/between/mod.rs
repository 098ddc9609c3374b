//! Locks that pass between processes over a server: what is measured alike on all stores.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use locks_api::Locks;
use locks_backend_etcd::EtcdBackend;
use locks_backend_postgres::{PostgresBackend, PostgresSessionBackend};
use locks_backend_redis::RedisBackend;
use tokio::runtime::{Builder, Runtime};

mod contender;
pub(crate) mod contention;
pub(crate) mod crowd;
pub(crate) mod drain;
pub(crate) mod held;
pub(crate) mod wrapped;

pub(crate) use contender::{Contender, With};
pub(crate) use crowd::Crowd;

use crate::cores::Cores;
use crate::rounds::{Effort, Spread};
use crate::table::{Goal, Table};

/// Processes that contend.
pub(crate) const PROCESSES: usize = 8;

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// What is measured on a store that is a server. Each part starts one of its own.
pub(crate) struct OnServer {
    /// Fails if there is no server to measure with, before anything has taken its time.
    pub(crate) check: fn() -> Result<()>,
    /// On one core, shared with the server, and then on two, of which the server has one.
    pub(crate) measure: fn(Effort, &Cores, &mut Table) -> Result<()>,
    /// The commands in this directory, on the same cores.
    pub(crate) commands: fn(Effort, &Cores, &Path, &mut Table) -> Result<()>,
    /// What does not depend on cores.
    pub(crate) footprint: fn(Effort, &mut Table) -> Result<()>,
}

/// A server that keeps locks, and what it says of itself.
pub(crate) trait Store {
    /// What the table calls it.
    fn name(&self) -> &'static str;

    /// Where it is, for peers.
    fn url(&self) -> &str;

    /// Where it is, for locks.
    fn locks(&self) -> &str;

    /// Connections of others than ourselves.
    fn connections(&self) -> Result<usize>;

    /// What others have asked of it so far, if all of them lock with the same.
    fn requests(&self, with: With) -> Result<u64>;

    /// Who waits for this lock, by ticket: claims.
    fn queue(&self, name: &str) -> Result<Vec<u128>>;

    /// What a hand-off may take, in bare round trips, if the server has a core of its own.
    fn gap_goal(&self) -> Goal;
}

/// Waits until so many wait for these locks together.
fn wait_for_queue(store: &impl Store, names: &[String], count: usize) -> Result<()> {
    eventually("all wait", || {
        let mut waiting = 0;
        for name in names {
            waiting += store.queue(name)?.len();
        }
        Ok(waiting >= count)
    })
}

/// Polls until it is so: nothing tells us when what a server says of itself changes.
#[expect(clippy::disallowed_methods, reason = "a poll with a limit, which leaves the server time for others")]
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let limit = Instant::now() + LIMIT;
    while !is_so()? {
        if Instant::now() > limit {
            bail!("not within {LIMIT:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Locks on the server that this URL names.
fn open(url: &str, hand_on: bool) -> Result<Locks> {
    let locks = if url.starts_with("redis") {
        Locks::builder(RedisBackend::from_url(url)?)
    } else if url.starts_with("etcd") {
        Locks::builder(EtcdBackend::from_url(url)?)
    } else if url.contains("mode=session") {
        Locks::builder(PostgresSessionBackend::from_url(url)?)
    } else {
        Locks::builder(PostgresBackend::from_url(url)?)
    };
    Ok(locks.hand_on(hand_on).build())
}

pub(crate) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("can't start a runtime")
}

/// A runtime whose tasks go on while nobody waits for them.
pub(crate) fn one_worker() -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().context("can't start a runtime")
}

/// Seconds for each of so many times.
pub(crate) fn each(runtime: &Runtime, times: u32, mut what: impl AsyncFnMut() -> Result<()>) -> Result<f64> {
    runtime.block_on(async {
        let start = Instant::now();
        for _ in 0..times {
            what().await?;
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(times))
    })
}

/// The seconds of one in the middle of so many times.
pub(crate) fn median(
    runtime: &Runtime,
    times: u32,
    mut what: impl AsyncFnMut() -> Result<()>,
) -> Result<f64> {
    runtime.block_on(async {
        let mut seconds = Vec::new();
        for _ in 0..times {
            let start = Instant::now();
            what().await?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(Spread::of(&seconds).median)
    })
}
