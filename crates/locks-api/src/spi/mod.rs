//! What a backend author writes: one trait, [`Backend`], and the data that goes through it.
//!
//! A backend turns one step into one atomic action of its store. Everything that is hard about locks lives in
//! the engine: first come, first served inside the process, waiting, time-outs, cancellation, deadlines, renewal, loss,
//! releases that could not be delivered. A backend needs no background task of its own, except to listen.
//!
//! The words MUST and MAY below are normative; `locks-conformance` checks each of them on a real store.
//!
//! # The steps
//!
//! 1. [`Backend::acquire`] decides, in one atomic step, whether a [`Claim`] is granted, queued or busy. The step that
//!    grants also writes the fencing tokens and returns them: a token is never fetched by a second call.
//! 2. While the grant lives, [`Backend::renew`] moves its expiry, if the store has one.
//! 3. [`Backend::release`] gives back exactly this grant, and [`Backend::cancel`] undoes exactly this claim, whatever it reached.
//! 4. Whatever the store says on its own goes through [`Events`].
//!
//! # Exactly this claim
//!
//! A claim's [`ClaimId`] is chosen by the engine and never used twice. Every step MUST be idempotent by
//! it: a repeated `acquire` returns the grant that the claim already has, with the same tokens, or its
//! present place in the queue. No step may ever touch another claim's grant. So a lost reply is
//! harmless: the engine sends the same claim again.
//!
//! # Errors
//!
//! [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) means *it may or may not have happened*; the engine repeats the
//! step until it knows. Every other kind MUST mean *it did not happen and never will*; a release or a
//! cancellation is repeated all the same. Backends do not name themselves
//! or the lock in a message; the engine does that once.
//!
//! # Cancel safety
//!
//! The engine never drops the future of a step before it is ready, except when the process closes its
//! `Locks` and time runs out.

mod abilities;
mod backend;
mod claim;
mod events;
mod grant;
mod guarantees;
mod store_clock;
mod url_options;

pub use async_trait::async_trait;

pub use crate::clock::Boottime;
pub use crate::token::TokenBlock;
pub use abilities::{
    Abilities, Downgrade, HeldBy, Inspect, Joint, Leader, LockState, Recovery, Schedule, Together, Values,
    WaitingFor,
};
pub use backend::{Backend, Inline, Result};
pub use claim::{Claim, ClaimId, Extras, InstanceId, LeaseId, Mode};
pub use events::Events;
pub use grant::{Attempt, Expiry, Grant, Released, Renewed};
pub use guarantees::{
    CrashRelease, Fairness, Guarantees, LossDetection, Offer, Offers, Restart, Scope, TtlLimits,
};
pub use store_clock::StoreClock;
pub use url_options::UrlOptions;

pub(crate) use events::{Event, EventSink};
