//! One lock, as the engine sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::lease::Lease;
use super::ticket::TicketKey;
use super::timers::TimerKey;
use crate::busy::Busy;
use crate::clock::Boottime;
use crate::error::Error;
use crate::name::LockName;
use crate::spi::{Claim, ClaimId, Grant};

/// Names an entry while it exists.
pub(crate) type EntryKey = usize;

/// One lock that somebody in this process wants, holds or gives back.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: LockName,
    /// Who waits, first come first served. May name tickets that are gone.
    pub(crate) waiting: VecDeque<TicketKey>,
    /// How many of `waiting` still wait.
    pub(crate) live: usize,
    pub(crate) phase: Phase,
    /// Why the store said no, the last time it did.
    pub(crate) seen: Option<Busy>,
    /// How often in a row the store said no without a queue.
    pub(crate) refusals: u32,
    /// Since when grants have ended before anybody could have them.
    pub(crate) slow_since: Option<Boottime>,
}

/// What this process's one claim on the lock is doing.
#[derive(Debug)]
pub(crate) enum Phase {
    /// There is none.
    Idle,
    /// The store was asked.
    Claiming(Pending),
    /// The store has it in its queue.
    Queued(Pending),
    /// The store said no and has no queue; the next claim follows when the timer fires.
    Pausing(TimerKey),
    /// It holds the lock.
    Held(Hold),
    /// The grant goes back to the store.
    Releasing(Releasing),
    /// A queued claim is being undone.
    Cancelling(Pending),
}

/// A claim whose fate is not known yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) claim: Claim,
    /// When to look after it.
    pub(crate) timer: Option<TimerKey>,
    /// Since when the store has not answered.
    pub(crate) trouble: Option<Boottime>,
    /// What came last instead of an answer, if anything came.
    pub(crate) why: Option<Error>,
    /// Whether the store hinted at the lock before it answered: then the answer is old.
    pub(crate) hinted: bool,
    /// How often it was sent.
    pub(crate) sent: u32,
    /// How often it was answered.
    pub(crate) answered: u32,
}

/// A grant that this process has.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) grant: Grant,
    pub(crate) lease: Arc<Lease>,
    pub(crate) usage: Usage,
    /// How many of the grant's tokens were given out.
    pub(crate) used: u32,
    /// When the first guard of this grant got it.
    pub(crate) since: Boottime,
    /// What keeps it alive; `None` if it never expires.
    pub(crate) upkeep: Option<Upkeep>,
}

/// Who has the grant inside this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// Nobody yet: a renewal must show first how long it lives.
    Unconfirmed,
    /// Nobody just now.
    Free,
    /// A guard.
    Out,
}

/// What keeps a grant with an expiry alive.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// The ttl it was asked for with.
    pub(crate) ttl: Duration,
    /// How long it counts as held, from `sent`.
    pub(crate) valid_for: Duration,
    /// When the step that set the present expiry was sent.
    pub(crate) sent: Boottime,
    /// Its place in the schedule of renewals.
    pub(crate) renew_at: Boottime,
    /// The timer for "at risk" and for the end.
    pub(crate) timer: Option<TimerKey>,
}

/// A grant on its way back.
#[derive(Debug)]
pub(crate) struct Releasing {
    pub(crate) grant: Grant,
    /// Who wants to know.
    pub(crate) ticket: Option<TicketKey>,
    /// When to look after it.
    pub(crate) timer: Option<TimerKey>,
    /// When the store forgets the grant by itself.
    pub(crate) forgotten_at: Boottime,
}

impl Entry {
    pub(crate) fn new(name: LockName) -> Self {
        Self {
            name,
            waiting: VecDeque::new(),
            live: 0,
            phase: Phase::Idle,
            seen: None,
            refusals: 0,
            slow_since: None,
        }
    }

    /// Whether this process has a grant of this claim, or is giving it back.
    pub(crate) fn has_grant_of(&self, claim: ClaimId) -> bool {
        match &self.phase {
            Phase::Held(hold) => hold.grant.claim == claim,
            Phase::Releasing(releasing) => releasing.grant.claim == claim,
            _ => false,
        }
    }

    /// What holds the lock for this process, if it is this claim.
    pub(crate) fn hold_of(&mut self, claim: ClaimId) -> Option<&mut Hold> {
        match &mut self.phase {
            Phase::Held(hold) if hold.grant.claim == claim => Some(hold),
            _ => None,
        }
    }
}
