//! What a user can choose.

use std::time::Duration;

use locks_api::spi::TtlLimits;
use locks_api::{Error, ErrorKind, Result};

/// How the locks of one namespace are kept. Everybody who shares a namespace must choose the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisOptions {
    pub(crate) namespace: String,
    pub(crate) max_ttl: Duration,
    pub(crate) restart_grace: bool,
    pub(crate) allow_eviction: bool,
    pub(crate) durability: Durability,
}

/// When a grant counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// When the primary has it. After a fail-over that lost grants nothing is granted until all of them have surely expired, so exclusion
    /// holds; their holders hear of the loss.
    #[default]
    Local,
    /// When so many replicas have it too (`WAIT`), at the price of a round trip to them: a fail-over to one of them then costs no
    /// holder its lock.
    Replicated(u32),
}

/// The smallest ttl. A tenth of it, and half a second at least, is the holder's safety margin.
pub(crate) const MIN_TTL: Duration = Duration::from_secs(1);

const DEFAULT_TTL: Duration = Duration::from_secs(15);

impl Default for RedisOptions {
    /// Namespace `locks`, ttls up to 15 s, a grace after restarts, no eviction, durability of the primary.
    fn default() -> Self {
        Self {
            namespace: "locks".to_owned(),
            max_ttl: DEFAULT_TTL,
            restart_grace: true,
            allow_eviction: false,
            durability: Durability::default(),
        }
    }
}

impl RedisOptions {
    /// The beginning of all keys and channels: 1 to 64 of `A-Z a-z 0-9 . _ : - /`. Locks of different namespaces don't know of each other.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The largest ttl that a lock may ask for, in whole milliseconds, one second at least; also the length of the grace after a
    /// restart. Fixed by whoever uses the namespace first: others who ask for something else are refused.
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

    /// Whether a server that evicts keys when its memory is full is accepted. It can evict a lock that is held: its holder hears of that
    /// at the next renewal, and until then somebody else may have it.
    #[must_use]
    pub fn allow_eviction(mut self, allow_eviction: bool) -> Self {
        self.allow_eviction = allow_eviction;
        self
    }

    /// When a grant counts.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Fails with [`ErrorKind::Config`] if one of them makes no sense.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |complaint: String| Err(Error::new(ErrorKind::Config, complaint));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-' | '/');
        if !(1..=64).contains(&self.namespace.len()) || !self.namespace.chars().all(is_plain) {
            return wrong(format!(
                "the namespace {:?} is not 1 to 64 letters, digits or . _ : - /",
                self.namespace
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
        if self.durability == Durability::Replicated(0) {
            return wrong("replicated(0) waits for nobody; write local".to_owned());
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> TtlLimits {
        TtlLimits::new(MIN_TTL, DEFAULT_TTL.min(self.max_ttl), self.max_ttl)
    }
}
