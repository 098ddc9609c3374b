//! What a store answers.

use std::time::Duration;

use super::{ClaimId, LeaseId, TokenBlock};
use crate::busy::Busy;
use crate::holder::Holder;
use crate::loss::LossReason;
use crate::name::LockName;

/// A claim that holds its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// The lock.
    pub name: LockName,
    /// The claim that holds it.
    pub claim: ClaimId,
    /// The lease that carries it.
    pub lease: LeaseId,
    /// Its fencing tokens, written by the step that granted it.
    pub tokens: TokenBlock,
    /// How long it lives without renewal.
    pub expiry: Expiry,
}

impl Grant {
    /// The grant of `claim`.
    pub fn new(claim: &super::Claim, tokens: TokenBlock, expiry: Expiry) -> Self {
        Self { name: claim.name.clone(), claim: claim.id, lease: claim.lease, tokens, expiry }
    }

    /// Whether `other` is this very grant: the same claim with the same tokens. What a release and a renewal compare: a claim that
    /// expired unseen may have been sent again, and then has a later grant.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.claim == other.claim && self.tokens == other.tokens
    }
}

/// How long a grant lives without renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiry {
    /// Until it is released or its process ends.
    Never,
    /// At least this long after the step that answers this was *sent*. The engine counts from before the step and takes off
    /// a safety margin. For a grant that reaches the process through [`Events::granted`](super::Events::granted) it counts from
    /// the instant that is told there.
    In(Duration),
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attempt {
    /// It holds the lock.
    Granted(Grant),
    /// It waits in the store's queue.
    Queued {
        /// How many who wait are before it, if the store knows. Those who hold do not count.
        position: Option<u64>,
        /// Who holds the lock now, if the store knows.
        by: Option<Holder>,
        /// When to send the claim again if nothing was heard, counted from now: the earliest expiry that could let it in. `None` for
        /// stores that can't lose a wake-up.
        check_in: Option<Duration>,
    },
    /// It got nothing and left nothing behind.
    Busy(Busy),
}

impl Attempt {
    /// Refused because somebody holds the lock.
    pub fn held(by: Option<Holder>) -> Self {
        Self::Busy(Busy::Held { by })
    }

    /// Queued in a store that can't lose a wake-up.
    pub fn queued(position: Option<u64>, by: Option<Holder>) -> Self {
        Self::Queued { position, by, check_in: None }
    }
}

/// The answer to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Released {
    /// The grant was there and is gone.
    Done,
    /// The grant was not there any more.
    NotHeld,
}

/// The answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewed {
    /// The grant lives on.
    Extended(Expiry),
    /// The grant is gone, for ever.
    Lost(LossReason),
}
