//! What a backend promises, as data that the conformance kit checks.

use std::fmt;
use std::time::Duration;

/// What a backend promises: the source of the tables in the documentation and of the cases that the
/// conformance kit runs. A promise that is not made is checked too.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantees {
    /// The technology, as in its URL scheme: `"file"`, `"redis"`.
    pub backend: &'static str,
    /// How far a lock reaches.
    pub scope: Scope,
    /// When a lock becomes free after its holder's process died.
    pub crash_release: CrashRelease,
    /// The store's expiry, if it has one. Without one, a lock is held until it is released or its process ends.
    pub ttl: Option<TtlLimits>,
    /// The order in which *processes* are served. Inside a process it is always first come, first served.
    pub fairness: Fairness,
    /// How a holder learns that it lost the lock.
    pub loss: LossDetection,
    /// What a restart of the store does to grants.
    pub restart: Restart,
    /// What it offers beyond the exclusive lock.
    pub offers: Offers,
}

impl Guarantees {
    /// The promises of a store without expiry, whose grants end with their process; near-FIFO between processes.
    pub const fn new(backend: &'static str, scope: Scope) -> Self {
        Self {
            backend,
            scope,
            crash_release: CrashRelease::AtOnce,
            ttl: None,
            fairness: Fairness::Near,
            loss: LossDetection::None,
            restart: Restart::FreesAll,
            offers: Offers::NONE,
        }
    }

    /// With grants that expire, within these limits, after a crash at the latest.
    #[must_use]
    pub const fn with_ttl(mut self, limits: TtlLimits) -> Self {
        self.ttl = Some(limits);
        self.crash_release = CrashRelease::AfterTtl;
        self.loss = LossDetection::AtDeadline;
        self
    }

    /// With this rule for dead holders.
    #[must_use]
    pub const fn with_crash_release(mut self, crash_release: CrashRelease) -> Self {
        self.crash_release = crash_release;
        self
    }

    /// With this order between processes.
    #[must_use]
    pub const fn with_fairness(mut self, fairness: Fairness) -> Self {
        self.fairness = fairness;
        self
    }

    /// With this way of learning of a loss.
    #[must_use]
    pub const fn with_loss(mut self, loss: LossDetection) -> Self {
        self.loss = loss;
        self
    }

    /// With these beyond the exclusive lock.
    #[must_use]
    pub const fn with_offers(mut self, offers: Offers) -> Self {
        self.offers = offers;
        self
    }

    /// With this behaviour at a restart.
    #[must_use]
    pub const fn with_restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }
}

/// Something that a store may offer beyond the exclusive lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Offer {
    /// [`Mode::Shared`](super::Mode::Shared).
    Shared,
    /// [`Mode::Permits`](super::Mode::Permits).
    Permits,
    /// [`Downgrade`](super::Downgrade).
    Downgrade,
    /// [`Together`](super::Together).
    Together,
    /// [`Schedule`](super::Schedule).
    Schedule,
    /// [`Values`](super::Values).
    Values,
    /// [`Inspect`](super::Inspect): who holds, and lists.
    Inspection,
    /// [`Inspect`](super::Inspect) also tells who waits.
    Waiters,
    /// [`Inspect::break_lock`](super::Inspect::break_lock).
    Breaking,
    /// [`Inspect::revoke`](super::Inspect::revoke).
    Revoking,
}

impl Offer {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Shared,
        Self::Permits,
        Self::Downgrade,
        Self::Together,
        Self::Schedule,
        Self::Values,
        Self::Inspection,
        Self::Waiters,
        Self::Breaking,
        Self::Revoking,
    ];
}

/// Reads as "readers beside each other".
impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "reader/writer locks",
            Self::Permits => "semaphores",
            Self::Downgrade => "a downgrade from writer to reader",
            Self::Together => "several locks in one step",
            Self::Schedule => "minimum holds and once-per intervals",
            Self::Values => "elections",
            Self::Inspection => "inspection",
            Self::Waiters => "inspection of those who wait",
            Self::Breaking => "breaking a lock",
            Self::Revoking => "asking a holder to give up",
        })
    }
}

/// A set of [`Offer`]s.
///
/// ```
/// use locks_api::spi::{Offer, Offers};
///
/// const OFFERS: Offers = Offers::NONE.with(Offer::Shared).with(Offer::Permits);
/// assert!(OFFERS.has(Offer::Shared) && !OFFERS.has(Offer::Values));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Offers(u16);

impl Offers {
    /// Exclusive locks alone.
    pub const NONE: Self = Self(0);

    /// All there is.
    pub const ALL: Self = Self((1 << Offer::ALL.len()) - 1);

    /// These, and this one.
    #[must_use]
    pub const fn with(self, offer: Offer) -> Self {
        Self(self.0 | (1 << offer as u16))
    }

    /// These, without this one.
    #[must_use]
    pub const fn without(self, offer: Offer) -> Self {
        Self(self.0 & !(1 << offer as u16))
    }

    /// Whether this one is among them.
    pub const fn has(self, offer: Offer) -> bool {
        self.0 & (1 << offer as u16) != 0
    }
}

impl fmt::Debug for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Offer::ALL.iter().filter(|offer| self.has(**offer))).finish()
    }
}

/// How far a lock reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// The tasks and threads of one process.
    Process,
    /// The processes of one machine.
    Host,
    /// All machines that reach the store.
    Cluster,
}

/// When a lock becomes free after its holder's process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CrashRelease {
    /// At once. A store on another machine sees no more of a death than that a connection has ended, so one that is cut frees the lock as well, before its
    /// holder, who lives, can have heard of it: with [`Guarantees::ttl`] the first promise holds then from when it has.
    AtOnce,
    /// When its ttl has passed.
    AfterTtl,
}

/// The ttls that a store accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TtlLimits {
    /// The smallest.
    pub min: Duration,
    /// What a lock gets that asks for none.
    pub default: Duration,
    /// The largest; also the length of the grace after a restart.
    pub max: Duration,
}

impl TtlLimits {
    /// Limits with `min ≤ default ≤ max`.
    ///
    /// # Panics
    ///
    /// If they are not in that order, or `min` is under a millisecond.
    pub const fn new(min: Duration, default: Duration, max: Duration) -> Self {
        assert!(min.as_millis() >= 1 && min.as_millis() <= default.as_millis());
        assert!(default.as_millis() <= max.as_millis());
        Self { min, default, max }
    }
}

/// The order in which processes are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fairness {
    /// Strictly first come, first served.
    Fifo,
    /// Close to first come, first served; nobody starves.
    Near,
    /// No order: whoever asks at the right moment.
    None,
}

/// How a holder learns that it lost the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossDetection {
    /// It can't be lost while the process lives and nobody deletes the store's data.
    None,
    /// At its own deadline, or at the renewal before.
    AtDeadline,
    /// The store says so.
    Pushed,
}

/// What a restart of the store does to grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restart {
    /// It ends every holder too, so all locks are free.
    FreesAll,
    /// Grants are kept.
    Keeps,
    /// Grants may be forgotten, and nothing is granted until all of them have surely expired.
    Grace,
}
