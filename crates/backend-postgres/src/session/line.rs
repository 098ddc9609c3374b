//! The one connection, whose session has all advisory locks of a `Locks`.

use std::time::Duration;

use locks_api::{Boottime, Error, ErrorKind, Holder, Result};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{ConnectOptions as _, Connection as _, Postgres, query};
use tokio::time::timeout;

use super::Place;
use super::key::Keys;
use super::server::{LOOK, Look, pooled, unseen};
use crate::backend::{PATIENCE, each, only};
use crate::error::{classify, ends_connection};
use crate::listener::passed;
use crate::record::Answer;

/// How long it may take to connect.
pub(crate) const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// How long a connection may take before it is asked why.
const DOUBTED_AFTER: Duration = Duration::from_millis(250);

/// A session of our own.
///
/// It is that of a client that listens, even before it listens to anything: such a one reads while it is not asked anything, and so notices at once that
/// the server has ended the session.
#[derive(Debug)]
pub(crate) struct Line {
    listener: PgListener,
    pool: PgPool,
    /// The server's process. If another one answers, a pooler is in between.
    pid: i32,
    /// When the last answered question was sent: the server has not been without a word from us for longer than since then.
    used_at: Boottime,
    is_listening: bool,
    is_over: bool,
}

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Ours, when the server's clock showed so many µs.
    At(i64),
    /// Somebody has the lock under this name, or just tries to.
    Busy,
    /// Somebody has the key, and not under this name.
    Elsewhere,
}

