//! Backends that are broken on purpose, which the kit must reject, and their correct twins, which it must pass.
//!
//! A check that has never failed proves nothing. The test `broken` of this crate runs each [`Defect`] against the case meant for it, and
//! the twins against all cases.

mod flock;
mod store;

use locks_api::spi::{Fairness, Guarantees, Scope, TtlLimits};
use std::time::Duration;

pub use flock::{FlockBackend, FlockSpace};
pub use store::{Store, StoreBackend};

use crate::harness::{Harness, SetupError};
use crate::suite::Suite;

/// What can be wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Defect {
    /// Grants every claim.
    NoOp,
    /// Releases whatever holds the lock, whoever asks.
    ReleaseByAnyone,
    /// Forgets the counter of a lock that nobody holds, and starts it again.
    ReusedToken,
    /// Renews a grant that has expired, as long as nobody else took the lock.
    ResurrectingRenewal,
    /// Removes the file of a lock when it is released.
    UnlinkOnRelease,
    /// Now and then does not tell a waiter that it was granted.
    LostWakeUp,
    /// Grants in one step and draws the token in another.
    TokenFetchedLater,
    /// Takes a repeated release for one whose first attempt got lost, and does not compare.
    UnfencedRetry,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NoOp,
        Self::ReleaseByAnyone,
        Self::ReusedToken,
        Self::ResurrectingRenewal,
        Self::UnlinkOnRelease,
        Self::LostWakeUp,
        Self::TokenFetchedLater,
        Self::UnfencedRetry,
    ];

    /// The name of the harness that has it.
    pub const fn harness(self) -> &'static str {
        match self {
            Self::NoOp => "no-op-lock",
            Self::ReleaseByAnyone => "release-by-anyone",
            Self::ReusedToken => "reused-token",
            Self::ResurrectingRenewal => "resurrecting-renewal",
            Self::UnlinkOnRelease => "unlink-on-release",
            Self::LostWakeUp => "lost-wake-up",
            Self::TokenFetchedLater => "token-fetched-later",
            Self::UnfencedRetry => "unfenced-release-after-a-retry",
        }
    }

    /// The case that is meant to reject it.
    pub const fn rejected_by(self) -> &'static str {
        match self {
            Self::NoOp => "exclusive::two_instances_exclude_each_other",
            Self::ReleaseByAnyone => "spi::a_release_hits_only_its_own_claim",
            Self::ReusedToken => "tokens::each_grant_has_a_higher_one",
            Self::ResurrectingRenewal => "spi::an_expired_grant_never_comes_back",
            Self::UnlinkOnRelease => "exclusive::waiters_and_newcomers_meet",
            Self::LostWakeUp => "waiting::a_waiter_is_served_after_a_release",
            Self::TokenFetchedLater => "tokens::a_repeated_claim_keeps_its_own",
            Self::UnfencedRetry => "faults::a_repeated_release_frees_nobody_else",
        }
    }

    /// The harness of the same store without it.
    pub const fn twin(self) -> &'static str {
        match self {
            Self::ResurrectingRenewal => SoundWithExpiry::NAME,
            Self::UnlinkOnRelease => SoundFlock::NAME,
            _ => Sound::NAME,
        }
    }
}

/// All broken backends and their twins.
pub fn suite() -> Suite {
    Suite::new()
        .with::<Broken<{ Defect::NoOp as u8 }>>()
        .with::<Broken<{ Defect::ReleaseByAnyone as u8 }>>()
        .with::<Broken<{ Defect::ReusedToken as u8 }>>()
        .with::<Broken<{ Defect::ResurrectingRenewal as u8 }>>()
        .with::<UnlinkingFlock>()
        .with::<Broken<{ Defect::LostWakeUp as u8 }>>()
        .with::<Broken<{ Defect::TokenFetchedLater as u8 }>>()
        .with::<Broken<{ Defect::UnfencedRetry as u8 }>>()
        .with::<Sound>()
        .with::<SoundWithExpiry>()
        .with::<SoundFlock>()
}

/// The names of the correct twins' harnesses.
pub const TWINS: [&str; 3] = [Sound::NAME, SoundWithExpiry::NAME, SoundFlock::NAME];

const TTLS: TtlLimits =
    TtlLimits::new(Duration::from_millis(100), Duration::from_secs(2), Duration::from_secs(5));

