//! Grants that this process has: who gets them, for how long, and how they go back.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::entry::{EntryKey, Hold, Pending, Phase, Releasing, Usage};
use super::ticket::{Answer, Granted, Ticket, TicketKey};
use super::timers::Timer;
use crate::clock::Boottime;
use crate::error::Error;
use crate::loss::LossReason;
use crate::observe::What;
use crate::spi::{ClaimId, Grant, TokenBlock};
use crate::token::FencingToken;

/// The longest row of hand-ons, beside [`TokenBlock::MAX_LEN`] guards.
const HAND_ON_LIMIT: Duration = Duration::from_millis(5);

impl Core {
    /// A guard gives its grant back; `completed` if what it was taken for was done and the store is to remember that. With `answer`, the returned
    /// ticket says when and whether the store took it.
    ///
    /// A grant that was lost before is reported as such.
    pub(crate) fn release(
        &mut self,
        granted: &Granted,
        completed: bool,
        answer: bool,
        now: Boottime,
    ) -> Option<TicketKey> {
        let lost = if granted.lease.is_held_at(now) { None } else { granted.lease.loss() };
        let ticket = answer.then(|| self.tickets.insert(Ticket::confirmation(now)));
        let held = self
            .entries
            .get_mut(granted.entry)
            .and_then(|entry| entry.hold_of(granted.lease.claim()))
            .map(|hold| hold.usage = Usage::Free)
            .is_some();
        match (held, lost) {
            (true, None) => {
                if completed || !self.hand_on(granted.entry, now) {
                    self.give_back(granted.entry, completed, ticket, now);
                    return ticket;
                }
            }
            // The deadline has passed and the timer has not fired yet.
            (true, Some(reason)) => self.lose(granted.entry, reason, now),
            (false, _) => {}
        }
        if let Some(ticket) = ticket {
            let done = match lost {
                Some(reason) => Answer::Failed(Error::lost(reason)),
                None => Answer::Done,
            };
            self.answer(ticket, done);
        }
        ticket
    }

    /// A grant that was on its way to a caller who has gone.
    pub(super) fn return_unseen(&mut self, granted: &Granted, now: Boottime) {
        let entry = self.entries.get_mut(granted.entry);
        if let Some(hold) = entry.and_then(|entry| entry.hold_of(granted.lease.claim()))
            && hold.undo.is_some()
        {
            hold.used = 0;
        }
        self.release(granted, false, false, now);
    }

    /// Gives a free grant to the next waiter that may have it. False if there is none.
    pub(super) fn hand_on(&mut self, key: EntryKey, now: Boottime) -> bool {
        let Some(next) = self.first_waiter(key) else { return false };
        let terms = &self.tickets[next].terms;
        let (ttl, max_hold) = (terms.ttl, terms.max_hold());
        let hand_on = self.settings.hand_on && !self.closed;
        let entry = &mut self.entries[key];
        let Phase::Held(hold) = &mut entry.phase else { return false };
        if hold.usage != Usage::Free {
            return false;
        }
        let first = hold.used == 0;
        let in_row = hand_on && now.since(hold.since) < HAND_ON_LIMIT && !hold.lease.is_exported();
        if !(first || in_row) || !hold.may_serve(ttl, now) {
            return false;
        }
        let Some(token) = hold.grant.tokens.nth(hold.used) else { return false };
        if first {
            hold.since = now;
        }
        hold.used += 1;
        hold.usage = Usage::Out;
        hold.thread = self.tickets[next].caller.thread;
        hold.max_hold = max_hold.map(|limit| self.timers.set(now.after(limit), Timer::MaxHold(key)));
        let (mode, deadline) = (hold.lease.mode(), hold.lease.deadline());
        let granted = Granted { entry: key, lease: Arc::clone(&hold.lease), token };
        let waited = now.since(self.tickets[next].since);
        entry.waiting.pop_front();
        entry.live -= 1;
        entry.slow_since = None;
        self.tickets[next].linked = false;
        self.answer(next, Answer::Granted(granted));
        let valid_for = deadline.map(|deadline| deadline.since(now));
        self.note(key, Some(token), || What::Granted { waited, handed_on: !first, mode, valid_for });
        true
    }