impl Line {
    /// A session on a server that locks can rely on.
    pub(crate) async fn connect(place: &Place) -> Result<(Self, Look)> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(PATIENCE)
            .connect_lazy_with(place.client());
        let connecting = async {
            let mut listener = tokio::select! {
                listener = PgListener::connect_with(&pool) => listener,
                error = reason_against(place.client()) => Err(error),
            }
            .map_err(unseen)?;
            listener.eager_reconnect(false);
            let sent = Boottime::now();
            let row = query(LOOK).fetch_one(&mut listener).await.map_err(unseen)?;
            let look = Look::read(&row)?;
            // A pooler has not passed on what was sent with the connection.
            if look.idle_session_timeout != place.max_ttl() {
                return Err(pooled());
            }
            let pool = pool.clone();
            Ok((
                Self { listener, pool, pid: look.pid, used_at: sent, is_listening: false, is_over: false },
                look,
            ))
        };
        timeout(CONNECTED_WITHIN, connecting).await.unwrap_or_else(|_| Err(silent(CONNECTED_WITHIN)))
    }

    pub(crate) fn used_at(&self) -> Boottime {
        self.used_at
    }

    /// Whether nothing more can be done over it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// The next key whose bell was rung, while nothing is asked; `None` once the session has ended.
    pub(crate) async fn heard(&mut self) -> Option<i64> {
        while let Ok(Some(message)) = self.listener.try_recv().await {
            if let Ok(key) = message.payload().parse() {
                return Some(key);
            }
        }
        self.is_over = true;
        None
    }

    /// Hangs the bell of each, and listens to all bells. Whether it hangs now: not while somebody rings it.
    pub(crate) async fn hang(&mut self, keys: &[Keys], limit: Duration) -> Result<Vec<bool>> {
        if !self.is_listening {
            let sent = Boottime::now();
            match timeout(limit, self.listener.listen(CHANNEL)).await {
                Ok(Ok(())) => self.used_at = sent,
                Ok(Err(error)) => {
                    self.is_over = ends_connection(&error);
                    return Err(classify(error));
                }
                Err(_) => {
                    self.is_over = true;
                    return Err(silent(limit));
                }
            }
            self.is_listening = true;
        }
        let bells: Vec<i64> = keys.iter().map(|keys| keys.bell).collect();
        let rows = self.ask(query(HANG).bind(bells), limit).await?;
        each(rows, keys.len())?.iter().map(|row| Answer(row).get("hangs")).collect()
    }

    /// Takes down the bell of each, whether it hangs or not.
    pub(crate) async fn take_down(&mut self, keys: &[Keys], limit: Duration) -> Result<()> {
        let bells: Vec<i64> = keys.iter().map(|keys| keys.bell).collect();
        self.ask(query(TAKE_DOWN).bind(bells), limit).await.map(drop)
    }

    /// Tries to take each, without waiting.
    pub(crate) async fn take(&mut self, keys: &[Keys], limit: Duration) -> Result<Vec<Taken>> {
        let rows = match keys {
            [] => return Ok(Vec::new()),
            [one] => self.ask(query(TAKE).bind(one.key).bind(one.witness), limit).await?,
            _ => {
                let (keys, witnesses): (Vec<i64>, Vec<i64>) =
                    keys.iter().map(|keys| (keys.key, keys.witness)).unzip();
                self.ask(query(TAKE_ALL).bind(keys).bind(witnesses), limit).await?
            }
        };
        each(rows, keys.len())?.iter().map(|row| self.taken(row)).collect()
    }

    fn taken(&mut self, row: &PgRow) -> Result<Taken> {
        self.check(row)?;
        match Answer(row).get("at")? {
            BUSY => Ok(Taken::Busy),
            ELSEWHERE => Ok(Taken::Elsewhere),
            at => Ok(Taken::At(at)),
        }
    }

    /// Frees each, not before the server's clock has passed its number, and tells those who wait. Whether it was held.
    pub(crate) async fn give_back(&mut self, keys: &[(Keys, i64)], limit: Duration) -> Result<Vec<bool>> {
        let rows = match keys {
            [(one, last)] => {
                let statement = query(GIVE_BACK).bind(one.key).bind(one.witness).bind(one.bell).bind(*last);
                self.ask(statement, limit).await?
            }
            _ => {
                let of = |number: fn(&(Keys, i64)) -> i64| keys.iter().map(number).collect::<Vec<i64>>();
                let statement = query(GIVE_BACK_ALL)
                    .bind(of(|(keys, _)| keys.key))
                    .bind(of(|(keys, _)| keys.witness))
                    .bind(of(|(keys, _)| keys.bell))
                    .bind(of(|(_, last)| *last));
                self.ask(statement, limit).await?
            }
        };
        each(rows, keys.len())?.iter().map(|row| Answer(row).get("held")).collect()
    }

    /// Frees whatever is held of these, and needs no room in the server's lock table for that.
    pub(crate) async fn free(&mut self, keys: &[Keys], limit: Duration) -> Result<()> {
        let (keys, witnesses): (Vec<i64>, Vec<i64>) =
            keys.iter().map(|keys| (keys.key, keys.witness)).unzip();
        self.ask(query(FREE).bind(keys).bind(witnesses), limit).await.map(drop)
    }

    /// So that the server does not take us for dead.
    pub(crate) async fn touch(&mut self, limit: Duration) -> Result<()> {
        let rows = self.ask(query("SELECT pg_catalog.pg_backend_pid() AS pid"), limit).await?;
        self.check(only(&rows)?)
    }

    /// Who holds what could not be taken, if that is still so.
    pub(crate) async fn holder(
        &mut self,
        keys: Keys,
        taken: Taken,
        limit: Duration,
    ) -> Result<Option<Holder>> {
        let key = if taken == Taken::Elsewhere { keys.key } else { keys.witness };
        let rows = self.ask(query(WHO).bind(key), limit).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (name, pid): (String, i32) = (Answer(row).get("name")?, Answer(row).get("pid")?);
        let mut words = name.split(' ');
        let is_ours = words.next() == Some("locks");
        let mut holder = Holder::default();
        if is_ours {
            holder.pid = words.next().and_then(|pid| pid.parse().ok());
            holder.host = words.next().map(str::to_owned);
        }
        Ok(Some(match taken {
            Taken::Elsewhere if is_ours => {
                holder.with_label(format!("under another name with the same key, {key}"))
            }
            Taken::Elsewhere => {
                holder.with_label(format!("{name:?}, server process {pid}, has advisory lock {key}"))
            }
            _ => holder,
        }))
    }

    /// Ends the session in order.
    pub(crate) async fn close(self) {
        let Self { listener, pool, .. } = self;
        drop(listener);
        // The server notices either way.
        drop(timeout(PATIENCE, pool.close()).await);
    }

    async fn ask(&mut self, query: Query<'_, Postgres, PgArguments>, limit: Duration) -> Result<Vec<PgRow>> {
        let sent = Boottime::now();
        match timeout(limit, query.fetch_all(&mut self.listener)).await {
            Ok(Ok(rows)) => {
                self.used_at = sent;
                Ok(rows)
            }
            Ok(Err(error)) => {
                self.is_over = ends_connection(&error);
                Err(classify(error))
            }
            Err(_) => {
                self.is_over = true;
                Err(silent(limit))
            }
        }
    }

    /// Fails if it was not our session that answered.
    fn check(&mut self, row: &PgRow) -> Result<()> {
        if Answer(row).get::<i32>("pid")? == self.pid {
            return Ok(());
        }
        self.is_over = true;
        Err(pooled())
    }
}