fn in_memory(ttl: Option<TtlLimits>) -> Guarantees {
    let guarantees = Guarantees::new("kit", Scope::Process).with_fairness(Fairness::Fifo);
    match ttl {
        Some(limits) => guarantees.with_ttl(limits),
        None => guarantees,
    }
}

/// The store in memory with the defect of this number.
struct Broken<const DEFECT: u8>(Store);

impl<const DEFECT: u8> Broken<DEFECT> {
    const DEFECT: Defect = Defect::ALL[DEFECT as usize];
    const TTL: Option<TtlLimits> =
        if matches!(Self::DEFECT, Defect::ResurrectingRenewal) { Some(TTLS) } else { None };
}

impl<const DEFECT: u8> Harness for Broken<DEFECT> {
    const NAME: &'static str = Self::DEFECT.harness();
    type Backend = StoreBackend;

    fn guarantees() -> Guarantees {
        in_memory(Self::TTL)
    }

    async fn start() -> Result<Self, SetupError> {
        Ok(Self(Store::new(Self::TTL, Some(Self::DEFECT))))
    }

    async fn connect(&self) -> locks_api::Result<StoreBackend> {
        Ok(self.0.connect(Self::guarantees()))
    }
}

/// The store in memory as it should be.
struct Sound(Store);

impl Harness for Sound {
    const NAME: &'static str = "sound";
    type Backend = StoreBackend;

    fn guarantees() -> Guarantees {
        in_memory(None)
    }

    async fn start() -> Result<Self, SetupError> {
        Ok(Self(Store::new(None, None)))
    }

    async fn connect(&self) -> locks_api::Result<StoreBackend> {
        Ok(self.0.connect(Self::guarantees()))
    }
}

/// The same with expiry.
struct SoundWithExpiry(Store);

impl Harness for SoundWithExpiry {
    const NAME: &'static str = "sound-with-expiry";
    type Backend = StoreBackend;

    fn guarantees() -> Guarantees {
        in_memory(Some(TTLS))
    }

    async fn start() -> Result<Self, SetupError> {
        Ok(Self(Store::new(Some(TTLS), None)))
    }

    async fn connect(&self) -> locks_api::Result<StoreBackend> {
        Ok(self.0.connect(Self::guarantees()))
    }
}

/// Locked files that are removed when they are released.
struct UnlinkingFlock(FlockSpace);

impl Harness for UnlinkingFlock {
    const NAME: &'static str = Defect::UnlinkOnRelease.harness();
    type Backend = FlockBackend;

    fn guarantees() -> Guarantees {
        FlockSpace::guarantees()
    }

    async fn start() -> Result<Self, SetupError> {
        Ok(Self(FlockSpace::new(Some(Defect::UnlinkOnRelease))?))
    }

    async fn connect(&self) -> locks_api::Result<FlockBackend> {
        Ok(self.0.connect())
    }

    fn worker_url(&self) -> Option<String> {
        Some(self.0.url())
    }

    async fn attach(url: &str) -> Result<Self, SetupError> {
        Ok(Self(FlockSpace::attach(url, Some(Defect::UnlinkOnRelease))))
    }
}

/// Locked files that stay.
struct SoundFlock(FlockSpace);

impl Harness for SoundFlock {
    const NAME: &'static str = "sound-flock";
    type Backend = FlockBackend;

    fn guarantees() -> Guarantees {
        FlockSpace::guarantees()
    }

    async fn start() -> Result<Self, SetupError> {
        Ok(Self(FlockSpace::new(None)?))
    }

    async fn connect(&self) -> locks_api::Result<FlockBackend> {
        Ok(self.0.connect())
    }

    fn worker_url(&self) -> Option<String> {
        Some(self.0.url())
    }

    async fn attach(url: &str) -> Result<Self, SetupError> {
        Ok(Self(FlockSpace::attach(url, None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::cases;

    #[test]
    fn every_defect_has_its_number_and_a_case_that_exists() {
        for (number, defect) in Defect::ALL.into_iter().enumerate() {
            assert_eq!(defect as usize, number);
            assert!(cases().any(|case| case.id() == defect.rejected_by()), "{defect:?}");
            assert!(TWINS.contains(&defect.twin()), "{defect:?}");
        }
    }
}