    /// Sends a free grant back to the store.
    pub(super) fn give_back(
        &mut self,
        key: EntryKey,
        completed: bool,
        ticket: Option<TicketKey>,
        now: Boottime,
    ) {
        let Phase::Held(mut hold) = std::mem::replace(&mut self.entries[key].phase, Phase::Idle) else {
            return;
        };
        let forgotten_at = self.end_upkeep(key, &mut hold);
        self.note(key, hold.token(), || What::Released);
        let timer = self.reply_timer(key, hold.upkeep.as_ref().map(|upkeep| upkeep.ttl), now);
        let awaits = if hold.undo.is_some() { hold.copies } else { 0 };
        self.entries[key].phase = match hold.undo.take().filter(|_| hold.used == 0) {
            Some(claim) => {
                self.outbox.cancel.push((*claim).clone());
                let (sent, answered) = (1 + hold.copies, 1);
                let (trouble, why, hinted, revived) = (None, None, false, false);
                let claim = *claim;
                Phase::Cancelling(Pending { claim, timer, trouble, why, hinted, sent, answered, revived })
            }
            None => {
                let revived = None;
                let releasing =
                    Releasing { grant: hold.grant, completed, ticket, timer, forgotten_at, awaits, revived };
                if awaits == 0 {
                    self.outbox.release.push(releasing.back());
                }
                Phase::Releasing(releasing)
            }
        };
    }

    /// A guard has had its lock for as long as it may.
    pub(super) fn end_max_hold(&mut self, key: EntryKey, now: Boottime) {
        let Phase::Held(hold) = &mut self.entries[key].phase else { return };
        hold.max_hold = None;
        hold.lease.lose(LossReason::MaxHold);
        hold.usage = Usage::Free;
        let token = hold.token();
        self.note(key, token, || What::Lost(LossReason::MaxHold));
        self.give_back(key, false, None, now);
    }

    /// A guard wants its grant renewed now. The ticket says when that is done.
    pub(crate) fn extend(&mut self, granted: &Granted, now: Boottime) -> TicketKey {
        let ticket = self.tickets.insert(Ticket::confirmation(now));
        let held = granted.lease.is_held_at(now);
        let entry = self.entries.get_mut(granted.entry);
        let Some(hold) = entry.and_then(|entry| entry.hold_of(granted.lease.claim())).filter(|_| held) else {
            let reason = granted.lease.loss().unwrap_or(LossReason::Expired);
            self.answer(ticket, Answer::Failed(Error::lost(reason)));
            return ticket;
        };
        let Some(upkeep) = &mut hold.upkeep else {
            self.answer(ticket, Answer::Done);
            return ticket;
        };
        if upkeep.by_hand {
            upkeep.renew_at = now;
        }
        hold.extensions.push((ticket, now));
        self.outbox.renew.push(hold.grant.clone());
        ticket
    }

    /// The store's grant that a guard has.
    pub(crate) fn grant(&mut self, granted: &Granted) -> Option<Grant> {
        let entry = self.entries.get_mut(granted.entry)?;
        entry.hold_of(granted.lease.claim()).map(|hold| hold.grant.clone())
    }

    /// Tells those who asked for an extension before `sent` what came of it.
    pub(super) fn answer_extensions(&mut self, key: EntryKey, sent: Boottime, outcome: impl Fn() -> Answer) {
        let Phase::Held(hold) = &mut self.entries[key].phase else { return };
        let waiting = std::mem::take(&mut hold.extensions);
        let (done, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, since)| *since <= sent);
        hold.extensions = rest;
        for (ticket, _) in done {
            self.answer(ticket, outcome());
        }
    }

    /// Somebody wants this claim's lock back soon.
    pub(super) fn ask_back(&mut self, key: EntryKey, claim: ClaimId) {
        if let Some(hold) = self.entries[key].hold_of(claim) {
            hold.lease.ask();
        }
    }
}

impl Hold {
    /// The token of the guard that had it last, if one had.
    pub(super) fn token(&self) -> Option<FencingToken> {
        self.grant.tokens.nth(self.used.checked_sub(1)?)
    }

    /// Whether a waiter that asked for this ttl may have this grant now.
    fn may_serve(&self, ttl: Option<Duration>, now: Boottime) -> bool {
        if !self.lease.is_held_at(now) || self.lease.is_at_risk() {
            return false;
        }
        match &self.upkeep {
            None => true,
            Some(upkeep) => ttl.is_none_or(|ttl| ttl == upkeep.ttl),
        }
    }
}

/// Guards per grant are bounded by its tokens.
const _: () = assert!(TokenBlock::MAX_LEN == 64);
