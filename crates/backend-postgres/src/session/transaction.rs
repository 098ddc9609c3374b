//! Locks that a transaction of the user's has.

use std::any::Any;
use std::time::Duration;

use locks_api::spi::async_trait;
use locks_api::{Boottime, Error, ErrorKind, FencingToken, Lock, Result};
use sqlx::postgres::{PgConnection, PgTransaction};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, raw_sql};
use tokio::time::timeout;

use super::line::CONNECTED_WITHIN;
use super::server::{LOOK, Look};
use super::{Place, PostgresSessionBackend};
use crate::error::{classify, strange};
use crate::record::Answer;

/// Takes a lock for a transaction of the user's: it is given back by the commit or the rollback, and by nothing else.
///
/// For locks of `mode=session`, with which it shares the keys: whoever holds the lock by a guard keeps the transaction out, and the transaction keeps out whoever
/// wants it by a guard. It does not share their limits: it needs no session of ours and is not renewed, and where the database is reached through a pooler in
/// transaction mode it works too.
#[async_trait]
pub trait AcquireIn {
    /// Waits until the transaction has the lock. Returns the number of this hold.
    ///
    /// Call it as the first statement after `begin`: what the last holder has committed is seen by what follows. The transaction must be READ COMMITTED, which is
    /// PostgreSQL's default; a stricter one would go on looking at the database as it was when it began to wait. Taken again in the same transaction it is
    /// granted again. Options of the lock, such as its ttl, mean nothing here: there is no guard that could be lost.
    ///
    /// It waits by trying, at first after a millisecond and later four times a second, and in no order, so that contention never aborts the transaction and no
    /// statement of it stands still. A wait has no limit of its own; to give up after a while, call [`try_acquire_in`](Self::try_acquire_in) as often as
    /// you like. Two transactions that have what the other one waits for wait for ever, which the server can't notice.
    ///
    /// After a crash or a fail-over of the server nothing is had before the [grace](crate::PostgresOptions::restart_grace) is over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the lock is of another kind of store or mode, or the transaction of another database;
    /// [`ErrorKind::Unsupported`] at another isolation level, on a read-only replica and on a server that is too old; [`ErrorKind::InvalidName`];
    /// [`ErrorKind::Unavailable`] if the database of the lock can't be reached, to see which one it is. After these the transaction is as before. Otherwise as a statement fails,
    /// after which it is aborted.
    ///
    /// # Cancel safety
    ///
    /// As with any statement: a transaction whose statement was dropped is only good for a rollback. Until then it may have the lock.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use locks_backend_postgres::AcquireIn as _;
    /// use locks_backend_postgres::sqlx::{Executor as _, PgPool};
    ///
    /// let url = "postgres://app:secret@db1/app";
    /// let locks = locks_backend_postgres::open(&format!("{url}?mode=session"))?;
    /// let pool = PgPool::connect(url).await?;
    /// let mut transaction = pool.begin().await?;
    /// locks.lock("closing").acquire_in(&mut transaction).await?;
    /// transaction.execute("UPDATE account SET balance = 0").await?;
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    async fn acquire_in(&self, transaction: &mut PgTransaction<'_>) -> Result<FencingToken>;

    /// Gets the lock for the transaction if it is free now; `None` if it is not, or in a [grace](crate::PostgresOptions::restart_grace). The transaction goes on either way.
    ///
    /// # Errors
    ///
    /// As [`acquire_in`](Self::acquire_in).
    ///
    /// # Cancel safety
    ///
    /// As [`acquire_in`](Self::acquire_in).
    async fn try_acquire_in(&self, transaction: &mut PgTransaction<'_>) -> Result<Option<FencingToken>>;
}

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

#[async_trait]
impl AcquireIn for Lock {
    async fn acquire_in(&self, transaction: &mut PgTransaction<'_>) -> Result<FencingToken> {
        let wanted = Wanted::of(self, transaction).await?;
        let mut pause = Duration::from_millis(1);
        loop {
            let grace = wanted.no_grants_before.since(Boottime::now());
            if !grace.is_zero() {
                passed(grace).await;
            }
            if let Some(token) = wanted.take(transaction).await? {
                return Ok(token);
            }
            passed(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = pause.mul_f64(1.5).min(LONGEST_PAUSE);
        }
    }

    async fn try_acquire_in(&self, transaction: &mut PgTransaction<'_>) -> Result<Option<FencingToken>> {
        let wanted = Wanted::of(self, transaction).await?;
        if wanted.no_grants_before > Boottime::now() {
            return Ok(None);
        }
        wanted.take(transaction).await
    }
}

/// A lock that a transaction may have.
struct Wanted {
    key: i64,
    no_grants_before: Boottime,
}

impl Wanted {
    async fn of(lock: &Lock, transaction: &mut PgTransaction<'_>) -> Result<Self> {
        let backend: &dyn Any = lock.backend();
        let Some(backend) = backend.downcast_ref::<PostgresSessionBackend>() else {
            return Err(Error::new(
                ErrorKind::Config,
                "only a lock of PostgreSQL's mode=session can be had by a transaction; in mode=lease a guard can be verified in one",
            ));
        };
        let name = lock.lock_name()?;
        let row = transaction.fetch_one(raw_sql(LOOK)).await.map_err(classify)?;
        let isolation: &str = Answer(&row).get("isolation")?;
        if !matches!(isolation, "read committed" | "read uncommitted") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "a {isolation} transaction looks at the database as it was when the transaction began, not as the last holder of the \
                     lock left it; take the lock in a READ COMMITTED one"
                ),
            ));
        }
        let look = Look::read(&row)?;
        let no_grants_before = backend.recognise(&look).await?;
        Ok(Self { key: backend.place.keys(name).key, no_grants_before })
    }

    /// Tries once. The number is drawn after the lock is had.
    async fn take(&self, transaction: &mut PgTransaction<'_>) -> Result<Option<FencingToken>> {
        let take = format!(
            "SELECT CASE WHEN pg_catalog.pg_try_advisory_xact_lock({}) \
             THEN (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::bigint END AS at",
            self.key
        );
        let row = transaction.fetch_one(raw_sql(AssertSqlSafe(take))).await.map_err(classify)?;
        let Some(at) = Answer(&row).get::<Option<i64>>("at")? else { return Ok(None) };
        let token = u64::try_from(at).ok().and_then(FencingToken::new);
        token.map(Some).ok_or_else(|| strange(at))
    }
}