/// Why there is no connection to be had, if one takes long: a pool tries again and again and keeps the reason to itself.
async fn reason_against(client: PgConnectOptions) -> sqlx::Error {
    passed(DOUBTED_AFTER).await;
    match client.connect().await {
        Err(error) => error,
        Ok(connection) => {
            // The pool's will come, too.
            drop(connection.close().await);
            std::future::pending().await
        }
    }
}

fn silent(limit: Duration) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the server did not answer within {limit:?}"))
}

const BUSY: i64 = -1;
const ELSEWHERE: i64 = -2;

/// The server's time in µs, read after the lock was had, or why it was not. The witness comes first and goes last: whoever has the key under
/// the same name has it too.
macro_rules! take {
    ($key:literal, $witness:literal) => {
        concat!(
            "SELECT CASE WHEN NOT pg_catalog.pg_try_advisory_lock(",
            $witness,
            ") THEN -1 WHEN pg_catalog.pg_try_advisory_lock(",
            $key,
            ") THEN (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::bigint \
             ELSE CASE WHEN pg_catalog.pg_advisory_unlock(",
            $witness,
            ") THEN -2 END END AS at, pg_catalog.pg_backend_pid() AS pid"
        )
    };
}

const TAKE: &str = take!("$1", "$2");
const TAKE_ALL: &str =
    concat!(take!("key", "witness"), " FROM unnest($1::bigint[], $2::bigint[]) AS wanted(key, witness)");

/// Where it is told that a lock was given back for which somebody waits.
const CHANNEL: &str = "locks_session";

/// A sleep of 0.1 ms is longer than a block of tokens. A bell that can't be had alone hangs somewhere else.
macro_rules! give_back {
    ($key:literal, $witness:literal, $bell:literal, $last:literal) => {
        concat!(
            "SELECT CASE WHEN (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::bigint <= ",
            $last,
            " THEN pg_catalog.pg_sleep(0.0001) END, pg_catalog.pg_advisory_unlock(",
            $key,
            ") AS held, pg_catalog.pg_advisory_unlock(",
            $witness,
            "), CASE WHEN pg_catalog.pg_try_advisory_lock(",
            $bell,
            ") THEN pg_catalog.pg_advisory_unlock(",
            $bell,
            ") ELSE (SELECT true FROM pg_catalog.pg_notify('locks_session', (",
            $key,
            ")::text)) END"
        )
    };
}

const GIVE_BACK: &str = give_back!("$1", "$2", "$3", "$4");
const GIVE_BACK_ALL: &str = concat!(
    give_back!("key", "witness", "bell", "last"),
    " FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS held(key, witness, bell, last)"
);

const FREE: &str = "SELECT pg_catalog.pg_advisory_unlock(key), pg_catalog.pg_advisory_unlock(witness) \
     FROM unnest($1::bigint[], $2::bigint[]) AS held(key, witness)";

const HANG: &str =
    "SELECT pg_catalog.pg_try_advisory_lock_shared(bell) AS hangs FROM unnest($1::bigint[]) AS waiting(bell)";
const TAKE_DOWN: &str =
    "SELECT pg_catalog.pg_advisory_unlock_shared(bell) FROM unnest($1::bigint[]) AS waiting(bell)";

/// The session that has an advisory lock, by what every role may see of it.
const WHO: &str = "SELECT a.application_name AS name, a.pid FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a USING (pid) \
     WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.database = a.datid \
     AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
     AND l.classid = (($1::bigint >> 32) & 4294967295)::bigint::oid AND l.objid = ($1::bigint & 4294967295)::oid LIMIT 1";
