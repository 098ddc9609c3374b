//! One lock, as the engine sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use super::lease::Lease;
use super::outbox::Return;
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
    pub(crate) kind: Kind,
    /// Whether it counts among those whose claims its door has let through to the store.
    pub(crate) admitted: bool,
    /// Who waits, first come first served. May name tickets that are gone.
    pub(crate) waiting: VecDeque<TicketKey>,
    /// How many of `waiting` still wait.
    pub(crate) live: usize,
    pub(crate) phase: Phase,
    /// Why the store said no, the last time it did.
    pub(crate) seen: Option<Busy>,
    /// How many are before its claim in the store's queue, as far as the store said.
    pub(crate) position: Option<u64>,
    /// How often in a row the store said no without a queue.
    pub(crate) refusals: u32,
    /// Since when grants have ended before anybody could have them.
    pub(crate) slow_since: Option<Boottime>,
}

/// Whom an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For all who want the lock exclusively, on plain terms: they share one claim and hand its grant on to each other.
    Line,
    /// For one caller, with a claim of its own.
    Solo(ClaimId),
}

/// What the entry's claim on the lock is doing.
#[derive(Debug)]
pub(crate) enum Phase {
    /// There is none.
    Idle,
    /// Others of this process ask the store first; its place among those who are behind the door.
    Parked(u64),
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
    /// Whether it may have got somewhere after it was undone.
    pub(crate) revived: bool,
}

/// A grant that this process has.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) grant: Grant,
    pub(crate) lease: Arc<Lease>,
    pub(crate) usage: Usage,
    /// The thread whose tasks have to get on before its guard is dropped, if one has.
    pub(crate) thread: Option<ThreadId>,
    /// How many of the grant's tokens were given out.
    pub(crate) used: u32,
    /// When the first guard of this grant got it.
    pub(crate) since: Boottime,
    /// What keeps it alive; `None` if it never expires.
    pub(crate) upkeep: Option<Upkeep>,
    /// Fires when it has been held for as long as its guard wants at most.
    pub(crate) max_hold: Option<TimerKey>,
    /// Who waits for a renewal that was asked for by hand, and since when.
    pub(crate) extensions: Vec<(TicketKey, Boottime)>,
    /// The claim, if a grant that nobody got is to be undone and not just released.
    pub(crate) undo: Option<Box<Claim>>,
    /// How many copies of its claim the store has not answered yet.
    pub(crate) copies: u32,
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
    /// Whether its guard renews it by hand.
    pub(crate) by_hand: bool,
    /// How long it counts as held, from `sent`.
    pub(crate) valid_for: Duration,
    /// When the step that set the present expiry was sent.
    pub(crate) sent: Boottime,
    /// Its place in the schedule of renewals; by hand, when the last one was asked for.
    pub(crate) renew_at: Boottime,
    /// Whether the store has not yet answered when it was last asked to renew it.
    pub(crate) is_asked: bool,
    /// The timer for "at risk" and for the end.
    pub(crate) timer: Option<TimerKey>,
}

/// A grant on its way back.
#[derive(Debug)]
pub(crate) struct Releasing {
    pub(crate) grant: Grant,
    /// Whether what it was taken for was done.
    pub(crate) completed: bool,
    /// Who wants to know.
    pub(crate) ticket: Option<TicketKey>,
    /// When to look after it.
    pub(crate) timer: Option<TimerKey>,
    /// When the store forgets the grant by itself.
    pub(crate) forgotten_at: Boottime,
    /// How many copies of its claim are to be answered before it is sent: what they might do after it could not be undone without the minimum hold.
    pub(crate) awaits: u32,
    /// The claim, if a copy of it may have got somewhere after the grant was taken back.
    pub(crate) revived: Option<Box<Claim>>,
}

impl Releasing {
    /// What the store is to be told.
    pub(crate) fn back(&self) -> Return {
        Return { grant: self.grant.clone(), completed: self.completed }
    }
}

impl Entry {
    pub(crate) fn new(name: LockName, kind: Kind) -> Self {
        Self {
            name,
            kind,
            admitted: false,
            waiting: VecDeque::new(),
            live: 0,
            phase: Phase::Idle,
            seen: None,
            position: None,
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

    /// Whether this claim's fate is not known yet.
    pub(crate) fn is_pending(&self, claim: ClaimId) -> bool {
        match &self.phase {
            Phase::Claiming(pending) | Phase::Queued(pending) | Phase::Cancelling(pending) => {
                pending.claim.id == claim
            }
            _ => false,
        }
    }

    /// Whether the store was found to have nothing for it for now.
    pub(crate) fn is_held_up(&self) -> bool {
        matches!(self.phase, Phase::Queued(_) | Phase::Pausing(_))
    }

    /// What holds the lock for this process, if it is this claim.
    pub(crate) fn hold_of(&mut self, claim: ClaimId) -> Option<&mut Hold> {
        match &mut self.phase {
            Phase::Held(hold) if hold.grant.claim == claim => Some(hold),
            _ => None,
        }
    }
}
