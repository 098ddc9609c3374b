//! What a backend can do beyond the exclusive lock, each as an object of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Claim, ClaimId, Grant, Mode, Released, Result};
use crate::busy::Busy;
use crate::holder::Holder;
use crate::name::LockName;
use crate::token::FencingToken;

/// The optional abilities of a backend. One that is not there can't be called, so what a backend claims and what it does can't
/// disagree.
///
/// ```
/// use locks_api::spi::Abilities;
///
/// assert!(Abilities::none().together.is_none());
/// ```
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Abilities<'a> {
    /// Finds grants that a store brought back from the dead, for stores that can lose their latest writes.
    pub recovery: Option<&'a dyn Recovery>,
    /// Turns an exclusive hold into a shared one.
    pub downgrade: Option<&'a dyn Downgrade>,
    /// Takes several locks in one step.
    pub together: Option<&'a dyn Together>,
    /// Judges minimum holds and once-per intervals.
    pub schedule: Option<&'a dyn Schedule>,
    /// Keeps a value beside the hold, for elections.
    pub values: Option<&'a dyn Values>,
    /// Tells who holds and waits.
    pub inspect: Option<&'a dyn Inspect>,
}

impl<'a> Abilities<'a> {
    /// None of them.
    pub fn none() -> Self {
        Self::default()
    }

    /// And this way to find grants.
    #[must_use]
    pub fn with_recovery(mut self, recovery: &'a dyn Recovery) -> Self {
        self.recovery = Some(recovery);
        self
    }

    /// And this way to downgrade.
    #[must_use]
    pub fn with_downgrade(mut self, downgrade: &'a dyn Downgrade) -> Self {
        self.downgrade = Some(downgrade);
        self
    }

    /// And this way to take several locks.
    #[must_use]
    pub fn with_together(mut self, together: &'a dyn Together) -> Self {
        self.together = Some(together);
        self
    }

    /// And this way to complete a hold.
    #[must_use]
    pub fn with_schedule(mut self, schedule: &'a dyn Schedule) -> Self {
        self.schedule = Some(schedule);
        self
    }

    /// And these values.
    #[must_use]
    pub fn with_values(mut self, values: &'a dyn Values) -> Self {
        self.values = Some(values);
        self
    }

    /// And this inspection.
    #[must_use]
    pub fn with_inspect(mut self, inspect: &'a dyn Inspect) -> Self {
        self.inspect = Some(inspect);
        self
    }
}

/// Names what is there.
impl fmt::Debug for Abilities<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = [
            ("recovery", self.recovery.is_some()),
            ("downgrade", self.downgrade.is_some()),
            ("together", self.together.is_some()),
            ("schedule", self.schedule.is_some()),
            ("values", self.values.is_some()),
            ("inspect", self.inspect.is_some()),
        ];
        f.debug_set().entries(there.iter().filter(|(_, is)| *is).map(|(name, _)| name)).finish()
    }
}

/// Asks a store what it remembers of this process.
#[async_trait]
pub trait Recovery: Send + Sync {
    /// All grants that the store records for this [`InstanceId`](super::InstanceId), in the store's present epoch.
    ///
    /// After [`Events::reset`](super::Events::reset) the engine releases those that have no live guard before it renews anything: a fail-over
    /// or a restore can undo a release.
    async fn grants(&self) -> Result<Vec<Grant>>;
}

/// Turns an exclusive hold into a shared one, without letting go in between.
#[async_trait]
pub trait Downgrade: Send + Sync {
    /// Makes this exclusive grant a [shared](Mode::Shared) one, with the same tokens and the same expiry, and grants in the same step what is next in
    /// the queue and compatible now. One that is shared already is [`Released::Done`] too; [`Released::NotHeld`] if this very grant does not hold.
    async fn downgrade(&self, grant: &Grant) -> Result<Released>;
}

/// Takes several locks in one step.
#[async_trait]
pub trait Together: Send + Sync {
    /// Grants all of these claims or none of them, in one atomic step; never queues. The claims are of different names,
    /// in ascending order, and may not wait. If any of them can't be granted now, nothing is left behind.
    ///
    /// Idempotent like [`Backend::acquire`](super::Backend::acquire): claims that hold already are granted as they are. After an error each claim is
    /// sent again by itself.
    async fn acquire_together(&self, claims: &[Claim]) -> Result<Joint>;
}

/// The answer to several claims that are granted together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Joint {
    /// All of them hold, and this is what, in order.
    Granted(Vec<Grant>),
    /// None of them does.
    Busy {
        /// Which of them is the first that can't.
        at: usize,
        /// Why not.
        busy: Busy,
    },
}

/// Judges [`Claim::min_hold`] and [`Claim::once_per`] in the granting step.
///
/// Two instants are kept for each lock, on the store's clock, as durably as the store can, and not bound to any lease:
///
/// - *not before*: written with the grant of a claim with a `min_hold`, the instant of the grant plus that. Until then no other claim of the lock is
///   granted, of whatever mode, also after the release and after the death of the holder: it is answered [`Busy::NotDue`](crate::Busy::NotDue) or, while
///   somebody holds the lock, [`Busy::Held`](crate::Busy::Held). One that may wait MAY be queued instead, to be asked about again when it is due.
///   [`Backend::cancel`](super::Backend::cancel) of the claim that wrote it takes it back: nobody got that grant.
/// - *last completed*: written by [`complete`](Self::complete), the instant of that hold's grant. A claim with a `once_per` is answered `NotDue` until
///   so much time has passed since.
#[async_trait]
pub trait Schedule: Send + Sync {
    /// [Releases](super::Backend::release) the grant and writes down, in the same step, that what it was taken for was done.
    async fn complete(&self, grant: &Grant) -> Result<Released>;
}

