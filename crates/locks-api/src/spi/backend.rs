//! The trait itself.

use std::any::Any;
use std::fmt;

use async_trait::async_trait;

use super::{Abilities, Attempt, Claim, Events, Grant, Guarantees, Released, Renewed};
use crate::error::Error;

/// What a step returns.
pub type Result<T> = std::result::Result<T, Error>;

/// A binding to one store, for one [`Locks`](crate::Locks).
///
/// Steps take slices because claims that arrive together travel together: a backend SHOULD turn a slice into one
/// statement, script or pipeline. The returned vector MUST have one entry for each of the slice's, in order; an outer
/// error speaks for all of them.
///
/// No method has a default: what a backend can't do, it says.
#[async_trait]
pub trait Backend: Any + fmt::Debug + Send + Sync {
    /// What this backend promises. Data only: MUST NOT do I/O and MUST NOT change over the value's life.
    fn guarantees(&self) -> &Guarantees;

    /// Called once, before any step: where to say what the store says on its own. A backend that never
    /// hears anything unasked MAY drop it.
    ///
    /// [`Events`] may be called from any thread, also while a step is running, and never calls back into
    /// the backend.
    fn subscribe(&self, events: Events);

    /// Grants, queues or refuses each claim, each in one atomic step.
    ///
    /// A claim with [`may_wait`](Claim::may_wait) MAY be answered [`Attempt::Queued`]: the store then MUST grant it when its turn comes,
    /// without being asked again, and say so with [`Events::granted`]. A backend without a queue answers
    /// [`Attempt::Busy`], and the engine asks again with jittered back-off. A claim that may not wait MUST NOT leave anything
    /// behind unless it is granted, and MUST NOT pass claims that wait, unless the backend [promises no order](super::Fairness::None).
    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>>;

    /// Undoes each claim, whatever it reached: afterwards it neither waits nor holds, and never will.
    /// A claim that is unknown is no error. The engine repeats a step that failed, whatever the kind of its error, until it succeeds or
    /// the store has surely forgotten the claim.
    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>>;

    /// Gives back each grant: only this exact claim, with exactly these tokens. If the store has a queue, the next waiter MUST be granted in the same step.
    /// A step that failed is repeated, as with [`Backend::cancel`].
    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>>;

    /// Moves the expiry of each grant to a whole ttl from now, on the store's clock. The ttl is the one that was claimed, which
    /// the store MUST keep: [`Grant::expiry`] may be no more than what was left of it when a lost reply was repeated.
    ///
    /// Only this exact grant MUST be renewed, tokens included: a claim that expired unseen may have been sent again and granted
    /// anew, and its first grant is gone all the same. An expired grant MUST be answered [`Renewed::Lost`] even if nobody took the lock since. Called only for grants with
    /// [`Expiry::In`](super::Expiry::In); a store without expiry answers that they are held, unchanged.
    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>>;

    /// Ends connections and sessions. Called once, after the last step. Grants that are left end as the store's crash rule says.
    async fn close(&self) -> Result<()>;

    /// The steps without a detour, for stores that answer at once and never block: memory, a local file.
    fn inline(&self) -> Option<&dyn Inline>;

    /// What else this backend can do. What is there MUST agree with [`Guarantees::offers`].
    fn abilities(&self) -> Abilities<'_>;
}

/// Steps that are done on the caller's own thread: they MUST NOT block and take microseconds.
///
/// Same rules as the steps of [`Backend`] of the same name. A backend that offers these forwards its
/// asynchronous steps to them.
pub trait Inline: Send + Sync {
    /// Grants, queues or refuses one claim. See [`Backend::acquire`].
    ///
    /// # Errors
    ///
    /// As [`Backend::acquire`], for this claim.
    fn acquire(&self, claim: &Claim) -> Result<Attempt>;

    /// Undoes one claim. See [`Backend::cancel`].
    ///
    /// # Errors
    ///
    /// As [`Backend::cancel`], for this claim.
    fn cancel(&self, claim: &Claim) -> Result<()>;

    /// Gives back one grant. See [`Backend::release`].
    ///
    /// # Errors
    ///
    /// As [`Backend::release`], for this grant.
    fn release(&self, grant: &Grant) -> Result<Released>;
}
