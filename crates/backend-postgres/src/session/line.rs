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
    /// Among those who wait, one of [`PLACES`].
    place: i64,
}

/// A lock that somebody may wait for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) keys: Keys,
    /// Whether the session says already that somebody waits.
    pub(crate) is_announced: bool,
    /// Whether it may say so.
    pub(crate) may_announce: bool,
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
                Self {
                    listener,
                    pool,
                    pid: look.pid,
                    used_at: sent,
                    is_listening: false,
                    is_over: false,
                    place: fastrand::i64(1..=PLACES),
                },
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

    /// The next key of a lock that was given back for whoever has our place, while nothing is asked; `None` once the session has ended.
    pub(crate) async fn heard(&mut self) -> Option<i64> {
        while let Ok(Some(message)) = self.listener.try_recv().await {
            if let Ok(key) = message.payload().parse() {
                return Some(key);
            }
        }
        self.is_over = true;
        None
    }

    /// Tries to take each, without waiting, and says of those that it can't have that somebody waits, if that is wanted. Then it tries once more, since nobody
    /// told when a lock was given back just before. What was waited for and is had is announced no more.
    pub(crate) async fn take_or_announce(
        &mut self,
        wanted: &[Wanted],
        limit: Duration,
    ) -> Result<Vec<(Taken, bool)>> {
        self.listen(limit).await?;
        let keys = |key: fn(&Keys) -> i64| wanted.iter().map(|wanted| key(&wanted.keys)).collect::<Vec<_>>();
        let statement = query(TAKE_OR_ANNOUNCE)
            .bind(keys(|keys| keys.key))
            .bind(keys(|keys| keys.witness))
            .bind(keys(|keys| keys.bell))
            .bind(wanted.iter().map(|wanted| wanted.is_announced).collect::<Vec<_>>())
            .bind(wanted.iter().map(|wanted| wanted.may_announce).collect::<Vec<_>>())
            .bind(self.place);
        let rows = each(self.ask(statement, limit).await?, wanted.len())?;
        rows.iter().map(|row| Ok((self.taken(row)?, Answer(row).get("announced")?))).collect()
    }

    /// Says no more that somebody waits for these, whether it was said or not.
    pub(crate) async fn withdraw(&mut self, keys: &[Keys], limit: Duration) -> Result<()> {
        let bells: Vec<i64> = keys.iter().map(|keys| keys.bell).collect();
        self.ask(query(WITHDRAW).bind(bells).bind(self.place), limit).await.map(drop)
    }

    /// Hears from now on what is told to whoever has this place.
    async fn listen(&mut self, limit: Duration) -> Result<()> {
        if self.is_listening {
            return Ok(());
        }
        let sent = Boottime::now();
        match timeout(limit, self.listener.listen(&format!("{CHANNELS}{}", self.place))).await {
            Ok(Ok(())) => {
                self.used_at = sent;
                self.is_listening = true;
                Ok(())
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

    /// Frees each, not before the server's clock has passed its number, and tells one of those who wait. Whether it was held.
    pub(crate) async fn give_back(&mut self, keys: &[(Keys, i64)], limit: Duration) -> Result<Vec<bool>> {
        // Places are looked at in steps that lead to all of them, so that it is chance who is told, whoever sits beside whom.
        let (from, step) = (fastrand::i64(0..PLACES), fastrand::i64(0..PLACES) | 1);
        let rows = match keys {
            [(one, last)] => {
                let statement = query(GIVE_BACK).bind(one.key).bind(one.witness).bind(one.bell).bind(*last);
                self.ask(statement.bind(from).bind(step).bind(PLACES), limit).await?
            }
            _ => {
                let of = |number: fn(&(Keys, i64)) -> i64| keys.iter().map(number).collect::<Vec<i64>>();
                let statement = query(GIVE_BACK_ALL)
                    .bind(of(|(keys, _)| keys.key))
                    .bind(of(|(keys, _)| keys.witness))
                    .bind(of(|(keys, _)| keys.bell))
                    .bind(of(|(_, last)| *last))
                    .bind(from)
                    .bind(step)
                    .bind(PLACES);
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
            "CASE WHEN NOT pg_catalog.pg_try_advisory_lock(",
            $witness,
            ") THEN -1 WHEN pg_catalog.pg_try_advisory_lock(",
            $key,
            ") THEN (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::bigint \
             ELSE CASE WHEN pg_catalog.pg_advisory_unlock(",
            $witness,
            ") THEN -2 END END"
        )
    };
}

const TAKE: &str = concat!("SELECT ", take!("$1", "$2"), " AS at, pg_catalog.pg_backend_pid() AS pid");
const TAKE_ALL: &str = concat!(
    "SELECT ",
    take!("key", "witness"),
    " AS at, pg_catalog.pg_backend_pid() AS pid FROM unnest($1::bigint[], $2::bigint[]) AS wanted(key, witness)"
);

/// How many places there are for those who wait for a lock, a power of two. Many more who wait than places are told in groups; looking for one who waits costs a few µs for each place.
pub(crate) const PLACES: i64 = 64;

/// Begins the channel of each place, where it is told that a lock was given back for which somebody there waits.
const CHANNELS: &str = "locks_session_";

/// See [`Line::take_or_announce`]. Each part is a query of its own, so that it is done once, and in this order. A bell or a place that can't be shared is just
/// looked at by whoever gives the lock back.
const TAKE_OR_ANNOUNCE: &str = concat!(
    "SELECT again.at, pg_catalog.pg_backend_pid() AS pid, CASE WHEN again.announced AND again.at > 0 \
       THEN pg_catalog.pg_advisory_unlock_shared(bell) IS NULL OR pg_catalog.pg_advisory_unlock_shared(bell # $6) IS NULL \
       ELSE again.announced END AS announced \
     FROM (SELECT said.bell, said.announced, CASE WHEN said.first < 0 AND said.may_announce AND NOT said.already THEN ",
    take!("key", "witness"),
    " ELSE said.first END AS at \
     FROM (SELECT tried.*, CASE WHEN tried.first > 0 OR tried.already OR NOT tried.may_announce THEN tried.already \
       WHEN NOT pg_catalog.pg_try_advisory_lock_shared(bell # $6) THEN false \
       WHEN pg_catalog.pg_try_advisory_lock_shared(bell) THEN true \
       ELSE NOT pg_catalog.pg_advisory_unlock_shared(bell # $6) END AS announced \
     FROM (SELECT wanted.*, ",
    take!("key", "witness"),
    " AS first FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::boolean[]) \
       AS wanted(key, witness, bell, already, may_announce) OFFSET 0) AS tried OFFSET 0) AS said OFFSET 0) AS again"
);

const WITHDRAW: &str = "SELECT pg_catalog.pg_advisory_unlock_shared(bell), pg_catalog.pg_advisory_unlock_shared(bell # $2) \
     FROM unnest($1::bigint[]) AS waiting(bell)";

/// A sleep of 0.1 ms is longer than a block of tokens. A bell that can't be had alone says that somebody waits, and so do places: one is told, the first from a
/// random one on, in random steps.
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
            ") ELSE (SELECT true FROM (SELECT place FROM (SELECT ($5 + number * $6) % $7 + 1 AS place \
               FROM pg_catalog.generate_series(0, $7 - 1) AS number OFFSET 0) AS places \
               WHERE CASE WHEN pg_catalog.pg_try_advisory_lock(",
            $bell,
            " # place) THEN NOT pg_catalog.pg_advisory_unlock(",
            $bell,
            " # place) ELSE true END LIMIT 1) AS one, LATERAL pg_catalog.pg_notify('locks_session_' || place, (",
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

/// The session that has an advisory lock, by what every role may see of it.
const WHO: &str = "SELECT a.application_name AS name, a.pid FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a USING (pid) \
     WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.database = a.datid \
     AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
     AND l.classid = (($1::bigint >> 32) & 4294967295)::bigint::oid AND l.objid = ($1::bigint & 4294967295)::oid LIMIT 1";