/// Keeps a [value](Claim::value) beside a hold, for everybody to read.
#[async_trait]
pub trait Values: Send + Sync {
    /// Replaces the value of this very grant. [`Released::NotHeld`] if it does not hold.
    async fn publish(&self, grant: &Grant, value: &str) -> Result<Released>;

    /// Who holds the lock, and with what value; `None` if nobody does, or the hold has none.
    async fn leader(&self, name: &LockName) -> Result<Option<Leader>>;

    /// From now on [`Events::changed`](super::Events::changed) is called, soon after the value, its holder or the fact that there is one has changed.
    /// More calls than changes are allowed. The end of a hold by expiry need not be told: whoever watches knows [`Leader::remaining`].
    async fn watch(&self, name: &LockName) -> Result<()>;

    /// Nobody here wants to hear of it any more. Unknown names are ignored.
    async fn unwatch(&self, name: &LockName) -> Result<()>;
}

/// Who leads, as everybody sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// The first fencing token of the hold: larger for every later leader.
    pub token: FencingToken,
    /// What the leader published.
    pub value: Arc<str>,
    /// Who it is, if the store knows.
    pub holder: Option<Holder>,
    /// How long the hold lasts unless it is renewed, from now; `None` if it does not expire.
    pub remaining: Option<Duration>,
}

impl Leader {
    /// A leader of whom nothing else is known.
    pub fn new(token: FencingToken, value: impl Into<Arc<str>>) -> Self {
        Self { token, value: value.into(), holder: None, remaining: None }
    }
}

/// Tells who holds and waits, and takes locks from their holders.
///
/// No query takes a lock or is in the way of one.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// What is known of this lock. One that nobody ever took is free like any other.
    async fn state(&self, name: &LockName) -> Result<LockState>;

    /// The locks that are held or waited for and whose names begin with `prefix`, by name.
    async fn list(&self, prefix: &str) -> Result<Vec<LockState>>;

    /// Takes the lock from all its holders, or from this claim alone, and gives it to whoever is next. Each of them loses it
    /// ([`LossReason::Revoked`](crate::LossReason::Revoked)) when it hears of it, at its next renewal at the latest; fencing covers the time between.
    /// Returns from how many it was taken.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), in words, where the store can't: without [`Offer::Breaking`](super::Offer::Breaking).
    async fn break_lock(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32>;

    /// Asks all holders, or this claim alone, to give the lock back soon: [`Events::asked`](super::Events::asked) in their processes. Returns how many
    /// were reached.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), in words, where the store can't: without [`Offer::Revoking`](super::Offer::Revoking).
    async fn revoke(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32>;
}

/// What is known of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockState {
    /// The lock.
    pub name: LockName,
    /// Who holds it, in the order of their grants; empty if it is free.
    pub holders: Vec<HeldBy>,
    /// Who waits, first come first; `None` if the store does not know.
    pub waiters: Option<Vec<WaitingFor>>,
    /// How long nobody gets it because of a minimum hold.
    pub not_due_for: Option<Duration>,
}

impl LockState {
    /// The state of a lock that is free and for which nobody waits.
    pub fn free(name: LockName) -> Self {
        Self { name, holders: Vec::new(), waiters: Some(Vec::new()), not_due_for: None }
    }

    /// Whether somebody holds it or waits for it.
    pub fn is_in_use(&self) -> bool {
        !self.holders.is_empty() || self.waiters.as_ref().is_some_and(|waiters| !waiters.is_empty())
    }
}

/// A holder of a lock, as far as the store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldBy {
    /// How it holds the lock.
    pub mode: Mode,
    /// Who it is.
    pub holder: Option<Holder>,
    /// The claim that holds.
    pub claim: Option<ClaimId>,
    /// The first fencing token of the grant.
    pub token: Option<FencingToken>,
    /// How long it lasts unless it is renewed, from now; `None` if it does not expire.
    pub remaining: Option<Duration>,
}

impl HeldBy {
    /// A holder of whom nothing else is known.
    pub const fn new(mode: Mode) -> Self {
        Self { mode, holder: None, claim: None, token: None, remaining: None }
    }
}

/// Somebody who waits for a lock in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingFor {
    /// How it wants to hold the lock, if the store knows.
    pub mode: Option<Mode>,
    /// Who it is.
    pub holder: Option<Holder>,
    /// The claim that waits.
    pub claim: Option<ClaimId>,
}

impl WaitingFor {
    /// A waiter of whom nothing else is known.
    pub const fn new() -> Self {
        Self { mode: None, holder: None, claim: None }
    }
}

impl Default for WaitingFor {
    fn default() -> Self {
        Self::new()
    }
}
