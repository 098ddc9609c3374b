//! A caller's place in the engine.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::entry::EntryKey;
use super::lease::Lease;
use super::timers::TimerKey;
use crate::busy::Busy;
use crate::clock::Boottime;
use crate::error::Error;
use crate::holder::Holder;
use crate::name::LockName;
use crate::token::FencingToken;

/// Names a ticket while its owner has not taken the answer.
pub(crate) type TicketKey = usize;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) name: LockName,
    pub(crate) ttl: Option<Duration>,
    pub(crate) holder: Arc<Holder>,
    pub(crate) patience: Patience,
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
    pub(crate) ttl: Option<Duration>,
    pub(crate) holder: Option<Arc<Holder>>,
    pub(crate) patience: Patience,
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
        ttl: Option<Duration>,
        holder: Arc<Holder>,
        patience: Patience,
        now: Boottime,
    ) -> Self {
        Self { ttl, holder: Some(holder), patience, linked: false, ..Self::confirmation(now) }
    }

    /// The place of a caller who waits until something is done; whatever does it names the ticket until then.
    pub(crate) fn confirmation(now: Boottime) -> Self {
        Self {
            state: TicketState::Waiting(None),
            entry: None,
            ttl: None,
            holder: None,
            patience: Patience::Endless,
            timer: None,
            since: now,
            linked: true,
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.state, TicketState::Waiting(_))
    }
}
