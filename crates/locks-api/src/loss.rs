//! Why a lock was lost.

use std::fmt;

/// Why a lock was lost. A lost lock stays lost: no guard comes back to life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// It could not be renewed before its deadline: the store was out of reach, or this process or machine was paused.
    Expired,
    /// The store says that this grant holds the lock no more.
    Taken,
    /// Somebody broke the lock on purpose.
    Revoked,
    /// The store ended the session that carried the lock.
    SessionGone,
    /// The store forgot its grants: a crash, a fail-over, a flush or a restore.
    StoreReset,
    /// It was held for as long as its holder said it may be at most.
    MaxHold,
    /// This process closed its `Locks` while the guard was alive.
    Closed,
}

/// Reads as "it was not renewed before its deadline".
impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "it was not renewed before its deadline",
            Self::Taken => "the store says that somebody else may hold it",
            Self::Revoked => "somebody broke it",
            Self::SessionGone => "the store ended the session that carried it",
            Self::StoreReset => "the store forgot it",
            Self::MaxHold => "its maximum hold is over",
            Self::Closed => "this process closed its connection to the store",
        })
    }
}
