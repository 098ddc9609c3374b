//! Standbys: servers that follow another one, until they take its place.

use std::time::{Duration, Instant};

use super::Postgres;
use crate::error::Error;
use crate::port;
use crate::process::{Start, quoting};
use crate::server::ended;

/// How long a standby may take for what it has received already, on a busy machine.
const CATCHING_UP: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(2);

impl Postgres {
    /// Starts a standby, which follows this server by asynchronous streaming, has its settings, and answers questions that change nothing.
    /// What comes later reaches it after a moment; UNLOGGED tables are empty there.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs).
    pub fn standby(&self) -> Result<Self, Error> {
        // Somebody else's has no programs here.
        self.pid()?;
        self.configuration.of_standby(self.port()).start(None, &[], port::free)
    }

    /// Waits until this standby has all that the primary has at this moment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`](crate::ErrorKind::Failed) if one of them does not answer, or it does not follow.
    pub fn catch_up_with(&self, primary: &Self) -> Result<(), Error> {
        // The end of a record that is on its way when it commits; the end of all that is written may be within one.
        let position = one(primary.ask("SELECT pg_logical_emit_message(true, 'test', '')")?)?;
        let question = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
        let deadline = Instant::now() + CATCHING_UP;
        while one(self.ask(&question)?)? != "t" {
            if Instant::now() > deadline {
                let what = format!("the standby has not come so far within {CATCHING_UP:?}");
                return Err(Error::failed(quoting(&what, &self.log()?)));
            }
            std::thread::park_timeout(POLL);
        }
        Ok(())
    }

    /// Lets this standby follow nobody any more, and waits until it has let go of its primary: what happens there from now on it misses.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it does not run.
    pub fn stop_following(&mut self) -> Result<(), Error> {
        let said_before = self.log()?.len();
        let follows = !self.ask("SELECT pid FROM pg_stat_wal_receiver")?.is_empty();
        self.configure("primary_conninfo", "")?;
        let has_let_go = |log: &str| {
            let since = log.get(said_before..).unwrap_or_default();
            since.contains("terminating walreceiver process")
                || !follows && since.contains("reloading configuration")
        };
        let stopped = self.server.process()?.wait_until(has_let_go)?;
        match stopped {
            Start::Ready => Ok(()),
            Start::Ended(log) => Err(ended(&log)),
        }
    }

    /// Makes this standby a primary, and waits until it is one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it is no standby, or does not run.
    pub fn promote(&self) -> Result<(), Error> {
        // Somebody else's is not to be changed.
        self.pid()?;
        let seconds = CATCHING_UP.as_secs();
        if one(self.ask(&format!("SELECT pg_promote(true, {seconds})"))?)? == "t" {
            return Ok(());
        }
        let what = format!("the standby is no primary within {CATCHING_UP:?}");
        Err(Error::failed(quoting(&what, &self.log()?)))
    }
}

/// The only value of an answer.
fn one(rows: Vec<Vec<Option<String>>>) -> Result<String, Error> {
    let value = rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten();
    value.ok_or_else(|| Error::failed("the server has no answer"))
}
