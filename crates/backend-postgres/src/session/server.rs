//! What the server says of itself: which life of which database this is, and for how long nothing may be granted in it.

use std::time::Duration;

use locks_api::{Boottime, Error, ErrorKind, Result};
use sqlx::postgres::PgRow;

use crate::error::{classify, strange};
use crate::record::Answer;

/// The oldest server that says when it forgot its locks.
const OLDEST: i32 = 150_000;

/// Advisory locks are in the server's memory, which is empty after a start, after the crash of one of its processes (it then forgets its
/// statistics, too, whose age it tells) and on a standby that was promoted. When that happened is told by the process that writes the log ahead, to those who may see
/// it, and is surely before the first checkpoint of the present timeline.
pub(crate) const LOOK: &str = "SELECT pg_catalog.current_setting('server_version_num')::integer AS version, \
     pg_catalog.pg_is_in_recovery() AS replica, pg_catalog.pg_backend_pid() AS pid, \
     pg_catalog.current_setting('transaction_isolation') AS isolation, \
     (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout') AS idle_session_timeout, \
     (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system, \
     (SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AS database, \
     (pg_catalog.date_part('epoch', born.started) * 1000000)::bigint AS started, \
     (pg_catalog.date_part('epoch', born.reset) * 1000000)::bigint AS reset, \
     (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - greatest(born.started, born.reset, born.promoted)) * 1000000)::bigint AS age \
     FROM (SELECT pg_catalog.pg_postmaster_start_time() AS started, pg_catalog.pg_stat_get_bgwriter_stat_reset_time() AS reset, \
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() AND pg_catalog.pg_last_wal_replay_lsn() IS NOT NULL THEN coalesce( \
         (SELECT max(backend_start) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walwriter'), \
         (SELECT CASE pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) \
           WHEN '00000001' THEN NULL \
           WHEN pg_catalog.lpad(pg_catalog.upper(pg_catalog.to_hex(timeline_id)), 8, '0') THEN checkpoint_time + interval '1 second' \
           ELSE pg_catalog.clock_timestamp() END FROM pg_catalog.pg_control_checkpoint())) \
       END AS promoted) AS born";

/// One life of one database: from when its advisory locks were forgotten until they are forgotten again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    system: i64,
    database: i64,
    started: i64,
    reset: Option<i64>,
}

/// What a look at a server has shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) life: Life,
    /// The process of the server that serves the connection.
    pub(crate) pid: i32,
    /// How long the server lets the connection stand idle.
    pub(crate) idle_session_timeout: Duration,
    /// How old this life is at least.
    age: Duration,
}

impl Look {
    /// Fails with [`ErrorKind::Unsupported`] if locks can't rely on the server.
    pub(crate) fn read(row: &PgRow) -> Result<Self> {
        let answer = Answer(row);
        let version: i32 = answer.get("version")?;
        if version < OLDEST {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the server is PostgreSQL {}; mode=session needs PostgreSQL 15 or later, mode=lease 14",
                    version / 10_000
                ),
            ));
        }
        if answer.get("replica")? {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the server is a read-only replica; locks need the primary",
            ));
        }
        let millis: i64 = answer.get("idle_session_timeout")?;
        Ok(Self {
            life: Life {
                system: answer.get("system")?,
                database: answer.get("database")?,
                started: answer.get("started")?,
                reset: answer.get("reset")?,
            },
            pid: answer.get("pid")?,
            idle_session_timeout: Duration::from_millis(u64::try_from(millis).map_err(|_| strange(millis))?),
            age: answer.time("age")?,
        })
    }
}

/// The life that was seen last, and since when.
#[derive(Debug, Default)]
pub(crate) struct Known(Option<(Life, Boottime)>);

impl Known {
    pub(crate) fn life(&self) -> Option<Life> {
        self.0.map(|(life, _)| life)
    }

    /// Until when nothing is granted in the life that was just seen. Whoever may still believe in a hold of an earlier one has lost it `max_ttl` after
    /// that one's end.
    pub(crate) fn see(&mut self, look: &Look, max_ttl: Duration) -> Boottime {
        let now = Boottime::now();
        let since = match self.0 {
            Some((life, since)) if life == look.life => since,
            _ => now,
        };
        self.0 = Some((look.life, since));
        now.after(max_ttl.saturating_sub(look.age)).min(since.after(max_ttl))
    }
}

/// A server that can't be asked.
pub(crate) fn unseen(error: sqlx::Error) -> Error {
    if crate::error::is_from_a_pooler(&error) { pooled() } else { classify(error) }
}

/// A pooler hands a session, and the locks in it, to somebody else.
pub(crate) fn pooled() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "a pooler is between us and the database, and mode=session needs a session of its own: give the server's own address, or use mode=lease",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(started: i64, age: u64) -> Look {
        Look {
            life: Life { system: 1, database: 1, started, reset: None },
            pid: 1,
            idle_session_timeout: Duration::ZERO,
            age: Duration::from_secs(age),
        }
    }

    #[test]
    fn a_new_life_begins_with_a_grace_and_an_old_one_has_none() {
        let (ttl, mut known) = (Duration::from_secs(10), Known::default());
        let left = |until: Boottime| until.since(Boottime::now()).as_secs_f64().round();
        assert!((left(known.see(&look(1, 4), ttl)) - 6.0).abs() < 0.5);
        assert!(left(known.see(&look(1, 11), ttl)).abs() < 0.5);
        assert!((left(known.see(&look(2, 0), ttl)) - 10.0).abs() < 0.5);
    }

    #[test]
    fn what_was_seen_for_long_enough_needs_no_proof_of_age() {
        let (ttl, mut known) = (Duration::from_millis(1), Known::default());
        known.see(&look(1, 0), ttl);
        let until = known.see(&look(1, 0), Duration::from_nanos(1));
        assert!(until <= Boottime::now());
    }
}
