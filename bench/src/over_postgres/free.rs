//! A free lock in PostgreSQL, taken and given back, beside the two bare round trips that nobody can do without.

use std::hint::black_box;

use anyhow::{Context as _, Result};
use distributed_lock_core::traits::{DistributedLock as _, LockHandle as _, LockProvider as _};
use distributed_lock_postgres::PostgresLockProvider;
use locks_api::Locks;
use locks_backend_postgres::{PostgresBackend, PostgresSessionBackend};
use sqlx::Connection as _;
use sqlx::postgres::{PgAdvisoryLock, PgConnection};
use tokio::runtime::Runtime;

use super::server::Server;
use crate::between::{Store as _, each, median, runtime};
use crate::cores::Cores;
use crate::rounds::{Effort, Spread, interleaved};
use crate::table::{Goal, Table, Unit};
use crate::uncontended::time_lock;

pub(crate) fn measure(effort: Effort, cores: &Cores, server: &Server, table: &mut Table) -> Result<()> {
    let lock = Locks::new(PostgresBackend::from_url(server.locks())?).lock("free");
    let session = format!("{}?mode=session&restart_grace=off", server.url());
    let session = Locks::new(PostgresSessionBackend::from_url(&session)?).lock("free");
    let mut bare = Bare::connect(server)?;
    let advisory = PgAdvisoryLock::new("free");
    let mut pair = Bare::connect(server)?;
    // Each has a runtime of its own, so that nobody's background tasks run in another one's turn.
    let (ours, sessions, sqlxs, theirs) = (runtime()?, runtime()?, runtime()?, runtime()?);
    let mut connection = sqlxs.block_on(PgConnection::connect(server.url())).context("can't connect")?;
    let provider =
        theirs.block_on(PostgresLockProvider::new(server.url())).context("distributed-lock-postgres")?;
    let trips = effort.trips;
    let [ours, sessions, bare, pair, sqlxs, theirs] = interleaved(
        effort,
        [
            &mut || time_lock(&ours, &lock, trips),
            &mut || time_lock(&sessions, &session, trips),
            &mut || Ok(2.0 * bare.trips(2 * trips)?),
            &mut || pair.pairs(trips),
            &mut || {
                each(&sqlxs, trips, async || {
                    advisory.acquire(&mut connection).await?.release_now().await?;
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
    let what = |who: &str| format!("{who}, free lock, acquire + release, over two bare round trips");
    let goal = Goal::AtMost(if cores.count() == 1 { 2.6 } else { 1.40 });
    table.row(what("postgres"), goal, Unit::Times, Spread::of_ratios(&ours, &bare));
    let goal = Goal::AtMost(if cores.count() == 1 { 1.35 } else { 1.15 });
    let over =
        "postgres mode=session, free lock, acquire + release, over pg_try_advisory_lock + pg_advisory_unlock";
    table.row(over, goal, Unit::Times, Spread::of_ratios(&sessions, &pair));
    table.row(what("postgres mode=session"), Goal::None, Unit::Times, Spread::of_ratios(&sessions, &bare));
    table.row(what("sqlx's advisory lock"), Goal::None, Unit::Times, Spread::of_ratios(&sqlxs, &bare));
    table.row(what("distributed-lock-postgres"), Goal::None, Unit::Times, Spread::of_ratios(&theirs, &bare));
    Ok(())
}

/// A client that does nothing but ask for a number.
pub(crate) struct Bare {
    runtime: Runtime,
    connection: PgConnection,
}

impl Bare {
    pub(crate) fn connect(server: &Server) -> Result<Self> {
        let runtime = runtime()?;
        let connection = runtime.block_on(PgConnection::connect(server.url())).context("can't connect")?;
        Ok(Self { runtime, connection })
    }

    /// Seconds for each of so many round trips.
    fn trips(&mut self, count: u32) -> Result<f64> {
        each(&self.runtime, count, async || ask(&mut self.connection).await)
    }

    /// Seconds for each of so many advisory locks, taken and given back.
    fn pairs(&mut self, count: u32) -> Result<f64> {
        let connection = &mut self.connection;
        each(&self.runtime, count, async || {
            for statement in ["SELECT pg_try_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"] {
                black_box(sqlx::query_scalar::<_, bool>(statement).fetch_one(&mut *connection).await?);
            }
            Ok(())
        })
    }

    /// The seconds of one in the middle of so many.
    pub(crate) fn trip(&mut self, count: u32) -> Result<f64> {
        median(&self.runtime, count, async || ask(&mut self.connection).await)
    }
}

async fn ask(connection: &mut PgConnection) -> Result<()> {
    black_box(sqlx::query_scalar::<_, i32>("SELECT 1").fetch_one(connection).await?);
    Ok(())
}
