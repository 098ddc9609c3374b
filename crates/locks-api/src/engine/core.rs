//! The state machine of one `Locks`: what callers ask, what the store is asked, and what happens next.
//!
//! It does no I/O, reads no clock and starts no thread: every input comes with the present instant, and
//! what is to be done leaves through [`Outbox`] and [`Core::take_news`]. So one mutex around it is enough, any thread may drive it,
//! and the simulation can run it under thousands of schedules.

use std::collections::{BTreeSet, HashMap};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::debt::Debt;
use super::door::Door;
use super::entry::{Entry, EntryKey, Pending, Phase, Usage};
use super::outbox::Outbox;
use super::ticket::{Answer, Patience, Ticket, TicketKey, TicketState, Wish};
use super::timers::{Timer, TimerKey, Timers};
use crate::busy::Busy;
use crate::clock::Boottime;
use crate::error::{Error, ErrorKind};
use crate::loss::LossReason;
use crate::name::LockName;
use crate::observe::{self, Note, What};
use crate::spi::{Claim, ClaimId, InstanceId, LeaseId, TtlLimits};
use crate::token::FencingToken;

/// What the engine was built with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) backend: &'static str,
    pub(crate) ttl: Option<TtlLimits>,
    /// How long a store may be out of reach before a wait ends.
    pub(crate) store_timeout: Duration,
    pub(crate) hand_on: bool,
    /// Whether the store answers on the caller's thread.
    pub(crate) inline: bool,
    /// Seeds jitter and ids.
    pub(crate) seed: u64,
}

/// How long a reply may take before the step is sent again, at most.
const REPLY_LIMIT: Duration = Duration::from_secs(5);

/// The state machine of one `Locks`.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) settings: Settings,
    pub(super) instance: InstanceId,
    /// The lease that new claims go on.
    pub(super) lease: LeaseId,
    pub(super) entries: Slab<Entry>,
    pub(super) doors: HashMap<LockName, Door>,
    /// The entries that have a claim of their own, by that.
    pub(super) solos: HashMap<ClaimId, EntryKey>,
    /// How many are parked, and how many ever were.
    pub(super) parked: usize,
    pub(super) serial: u64,
    pub(super) tickets: Slab<Ticket>,
    pub(super) timers: Timers,
    /// Grants with an expiry, by the time of their next renewal.
    pub(super) renewals: BTreeSet<(Boottime, EntryKey)>,
    pub(super) debts: HashMap<ClaimId, Debt>,
    /// Whether renewals wait for the store's list of our grants.
    pub(super) recovering: bool,
    pub(super) outbox: Outbox,
    pub(super) wakes: Vec<Waker>,
    notes: Vec<Note>,
    pub(super) random: fastrand::Rng,
    pub(super) closed: bool,
    /// Who waits until everything is given back, and when that has taken long enough.
    closing: Vec<TicketKey>,
    close_timer: Option<TimerKey>,
}

/// Who is to be woken and what is to be told, once the mutex is free.
#[derive(Debug)]
#[must_use = "somebody waits for it"]
pub(crate) struct News {
    backend: &'static str,
    instance: InstanceId,
    wakes: Vec<Waker>,
    notes: Vec<Note>,
}

impl News {
    /// Wakes and tells. Whoever is woken may come straight back, so the mutex must be free.
    pub(crate) fn spread(self) {
        for note in &self.notes {
            note.tell(self.backend, self.instance);
        }
        for wake in self.wakes {
            wake.wake();
        }
    }
}

