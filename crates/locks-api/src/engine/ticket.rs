//! A caller's place in the engine.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::entry::EntryKey;
use super::lease::Lease;
use super::timers::TimerKey;
use crate::busy::Busy;
use crate::caller::Caller;
use crate::clock::Boottime;
use crate::error::Error;
use crate::holder::Holder;
use crate::name::LockName;
use crate::spi::{Extras, Mode};
use crate::token::FencingToken;

/// Names a ticket while its owner has not taken the answer.
pub(crate) type TicketKey = usize;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) name: LockName,
    pub(crate) terms: Terms,
    pub(crate) holder: Arc<Holder>,
    pub(crate) patience: Patience,
    pub(crate) caller: Caller,
}

/// How a lock is to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) mode: Mode,
    pub(crate) ttl: Option<Duration>,
    /// What few ask for, apart: terms are moved about with every request.
    pub(crate) special: Option<Arc<Special>>,
}

/// What few ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Special {
    /// Whether the guard renews it by hand.
    pub(crate) by_hand: bool,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) extras: Option<Arc<Extras>>,
}

impl Terms {
    /// An exclusive hold that is renewed, without anything else.
    pub(crate) const fn plain(ttl: Option<Duration>) -> Self {
        Self { mode: Mode::Exclusive, ttl, special: None }
    }

    /// Whether a grant on these terms is as good for the next one who asks on such terms.
    pub(crate) fn are_plain(&self) -> bool {
        self.mode == Mode::Exclusive && self.special.is_none()
    }

    pub(crate) fn are_by_hand(&self) -> bool {
        self.special.as_ref().is_some_and(|special| special.by_hand)
    }

    pub(crate) fn max_hold(&self) -> Option<Duration> {
        self.special.as_ref()?.max_hold
    }
}

/// How long a caller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all; a busy lock is an answer.
    Try,
    /// Until then; a busy lock is an error after that.
    Until(Boottime),
    /// For ever.
    Endless,
}

/// What a caller gets.
#[derive(Debug)]
pub(crate) enum Answer {
    Granted(Granted),
    Busy(Busy),
    Failed(Error),
    /// The store confirmed a release, or everything is closed.
    Done,
}

/// What a guard is made of.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) entry: EntryKey,
    pub(crate) lease: Arc<Lease>,
    pub(crate) token: FencingToken,
}

/// A caller's place in the engine, from the request until the answer is taken.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) state: TicketState,
    /// Where it waits, for acquisitions.
    pub(crate) entry: Option<EntryKey>,
    pub(crate) terms: Terms,
    pub(crate) holder: Option<Arc<Holder>>,
    pub(crate) patience: Patience,
    pub(crate) caller: Caller,
    pub(crate) timer: Option<TimerKey>,
    pub(crate) since: Boottime,
    /// Whether an entry's queue, or what it waits for, still names it: its key must not be used again before.
    pub(crate) linked: bool,
}

#[derive(Debug)]
pub(crate) enum TicketState {
    Waiting(Option<Waker>),
    Answered(Answer),
    /// The owner has gone, or has its answer.
    Gone,
}

impl Ticket {
    /// The place of a caller who wants a lock.
    pub(crate) fn acquisition(
        terms: Terms,
        holder: Arc<Holder>,
        (patience, caller): (Patience, Caller),
        now: Boottime,
    ) -> Self {
        Self { terms, holder: Some(holder), patience, caller, linked: false, ..Self::confirmation(now) }
    }

    /// The place of a caller who waits until something is done; whatever does it names the ticket until then.
    pub(crate) fn confirmation(now: Boottime) -> Self {
        Self {
            state: TicketState::Waiting(None),
            entry: None,
            terms: Terms::plain(None),
            holder: None,
            patience: Patience::Endless,
            caller: Caller::default(),
            timer: None,
            since: now,
            linked: true,
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, TicketState::Waiting(_))
    }
}
