//! What a user can choose.

use std::time::Duration;

use locks_api::spi::TtlLimits;
use locks_api::{Error, ErrorKind, Result};

/// How the locks of one schema are kept. Everybody who shares a schema and a prefix must choose the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresOptions {
    pub(crate) schema: String,
    pub(crate) prefix: String,
    pub(crate) max_ttl: Duration,
    pub(crate) restart_grace: bool,
    pub(crate) durable: bool,
}

/// The smallest ttl. A tenth of it, and half a second at least, is the holder's safety margin.
pub(crate) const MIN_TTL: Duration = Duration::from_secs(1);

/// For longer a system can't be told to put up with a peer that says nothing.
const LONGEST_SESSION: Duration = Duration::from_secs(3600);

const DEFAULT_TTL: Duration = Duration::from_secs(15);

impl Default for PostgresOptions {
    /// Schema `locks`, no prefix, ttls up to 15 s, a grace after restarts, grants that are not synced to disk.
    fn default() -> Self {
        Self {
            schema: "locks".to_owned(),
            prefix: String::new(),
            max_ttl: DEFAULT_TTL,
            restart_grace: true,
            durable: false,
        }
    }
}

impl PostgresOptions {
    /// The schema of all tables and functions: 1 to 63 of `a-z 0-9 _`. Made if it is not there and the role may.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Begins the names of all tables and functions: up to 32 of `a-z 0-9 _`. Locks of different schemas or prefixes don't know of each
    /// other.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The largest ttl that a lock may ask for, in whole milliseconds, one second to one year; also the length of the grace after a
    /// restart. Fixed when the tables are made: others who ask for something else are refused.
    #[must_use]
    pub fn max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = max_ttl;
        self
    }

    /// Whether nothing is granted for [`max_ttl`](Self::max_ttl) after the server may have forgotten grants. Only tests have a reason to turn it
    /// off: without it a lock can have two holders after a crash of the server.
    #[must_use]
    pub fn restart_grace(mut self, restart_grace: bool) -> Self {
        self.restart_grace = restart_grace;
        self
    }

    /// Whether every grant is written to disk before it counts, in logged tables: holders then keep their locks over a crash of the
    /// server, and fencing tokens don't rely on its clock. Costs a sync for each grant and release. Fixed when the tables are made.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Fails with [`ErrorKind::Config`] if one of them makes no sense.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |complaint: String| Err(Error::new(ErrorKind::Config, complaint));
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !(1..=63).contains(&self.schema.len()) || !self.schema.chars().all(is_plain) {
            return wrong(format!(
                "the schema {:?} is not 1 to 63 lower-case letters, digits or _",
                self.schema
            ));
        }
        if self.prefix.len() > 32 || !self.prefix.chars().all(is_plain) {
            return wrong(format!(
                "the prefix {:?} is not up to 32 lower-case letters, digits or _",
                self.prefix
            ));
        }
        let year = Duration::from_secs(366 * 24 * 3600);
        if self.max_ttl < MIN_TTL
            || self.max_ttl > year
            || !self.max_ttl.subsec_nanos().is_multiple_of(1_000_000)
        {
            return wrong(format!(
                "max_ttl is {:?} and must be whole milliseconds, one second to one year",
                self.max_ttl
            ));
        }
        Ok(())
    }

    /// Fails with [`ErrorKind::Config`] if one of them is none of `mode=session`.
    pub(crate) fn check_session(&self) -> Result<()> {
        if self.durable {
            return Err(Error::new(
                ErrorKind::Config,
                "durable=on is for mode=lease; mode=session writes nothing that a disk could keep",
            ));
        }
        if self.max_ttl > LONGEST_SESSION {
            return Err(Error::new(
                ErrorKind::Config,
                format!("max_ttl is {:?} and must be an hour at most in mode=session", self.max_ttl),
            ));
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> TtlLimits {
        TtlLimits::new(MIN_TTL, DEFAULT_TTL.min(self.max_ttl), self.max_ttl)
    }
}
