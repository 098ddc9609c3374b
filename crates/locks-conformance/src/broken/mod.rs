//! Backends that are broken on purpose, which the kit must reject, and their correct twins, which it must pass.
//!
//! A check that has never failed proves nothing. The test `broken` of this crate runs each [`Defect`] against the case meant for it, and
//! the twins against all cases.

mod connection;
mod flock;
mod row;
mod store;

use locks_api::spi::{Fairness, Guarantees, Offers, Scope, TtlLimits};
use std::time::Duration;

pub use connection::StoreBackend;
pub use flock::{FlockBackend, FlockSpace};
pub use store::Store;

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
    /// Gives out one permit more than there are.
    OneTooMany,
    /// Lets readers in beside a reader although a writer waits.
    PassedWriter,
    /// Counts permits without knowing whose they are: those of a dead holder never come back.
    BareCounter,
    /// Takes any number of permits for the number that there are.
    AnyLimit,
    /// Forgets a minimum hold when its holder dies.
    ForgottenMinimum,
    /// Lets go of the lock for a moment while a writer becomes a reader.
    ReleasingDowngrade,
    /// Every other time tells who led when it was asked before.
    StaleLeader,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::NoOp,
        Self::ReleaseByAnyone,
        Self::ReusedToken,
        Self::ResurrectingRenewal,
        Self::UnlinkOnRelease,
        Self::LostWakeUp,
        Self::TokenFetchedLater,
        Self::UnfencedRetry,
        Self::OneTooMany,
        Self::PassedWriter,
        Self::BareCounter,
        Self::AnyLimit,
        Self::ForgottenMinimum,
        Self::ReleasingDowngrade,
        Self::StaleLeader,
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
            Self::OneTooMany => "one-permit-too-many",
            Self::PassedWriter => "passed-writer",
            Self::BareCounter => "bare-counter-of-permits",
            Self::AnyLimit => "any-limit",
            Self::ForgottenMinimum => "forgotten-minimum-hold",
            Self::ReleasingDowngrade => "releasing-downgrade",
            Self::StaleLeader => "stale-leader",
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
            Self::OneTooMany => "semaphore::as_many_as_there_are_permits",
            Self::PassedWriter => "rw::a_waiting_writer_is_not_passed",
            Self::BareCounter => "semaphore::expired_permits_come_back_once",
            Self::AnyLimit => "semaphore::another_limit_is_refused",
            Self::ForgottenMinimum => "schedule::a_minimum_hold_outlives_a_loss",
            Self::ReleasingDowngrade => "rw::a_downgrade_passes_no_writer",
            Self::StaleLeader => "election::the_next_candidate_takes_over",
        }
    }

    /// Whether it shows only where grants expire.
    const fn expires(self) -> bool {
        matches!(self, Self::ResurrectingRenewal | Self::BareCounter | Self::ForgottenMinimum)
    }

    /// The harness of the same store without it.
    pub const fn twin(self) -> &'static str {
        match self {
            _ if self.expires() => SoundWithExpiry::NAME,
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
        .with::<Broken<{ Defect::OneTooMany as u8 }>>()
        .with::<Broken<{ Defect::PassedWriter as u8 }>>()
        .with::<Broken<{ Defect::BareCounter as u8 }>>()
        .with::<Broken<{ Defect::AnyLimit as u8 }>>()
        .with::<Broken<{ Defect::ForgottenMinimum as u8 }>>()
        .with::<Broken<{ Defect::ReleasingDowngrade as u8 }>>()
        .with::<Broken<{ Defect::StaleLeader as u8 }>>()
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
    let guarantees = guarantees.with_offers(Offers::ALL);
    match ttl {
        Some(limits) => guarantees.with_ttl(limits),
        None => guarantees,
    }
}

/// The store in memory with the defect of this number.
struct Broken<const DEFECT: u8>(Store);

impl<const DEFECT: u8> Broken<DEFECT> {
    const DEFECT: Defect = Defect::ALL[DEFECT as usize];
    const TTL: Option<TtlLimits> = if Self::DEFECT.expires() { Some(TTLS) } else { None };
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
