//! Those who wait for a lock inside this process, first come first served.

use slab::Slab;

use super::core::Core;
use super::entry::{EntryKey, Pending, Phase, Usage};
use super::ticket::{Answer, Patience, Ticket, TicketKey, TicketState};
use crate::busy::Busy;
use crate::clock::Boottime;
use crate::error::{Error, ErrorKind};
use crate::holder::Holder;
use crate::name::LockName;

impl Core {
    /// Why a `try` has no chance inside this process, if so: somebody here has the lock or came first.
    pub(super) fn busy_here(&self, name: &LockName) -> Option<Busy> {
        let entry = &self.entries[self.line_of(name)?];
        let ours = matches!(&entry.phase, Phase::Held(hold) if hold.usage != Usage::Free);
        if ours {
            return Some(Busy::Held { by: Some(Holder::this_process()) });
        }
        (entry.live > 0).then(|| entry.seen.clone().unwrap_or(Busy::Held { by: None }))
    }

    /// How many are before a caller who waits, and why it has to, as far as is known.
    pub(crate) fn standing(&self, ticket: TicketKey) -> (Option<u64>, Option<Busy>) {
        let Some(key) =
            self.tickets.get(ticket).filter(|ticket| ticket.is_waiting()).and_then(|ticket| ticket.entry)
        else {
            return (None, None);
        };
        let entry = &self.entries[key];
        let here = || self.holder_here(key).map(|holder| Busy::Held { by: Some(holder) });
        let busy = here().or_else(|| entry.seen.clone()).or_else(|| self.busy_at_the_door(&entry.name));
        (self.ahead_of(ticket), busy)
    }

    /// Tells every waiter that asked for a `try` that the lock is busy.
    pub(super) fn refuse_tries(&mut self, key: EntryKey, busy: &Busy) {
        let tries: Vec<TicketKey> = self.entries[key]
            .waiting
            .iter()
            .copied()
            .filter(|ticket| {
                self.tickets[*ticket].is_waiting() && self.tickets[*ticket].patience == Patience::Try
            })
            .collect();
        for ticket in tries {
            self.entries[key].live -= 1;
            self.answer(ticket, Answer::Busy(busy.clone()));
        }
    }

    /// Tells everybody who waits for this lock why it can't be had.
    pub(super) fn fail_all(&mut self, key: EntryKey, error: &Error) {
        while let Some(ticket) = self.next_waiter(key) {
            self.answer(ticket, Answer::Failed(error.clone()));
        }
    }

    /// A caller's time is up.
    pub(super) fn lose_patience(&mut self, key: TicketKey, now: Boottime) {
        let Some(ticket) = self.tickets.get_mut(key) else { return };
        ticket.timer = None;
        let Some(entry) = ticket.entry.filter(|_| ticket.is_waiting()) else { return };
        let error = match &self.entries[entry].phase {
            Phase::Claiming(Pending { trouble: Some(_), why, .. }) => why.clone().unwrap_or_else(|| {
                Error::new(ErrorKind::Unavailable, "the store did not answer in the given time")
            }),
            _ => Error::new(ErrorKind::Timeout, "not acquired in the given time").with_busy(
                self.entries[entry]
                    .seen
                    .clone()
                    .unwrap_or_else(|| Busy::Held { by: self.holder_here(entry) }),
            ),
        };
        self.entries[entry].live -= 1;
        self.answer(key, Answer::Failed(error));
        self.sweep(entry);
        self.advance(entry, now);
    }

    /// Who holds the lock if that is known without asking: this process.
    fn holder_here(&self, key: EntryKey) -> Option<Holder> {
        matches!(self.entries[key].phase, Phase::Held(_)).then(Holder::this_process)
    }

    /// The first ticket that still waits; drops those before it that do not.
    pub(super) fn first_waiter(&mut self, key: EntryKey) -> Option<TicketKey> {
        let entry = &mut self.entries[key];
        while let Some(&first) = entry.waiting.front() {
            if self.tickets[first].is_waiting() {
                return Some(first);
            }
            entry.waiting.pop_front();
            Self::unlink(&mut self.tickets, first);
        }
        None
    }

    /// Takes the first ticket that still waits out of the queue.
    pub(super) fn next_waiter(&mut self, key: EntryKey) -> Option<TicketKey> {
        let ticket = self.first_waiter(key)?;
        let entry = &mut self.entries[key];
        entry.waiting.pop_front();
        entry.live -= 1;
        self.tickets[ticket].linked = false;
        Some(ticket)
    }

    /// Keeps a queue of which many have gone from growing.
    pub(super) fn sweep(&mut self, key: EntryKey) {
        let entry = &mut self.entries[key];
        if entry.waiting.len() <= 2 * entry.live + 32 {
            return;
        }
        let tickets = &mut self.tickets;
        entry.waiting.retain(|ticket| {
            let waits = tickets[*ticket].is_waiting();
            if !waits {
                Self::unlink(tickets, *ticket);
            }
            waits
        });
    }

    pub(super) fn answer(&mut self, key: TicketKey, answer: Answer) {
        let ticket = &mut self.tickets[key];
        let timer = ticket.timer.take();
        if ticket.entry.is_none() {
            ticket.linked = false;
        }
        match std::mem::replace(&mut ticket.state, TicketState::Answered(answer)) {
            TicketState::Waiting(waker) => self.wakes.extend(waker),
            TicketState::Answered(_) => {}
            TicketState::Gone => {
                ticket.state = TicketState::Gone;
                self.forget(key);
            }
        }
        self.timers.clear(timer);
    }

    /// Frees a ticket whose owner has gone, unless a queue still names it.
    pub(super) fn forget(&mut self, key: TicketKey) {
        if !self.tickets[key].linked {
            self.tickets.remove(key);
        }
    }

    /// Frees a ticket that no queue names any more, if its owner has gone.
    pub(super) fn unlink(tickets: &mut Slab<Ticket>, key: TicketKey) {
        tickets[key].linked = false;
        if matches!(tickets[key].state, TicketState::Gone) {
            tickets.remove(key);
        }
    }
}
