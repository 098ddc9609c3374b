//! The engine's timers.

use std::collections::BTreeMap;

use super::entry::EntryKey;
use super::ticket::TicketKey;
use crate::clock::Boottime;
use crate::spi::ClaimId;

/// What a timer is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    /// A caller's patience ends.
    Ticket(TicketKey),
    /// A reply is overdue, a pause is over or a queued claim is to be checked.
    Entry(EntryKey),
    /// A lease gets at risk or ends.
    Lease(EntryKey),
    /// A guard has had its lock for as long as it may.
    MaxHold(EntryKey),
    /// A debt is to be tried again.
    Debt(ClaimId),
    /// The grants that the store records are to be asked for again.
    Recovery,
    /// Closing has taken long enough.
    Close,
}

/// Names one timer that was set.
pub(crate) type TimerKey = (Boottime, u64);

/// The engine's timers, in the order in which they fire.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<TimerKey, Timer>,
    serial: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Boottime, timer: Timer) -> TimerKey {
        self.serial += 1;
        let key = (at, self.serial);
        self.due.insert(key, timer);
        key
    }

    pub(crate) fn clear(&mut self, key: Option<TimerKey>) {
        if let Some(key) = key {
            self.due.remove(&key);
        }
    }

    /// When the next one fires.
    pub(crate) fn next(&self) -> Option<Boottime> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next one that is due.
    pub(crate) fn pop(&mut self, now: Boottime) -> Option<Timer> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}