impl PostgresSessionBackend {
    /// Until when nothing is granted in the life of the database that was seen. Fails with [`ErrorKind::Config`] if it is not our database.
    async fn recognise(&self, seen: &Look) -> Result<Boottime> {
        if self.known().life() != Some(seen.life) {
            let ours = self.place.look().await?;
            self.known().see(&ours, self.place.max_ttl());
            if ours.life != seen.life {
                return Err(Error::new(
                    ErrorKind::Config,
                    "the transaction is not of the database in which the lock is",
                ));
            }
        }
        let no_grants_before = self.known().see(seen, self.place.max_ttl());
        Ok(if self.place.options.restart_grace { no_grants_before } else { Boottime::from_nanos(0) })
    }
}

impl Place {
    /// Which life of the database ours is, by a connection that is made for that alone.
    async fn look(&self) -> Result<Look> {
        let looking = async {
            let client = self.client.clone().application_name("locks");
            let mut connection = PgConnection::connect_with(&client).await.map_err(classify)?;
            let row = connection.fetch_one(raw_sql(LOOK)).await.map_err(classify)?;
            // The server notices either way.
            drop(connection.close().await);
            Look::read(&row)
        };
        timeout(CONNECTED_WITHIN, looking).await.unwrap_or_else(|_| {
            let message = format!("the server did not answer within {CONNECTED_WITHIN:?}");
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }
}

/// Waits for so long: until a grace is over, or before it tries again.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing is synchronised by it; advisory locks of a transaction can't be waited for without aborting it"
)]
async fn passed(time: Duration) {
    tokio::time::sleep(time).await;
}