impl Core {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut random = fastrand::Rng::with_seed(settings.seed);
        Self {
            instance: InstanceId::from_bits(random.u128(1..)),
            settings,
            lease: LeaseId::FIRST,
            entries: Slab::new(),
            doors: HashMap::new(),
            solos: HashMap::new(),
            parked: 0,
            serial: 0,
            tickets: Slab::new(),
            timers: Timers::default(),
            renewals: BTreeSet::new(),
            debts: HashMap::new(),
            recovering: false,
            outbox: Outbox::default(),
            wakes: Vec::new(),
            notes: Vec::new(),
            random,
            closed: false,
            closing: Vec::new(),
            close_timer: None,
        }
    }

    /// A caller wants a lock. The answer comes through [`Core::poll`].
    pub(crate) fn acquire(&mut self, wish: Wish, now: Boottime) -> TicketKey {
        let Wish { name, terms, holder, patience, caller } = wish;
        let plain = terms.are_plain();
        let ticket = self.tickets.insert(Ticket::acquisition(terms, holder, (patience, caller), now));
        if self.closed {
            self.answer(ticket, Answer::Failed(Error::closed()));
            return ticket;
        }
        if patience == Patience::Try
            && let Some(busy) = if plain { self.busy_here(&name) } else { self.busy_at_the_door(&name) }
        {
            self.answer(ticket, Answer::Busy(busy));
            return ticket;
        }
        if patience != Patience::Try
            && let Some(error) = self.standstill(ticket, &name, now)
        {
            self.answer(ticket, Answer::Failed(error));
            return ticket;
        }
        let key = if plain { self.line(&name) } else { self.solo(&name) };
        self.stand_in(key, ticket);
        self.advance(key, now);
        ticket
    }

    /// A caller wants all of these locks, or none of them, in one step of the store. Each ticket is answered by itself.
    pub(crate) fn acquire_together(&mut self, wishes: Vec<Wish>, now: Boottime) -> Vec<TicketKey> {
        let in_the_way =
            |wish: &Wish| self.busy_here(&wish.name).or_else(|| self.busy_at_the_door(&wish.name));
        let busy = wishes.iter().enumerate().find_map(|(at, wish)| Some((at, in_the_way(wish)?)));
        let mut tickets = Vec::with_capacity(wishes.len());
        let mut claims = Vec::with_capacity(wishes.len());
        for (at, Wish { name, terms, holder, caller, .. }) in wishes.into_iter().enumerate() {
            let ticket = Ticket::acquisition(terms, holder, (Patience::Try, caller), now);
            let ticket = self.tickets.insert(ticket);
            tickets.push(ticket);
            if self.closed {
                self.answer(ticket, Answer::Failed(Error::closed()));
            } else if let Some((which, busy)) = &busy {
                let busy = if at == *which { busy.clone() } else { Busy::Held { by: None } };
                self.answer(ticket, Answer::Busy(busy));
            } else {
                let key = self.solo(&name);
                self.stand_in(key, ticket);
                self.begin(key, now);
                if let Phase::Claiming(pending) = &self.entries[key].phase {
                    claims.push(pending.claim.clone());
                }
            }
        }
        if !claims.is_empty() {
            self.outbox.together.push(claims);
        }
        tickets
    }

    /// Puts a caller at the end of an entry's queue.
    fn stand_in(&mut self, key: EntryKey, ticket: TicketKey) {
        let entry = &mut self.entries[key];
        entry.waiting.push_back(ticket);
        entry.live += 1;
        let waiting = &mut self.tickets[ticket];
        waiting.entry = Some(key);
        waiting.linked = true;
        if let Patience::Until(deadline) = waiting.patience {
            waiting.timer = Some(self.timers.set(deadline, Timer::Ticket(ticket)));
        }
    }

    /// Takes the answer, or leaves the waker for when it comes.
    pub(crate) fn poll(&mut self, key: TicketKey, context: &Context<'_>) -> Poll<Answer> {
        let ticket = &mut self.tickets[key];
        match std::mem::replace(&mut ticket.state, TicketState::Gone) {
            TicketState::Answered(answer) => {
                self.forget(key);
                Poll::Ready(answer)
            }
            TicketState::Waiting(waker) => {
                let waker = match waker {
                    Some(waker) if waker.will_wake(context.waker()) => waker,
                    _ => context.waker().clone(),
                };
                ticket.state = TicketState::Waiting(Some(waker));
                Poll::Pending
            }
            TicketState::Gone => Poll::Ready(Answer::Failed(Error::closed())),
        }
    }

    /// The caller has gone before it took the answer. A grant that it had not taken yet goes on to the next.
    pub(crate) fn abandon(&mut self, key: TicketKey, now: Boottime) {
        let ticket = &mut self.tickets[key];
        let state = std::mem::replace(&mut ticket.state, TicketState::Gone);
        let entry = ticket.entry;
        self.timers.clear(ticket.timer.take());
        self.forget(key);
        match (state, entry) {
            (TicketState::Answered(Answer::Granted(granted)), _) => {
                self.return_unseen(&granted, now);
            }
            (TicketState::Waiting(_), Some(entry)) => {
                self.entries[entry].live -= 1;
                self.sweep(entry);
                self.advance(entry, now);
            }
            _ => {}
        }
    }

    /// Refuses everything from now on, ends all waits, takes the locks from their guards and gives them
    /// back. The ticket's answer says whether the store took all of them within `store_timeout`.
    pub(crate) fn close(&mut self, now: Boottime) -> TicketKey {
        let ticket = self.tickets.insert(Ticket::confirmation(now));
        self.closing.push(ticket);
        if self.close_timer.is_none() {
            self.close_timer = Some(self.timers.set(now.after(self.settings.store_timeout), Timer::Close));
        }
        self.closed = true;
        let keys: Vec<EntryKey> = self.entries.iter().map(|(key, _)| key).collect();
        for key in &keys {
            while let Some(waiter) = self.next_waiter(*key) {
                self.answer(waiter, Answer::Failed(Error::closed()));
            }
        }
        for key in keys {
            if !self.entries.contains(key) {
                continue;
            }
            if let Phase::Held(hold) = &mut self.entries[key].phase {
                hold.lease.lose(LossReason::Closed);
                hold.usage = Usage::Free;
                let token = hold.token();
                self.note(key, token, || What::Lost(LossReason::Closed));
            }
            self.advance(key, now);
        }
        self.check_closed();
        ticket
    }

    /// Closing has taken long enough.
    fn give_up_closing(&mut self) {
        self.close_timer = None;
        let left = self.entries.len() + self.debts.len();
        for ticket in std::mem::take(&mut self.closing) {
            let message = format!("{left} locks could not be given back to the store in time");
            self.answer(ticket, Answer::Failed(Error::new(ErrorKind::Unavailable, message)));
        }
    }

    pub(crate) fn store_timeout(&self) -> Duration {
        self.settings.store_timeout
    }

    /// Whether everything is refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the store has nothing of ours any more, and nothing is under way.
    pub(crate) fn is_settled(&self) -> bool {
        self.entries.is_empty() && self.debts.is_empty()
    }

    pub(super) fn check_closed(&mut self) {
        if self.is_settled() && !self.closing.is_empty() {
            let timer = self.close_timer.take();
            self.timers.clear(timer);
            for ticket in std::mem::take(&mut self.closing) {
                self.answer(ticket, Answer::Done);
            }
        }
    }

    /// The engine can't go on: everybody who waits is told so.
    pub(crate) fn fail_waits(&mut self, error: &Error) {
        let keys: Vec<EntryKey> = self.entries.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.fail_all(key, error);
        }
    }

    /// Does what is due by now.
    pub(crate) fn tick(&mut self, now: Boottime) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Ticket(ticket) => self.lose_patience(ticket, now),
                Timer::Entry(entry) => self.overdue(entry, now),
                Timer::Lease(entry) => self.check_lease(entry, now),
                Timer::MaxHold(entry) => self.end_max_hold(entry, now),
                Timer::Debt(claim) => self.retry_debt(claim, now),
                Timer::Recovery => self.recover(now),
                Timer::Close => self.give_up_closing(),
            }
        }
        self.renew_due(now);
    }

    /// When [`Core::tick`] has something to do.
    pub(crate) fn next_tick(&self) -> Option<Boottime> {
        let renewal = self.renewals.first().map(|(at, _)| *at).filter(|_| !self.recovering);
        match (self.timers.next(), renewal) {
            (Some(timer), Some(renewal)) => Some(timer.min(renewal)),
            (timer, renewal) => timer.or(renewal),
        }
    }

    /// What the store is to be asked.
    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Who is to be woken and what is to be told, once the mutex is free.
    pub(crate) fn take_news(&mut self) -> News {
        News {
            backend: self.settings.backend,
            instance: self.instance,
            wakes: std::mem::take(&mut self.wakes),
            notes: std::mem::take(&mut self.notes),
        }
    }

    /// Takes a note about a hold of this token, if anybody may listen.
    pub(super) fn note(&mut self, key: EntryKey, token: Option<FencingToken>, what: impl FnOnce() -> What) {
        if observe::ENABLED {
            self.notes.push(Note { name: self.entries[key].name.clone(), token, what: what() });
        }
    }

    /// [`Core::note`] for a lock that may have no entry any more.
    pub(super) fn note_lock(&mut self, name: &LockName, what: impl FnOnce() -> What) {
        if observe::ENABLED {
            self.notes.push(Note { name: name.clone(), token: None, what: what() });
        }
    }

    /// Takes the one step that the lock's phase and its waiters call for.
    pub(super) fn advance(&mut self, key: EntryKey, now: Boottime) {
        loop {
            let entry = &mut self.entries[key];
            let wanted = entry.live > 0;
            match &entry.phase {
                Phase::Idle if wanted => return self.claim_or_park(key, now),
                Phase::Idle => return self.remove(key, now),
                Phase::Parked(_) if !wanted => return self.remove(key, now),
                Phase::Held(hold) if hold.usage == Usage::Free => {
                    if !self.hand_on(key, now) {
                        self.give_back(key, false, None, now);
                    }
                    return;
                }
                Phase::Queued(_) if !wanted => return self.withdraw(key, now),
                Phase::Pausing(timer) if !wanted => {
                    let timer = *timer;
                    self.timers.clear(Some(timer));
                    self.entries[key].phase = Phase::Idle;
                }
                Phase::Parked(_)
                | Phase::Claiming(_)
                | Phase::Queued(_)
                | Phase::Pausing(_)
                | Phase::Held(_)
                | Phase::Releasing(_)
                | Phase::Cancelling(_) => return,
            }
        }
    }

    /// Sends a new claim on behalf of whoever is first.
    pub(super) fn claim(&mut self, key: EntryKey, now: Boottime) {
        self.begin(key, now);
        if let Phase::Claiming(pending) = &self.entries[key].phase {
            self.outbox.acquire.push(pending.claim.clone());
        }
    }

    /// Makes a new claim on behalf of whoever is first; it is to be sent.
    fn begin(&mut self, key: EntryKey, now: Boottime) {
        let Some(first) = self.first_waiter(key) else { return };
        let id = self.next_claim(key);
        let entry = &self.entries[key];
        let may_wait = entry.waiting.iter().any(|ticket| {
            self.tickets[*ticket].is_waiting() && self.tickets[*ticket].patience != Patience::Try
        });
        let ticket = &self.tickets[first];
        let terms = &ticket.terms;
        let claim = Claim {
            id,
            instance: self.instance,
            name: entry.name.clone(),
            mode: terms.mode,
            lease: self.lease,
            ttl: terms.ttl,
            may_wait,
            holder: ticket.holder.clone().unwrap_or_default(),
            extras: terms.special.as_ref().and_then(|special| special.extras.clone()),
        };
        let timer = self.reply_timer(key, claim.ttl, now);
        self.entries[key].phase = Phase::Claiming(Pending {
            claim,
            timer,
            trouble: None,
            why: None,
            hinted: false,
            sent: 1,
            answered: 0,
            revived: false,
        });
    }

    /// Sends the same claim again.
    pub(super) fn claim_again(&mut self, key: EntryKey, now: Boottime) {
        let entry = &mut self.entries[key];
        let (Phase::Claiming(pending) | Phase::Queued(pending)) = &mut entry.phase else { return };
        pending.sent += 1;
        let claim = pending.claim.clone();
        let old = pending.timer.take();
        self.timers.clear(old);
        let timer = self.reply_timer(key, claim.ttl, now);
        if let Phase::Claiming(pending) | Phase::Queued(pending) = &mut self.entries[key].phase {
            pending.timer = timer;
        }
        self.outbox.acquire.push(claim);
    }

    /// Undoes a queued claim that nobody wants any more.
    fn withdraw(&mut self, key: EntryKey, now: Boottime) {
        let Phase::Queued(mut pending) = std::mem::replace(&mut self.entries[key].phase, Phase::Idle) else {
            return;
        };
        self.timers.clear(pending.timer.take());
        self.outbox.cancel.push(pending.claim.clone());
        pending.timer = self.reply_timer(key, pending.claim.ttl, now);
        self.entries[key].phase = Phase::Cancelling(pending);
    }

    /// The timer for the case that no reply comes. A store that answers inline always does.
    pub(super) fn reply_timer(
        &mut self,
        key: EntryKey,
        ttl: Option<Duration>,
        now: Boottime,
    ) -> Option<TimerKey> {
        if self.settings.inline {
            return None;
        }
        Some(self.timers.set(now.after(self.reply_limit(ttl)), Timer::Entry(key)))
    }

    /// How long to wait for a reply before the step is sent again.
    pub(super) fn reply_limit(&self, ttl: Option<Duration>) -> Duration {
        ttl.map_or(REPLY_LIMIT, |ttl| (super::renewal::validity(ttl) / 3).min(REPLY_LIMIT))
    }
}
