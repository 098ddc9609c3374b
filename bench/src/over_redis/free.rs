//! A free lock on Redis, taken and given back, beside the two bare round trips that nobody can do without.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, Result};
use distributed_lock_core::traits::{DistributedLock as _, LockHandle as _, LockProvider as _};
use distributed_lock_redis::RedisLockProvider;
use locks_api::Locks;
use locks_backend_redis::RedisBackend;
use redis::Script;
use redis::aio::MultiplexedConnection;
use rslock::LockManager;
use tokio::runtime::Runtime;

use super::server::Server;
use crate::between::{Store as _, each, median, runtime};
use crate::cores::Cores;
use crate::rounds::{Effort, Spread, interleaved};
use crate::table::{Goal, Table, Unit};
use crate::uncontended::time_lock;

const TTL: Duration = Duration::from_secs(15);

pub(crate) fn measure(effort: Effort, cores: &Cores, server: &Server, table: &mut Table) -> Result<()> {
    let lock = Locks::new(RedisBackend::from_url(server.locks())?).lock("free");
    let mut bare = Bare::connect(server)?;
    let rslock = LockManager::new(vec![server.url()]);
    // Each has a runtime of its own, so that nobody's background tasks run in another one's turn.
    let (ours, rslocks, theirs) = (runtime()?, runtime()?, runtime()?);
    let provider = theirs.block_on(RedisLockProvider::new(server.url())).context("distributed-lock-redis")?;
    let trips = effort.trips;
    let [ours, bare, rslock, theirs] = interleaved(
        effort,
        [
            &mut || time_lock(&ours, &lock, trips),
            &mut || Ok(2.0 * bare.trips(2 * trips)?),
            &mut || {
                each(&rslocks, trips, async || {
                    rslock.acquire("free-rslock", TTL).await?.release().await;
                    Ok(())
                })
            },
            &mut || {
                each(&theirs, trips, async || {
                    Ok(provider.create_lock("free").acquire(None).await?.release().await?)
                })
            },
        ],
    )?;
    let what = |who: &str| format!("{who}, free lock, acquire + release, over two bare EVALSHA");
    let goal = Goal::AtMost(if cores.count() == 1 { 1.45 } else { 1.20 });
    table.row(what("redis"), goal, Unit::Times, Spread::of_ratios(&ours, &bare));
    table.row(what("rslock"), Goal::None, Unit::Times, Spread::of_ratios(&rslock, &bare));
    table.row(what("distributed-lock-redis"), Goal::None, Unit::Times, Spread::of_ratios(&theirs, &bare));
    Ok(())
}

/// A client that does nothing but ask for the shortest script that writes a key.
pub(crate) struct Bare {
    runtime: Runtime,
    connection: MultiplexedConnection,
    hash: String,
}

impl Bare {
    pub(crate) fn connect(server: &Server) -> Result<Self> {
        let runtime = runtime()?;
        let client = redis::Client::open(server.url()).context("a bad URL")?;
        let script = Script::new("return redis.call('INCR', KEYS[1])");
        let connection = runtime.block_on(async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            script.load_async(&mut connection).await?;
            redis::RedisResult::Ok(connection)
        })?;
        Ok(Self { runtime, connection, hash: script.get_hash().to_owned() })
    }

    /// Seconds for each of so many round trips.
    fn trips(&mut self, count: u32) -> Result<f64> {
        let Self { runtime, connection, hash } = self;
        each(runtime, count, async || ask(connection, hash).await)
    }

    /// The seconds of one in the middle of so many.
    pub(crate) fn trip(&mut self, count: u32) -> Result<f64> {
        let Self { runtime, connection, hash } = self;
        median(runtime, count, async || ask(connection, hash).await)
    }
}

async fn ask(connection: &mut MultiplexedConnection, hash: &str) -> Result<()> {
    let mut script = redis::cmd("EVALSHA");
    script.arg(hash).arg(1).arg("bare");
    black_box(script.query_async::<u64>(connection).await?);
    Ok(())
}
