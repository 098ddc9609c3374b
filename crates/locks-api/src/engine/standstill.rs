//! Blocking waits that could never end: the thread that waits is the one on which the lock would have to be given back.

use std::thread::ThreadId;

use super::core::Core;
use super::entry::{Entry, EntryKey, Hold, Phase, Usage};
use super::ticket::{Answer, Patience, Terms, TicketKey};
use crate::caller::Caller;
use crate::clock::Boottime;
use crate::error::{Error, ErrorKind};
use crate::name::LockName;
use crate::spi::Mode;

impl Core {
    /// Why a caller must not wait, if it would block the very thread that those before it need to give the lock back.
    ///
    /// It is enough to look when the caller begins to block: the thread then makes nothing new. Only what keeps a reader out comes from
    /// elsewhere ([`Core::refuse_stuck`]).
    pub(super) fn standstill(&self, key: TicketKey, name: &LockName, now: Boottime) -> Option<Error> {
        let ticket = &self.tickets[key];
        let thread = ticket.caller.stops()?;
        let before = self.of_thread(thread, name, key, now).map(|(mode, _)| mode);
        (!ticket.terms.mode.fits_beside(before) || self.is_stuck(key, now)).then(standstill)
    }

    /// A caller goes on waiting in another way.
    pub(crate) fn continue_as(&mut self, key: TicketKey, caller: Caller, now: Boottime) -> Result<(), Error> {
        let Some(ticket) = self.tickets.get_mut(key).filter(|ticket| ticket.is_waiting()) else {
            return Ok(());
        };
        ticket.caller = caller;
        let Some(entry) = ticket.entry else { return Ok(()) };
        self.standstill(key, &self.entries[entry].name, now).map_or(Ok(()), Err)
    }

    /// The store keeps the first waiter of this entry out: refuses it if that could never end.
    pub(super) fn refuse_stuck(&mut self, key: EntryKey, now: Boottime) {
        if let Some(first) = self.first_waiter(key)
            && self.tickets[first].patience != Patience::Try
            && self.is_stuck_behind_others(first, now)
        {
            self.entries[key].live -= 1;
            self.answer(first, Answer::Failed(standstill()));
        }
    }

    /// Whether the store keeps out a reader that stands still although another one of its thread is in.
    fn is_stuck(&self, key: TicketKey, now: Boottime) -> bool {
        let entry = self.tickets[key].entry.map(|entry| &self.entries[entry]);
        entry.is_some_and(Entry::is_held_up) && self.is_stuck_behind_others(key, now)
    }

    /// Whether this is a reader that stands still and another one of its thread is in: what keeps this one out waits for that one.
    fn is_stuck_behind_others(&self, key: TicketKey, now: Boottime) -> bool {
        let ticket = &self.tickets[key];
        let (Some(thread), Some(entry)) = (ticket.caller.stops(), ticket.entry) else { return false };
        let name = &self.entries[entry].name;
        ticket.terms.mode == Mode::Shared && self.of_thread(thread, name, key, now).any(|(_, holds)| holds)
    }

    /// How the tasks of this thread hold the lock, or want to and came before this ticket, and whether they hold it.
    fn of_thread(
        &self,
        thread: ThreadId,
        name: &LockName,
        this: TicketKey,
        now: Boottime,
    ) -> impl Iterator<Item = (Mode, bool)> {
        let since = self.tickets[this].since;
        // One in very many asks, so there is no index for it.
        let entries = self.entries.iter().map(|(_, entry)| entry).filter(|entry| entry.name == *name);
        entries.flat_map(move |entry| {
            let held = match &entry.phase {
                Phase::Held(hold) => hold.is_kept_by(thread, now).then(|| (hold.lease.mode(), true)),
                _ => None,
            };
            let waiting = entry.waiting.iter().filter(move |key| {
                let ticket = &self.tickets[**key];
                ticket.is_waiting()
                    && **key != this
                    && ticket.since <= since
                    && ticket.caller.thread == Some(thread)
                    && !ticket.terms.end_by_themselves()
            });
            held.into_iter().chain(waiting.map(|key| (self.tickets[*key].terms.mode, false)))
        })
    }
}

impl Hold {
    /// Whether it lasts until a task of this thread gives it back.
    fn is_kept_by(&self, thread: ThreadId, now: Boottime) -> bool {
        let by_hand = self.upkeep.as_ref().is_some_and(|upkeep| upkeep.by_hand);
        self.usage == Usage::Out
            && self.thread == Some(thread)
            && self.max_hold.is_none()
            && !by_hand
            && self.lease.is_held_at(now)
    }
}

impl Terms {
    /// Whether a hold on these terms ends even if its guard stays.
    fn end_by_themselves(&self) -> bool {
        self.max_hold().is_some() || (self.are_by_hand() && self.ttl.is_some())
    }
}

fn standstill() -> Error {
    let message = "this thread runs a current-thread runtime, one of whose tasks has the lock or comes first: it could never give \
                   it back while the thread is blocked; await the lock, or block inside `spawn_blocking`";
    Error::new(ErrorKind::WouldDeadlock, message)
}
