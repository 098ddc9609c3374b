//! What the store answers and says on its own.

use std::collections::HashSet;
use std::time::Duration;

use super::core::Core;
use super::debt::backoff;
use super::entry::{EntryKey, Pending, Phase, Releasing};
use super::outbox::Return;
use super::renewal::Written;
use super::ticket::Answer;
use super::timers::Timer;
use crate::busy::Busy;
use crate::clock::Boottime;
use crate::error::{Error, ErrorKind};
use crate::holder::Holder;
use crate::loss::LossReason;
use crate::spi::{Attempt, Claim, ClaimId, Event, Grant, Released};

impl Core {
    /// The store answered a claim that was sent at `sent`.
    pub(crate) fn acquired(
        &mut self,
        claim: &Claim,
        sent: Boottime,
        reply: Result<Attempt, Error>,
        now: Boottime,
    ) {
        let key = self.find(&claim.name, claim.id);
        let Some(key) = key.filter(|key| self.entries[*key].is_pending(claim.id)) else {
            match key {
                Some(key) => self.late_answer(key, claim, &reply),
                None => self.stray(claim, reply, now),
            }
            return;
        };
        if let Phase::Claiming(pending) | Phase::Queued(pending) | Phase::Cancelling(pending) =
            &mut self.entries[key].phase
        {
            pending.answered += 1;
            if !matches!(&reply, Err(error) if error.kind() == ErrorKind::Unavailable) {
                pending.trouble = None;
                pending.why = None;
            }
        }
        if let Phase::Cancelling(pending) = &mut self.entries[key].phase {
            // A store that works on several steps at a time may have undone it before it did this, and answer in the other order.
            pending.revived |= !is_refusal(&reply);
            return;
        }
        match reply {
            Ok(Attempt::Granted(grant)) => self.granted(key, grant, Written::After(sent), now),
            Ok(Attempt::Queued { position, by, check_in }) => {
                self.entries[key].position = position;
                self.queued(key, by, check_in, now);
            }
            Ok(Attempt::Busy(busy)) => self.refused(key, busy, now),
            Err(error) if error.kind() == ErrorKind::Unavailable => self.unanswered(key, &error, now),
            Err(error) => self.failed(key, error, now),
        }
    }

    /// The store undid a claim, or could not be told to.
    pub(crate) fn cancelled(&mut self, claim: &Claim, reply: &Result<(), Error>, now: Boottime) {
        self.note_debt(claim.id, reply.as_ref().err(), now);
        let Some(key) = self.find(&claim.name, claim.id) else { return };
        let entry = &mut self.entries[key];
        match std::mem::replace(&mut entry.phase, Phase::Idle) {
            Phase::Cancelling(pending) if pending.claim.id == claim.id => {
                self.timers.clear(pending.timer);
                let in_doubt = pending.answered < pending.sent;
                if in_doubt || pending.revived || reply.is_err() {
                    self.owe_cancel(pending.claim, in_doubt, now);
                }
                self.advance(key, now);
            }
            other => entry.phase = other,
        }
    }

    /// The store took a grant back, or could not be told to.
    pub(crate) fn released(&mut self, grant: &Grant, reply: &Result<Released, Error>, now: Boottime) {
        self.note_debt(grant.claim, reply.as_ref().err(), now);
        let Some(key) = self.find(&grant.name, grant.claim) else { return };
        let entry = &mut self.entries[key];
        let releasing = match std::mem::replace(&mut entry.phase, Phase::Idle) {
            Phase::Releasing(releasing) if releasing.grant.claim == grant.claim => releasing,
            other => {
                entry.phase = other;
                return;
            }
        };
        self.timers.clear(releasing.timer);
        let back = releasing.back();
        let Releasing { ticket, forgotten_at, revived, .. } = releasing;
        if let Some(claim) = revived.filter(|_| reply.is_ok()) {
            self.owe_cancel(*claim, false, now);
        }
        match (reply, ticket) {
            (Err(error), Some(ticket)) if error.kind() != ErrorKind::Unavailable => {
                self.answer(ticket, Answer::Failed(error.clone()));
                self.owe_release(back, None, forgotten_at, now);
            }
            // The reply may have been lost and the release done: it is sent again, and that answer counts.
            (Err(_), ticket) => self.owe_release(back, ticket, forgotten_at, now),
            (Ok(Released::Done), Some(ticket)) => self.answer(ticket, Answer::Done),
            (Ok(Released::NotHeld), Some(ticket)) => {
                self.answer(ticket, Answer::Failed(Error::lost(LossReason::Taken)));
            }
            (Ok(_), None) => {}
        }
        self.advance(key, now);
    }

    /// The store listed what it records for this process.
    pub(crate) fn recovered(&mut self, reply: Result<Vec<Grant>, Error>, now: Boottime) {
        let grants = match reply {
            Ok(grants) => grants,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.timers.set(now.after(backoff(2)), Timer::Recovery);
                return;
            }
            // A store that won't say must not cost the locks that it still has.
            Err(_) => Vec::new(),
        };
        self.recovering = false;
        for grant in grants {
            let live = self.find(&grant.name, grant.claim).is_some();
            if !live && !self.debts.contains_key(&grant.claim) {
                let forgotten_at = self.settings.ttl.map_or(Boottime::NEVER, |limits| now.after(limits.max));
                self.owe_release(Return { grant, completed: false }, None, forgotten_at, now);
            }
        }
        self.renew_all(now);
    }

    /// The store said something on its own.
    pub(crate) fn event(&mut self, event: Event, now: Boottime) {
        match event {
            Event::Granted(grant, since) => match self.find(&grant.name, grant.claim) {
                Some(key) if self.is_waiting_for(key, grant.claim) => {
                    self.granted(key, grant, Written::Pushed(since), now);
                }
                Some(_) => {}
                None => self.owe_release_of(grant, now),
            },
            Event::Lost { name, claim, last, reason } => {
                if let Some(key) = self.find(&name, claim)
                    && let Some(hold) = self.entries[key].hold_of(claim)
                    && last.is_none_or(|last| last == hold.grant.tokens.last())
                {
                    self.lose(key, reason, now);
                }
            }
            Event::Asked { name, claim } => {
                if let Some(key) = self.find(&name, claim) {
                    self.ask_back(key, claim);
                }
            }
            // What locks are worth is not the engine's business.
            Event::Changed(_) => {}
            Event::Hint(name) => {
                for key in self.asking(&name) {
                    self.ask_again(key, now);
                }
            }
            Event::Resync => self.resync(now),
            Event::Reset => {
                self.recovering = true;
                self.recover(now);
                self.resync(now);
            }
        }
    }

    /// Asks the store for all grants that it records for this process.
    pub(super) fn recover(&mut self, now: Boottime) {
        if self.recovering {
            self.outbox.recover = true;
            self.timers.set(now.after(self.reply_limit(None)), Timer::Recovery);
        }
    }

    /// A reply is overdue, a pause is over or a queued claim is to be checked.
    pub(super) fn overdue(&mut self, key: EntryKey, now: Boottime) {
        let error = || Error::new(ErrorKind::Unavailable, "the store does not answer");
        match &mut self.entries[key].phase {
            Phase::Claiming(pending) | Phase::Queued(pending) => {
                pending.timer = None;
                if pending.answered < pending.sent {
                    pending.trouble.get_or_insert(now);
                }
                let error = pending.why.clone().unwrap_or_else(error);
                if !self.check_trouble(key, &error, now) {
                    self.claim_again(key, now);
                }
            }
            Phase::Pausing(_) => {
                self.entries[key].phase = Phase::Idle;
                self.advance(key, now);
            }
            Phase::Releasing(releasing) => {
                let grant = releasing.grant.clone();
                self.released(&grant, &Err(error()), now);
            }
            Phase::Cancelling(pending) => {
                let claim = pending.claim.clone();
                self.cancelled(&claim, &Err(error()), now);
            }
            Phase::Idle | Phase::Parked(_) | Phase::Held(_) => {}
        }
    }

    fn granted(&mut self, key: EntryKey, grant: Grant, written: Written, now: Boottime) {
        let by_hand = self.first_waiter(key).is_some_and(|ticket| self.tickets[ticket].terms.are_by_hand());
        let Some(Pending { claim, sent, answered, .. }) = self.end_pending(key) else { return };
        let mut hold = self.hold(key, grant, (claim.mode, claim.ttl), by_hand, written, now);
        hold.copies = sent.saturating_sub(answered);
        hold.undo = claim.min_hold().is_some().then(|| Box::new(claim));
        let entry = &mut self.entries[key];
        entry.seen = None;
        entry.position = None;
        entry.refusals = 0;
        entry.phase = Phase::Held(hold);
        self.leave_door(key, true, now);
        self.advance(key, now);
    }

    fn queued(&mut self, key: EntryKey, by: Option<Holder>, check_in: Option<Duration>, now: Boottime) {
        let Some(mut pending) = self.end_pending(key) else { return };
        pending.timer = check_in.map(|pause| self.timers.set(now.after(pause), Timer::Entry(key)));
        let busy = Busy::Held { by };
        self.refuse_tries(key, &busy);
        self.refuse_stuck(key, now);
        self.narrow_door(key, &busy);
        let entry = &mut self.entries[key];
        entry.seen = Some(busy);
        let hinted = std::mem::take(&mut pending.hinted);
        entry.phase = Phase::Queued(pending);
        self.advance(key, now);
        if hinted {
            self.ask_again(key, now);
        }
    }

    fn refused(&mut self, key: EntryKey, busy: Busy, now: Boottime) {
        let pending = self.end_pending(key);
        self.refuse_tries(key, &busy);
        if matches!(busy, Busy::Held { .. }) {
            self.refuse_stuck(key, now);
        }
        if self.entries[key].live > 0 {
            let final_word = pending.is_some_and(|pending| pending.claim.may_wait && !pending.hinted);
            let pause = match &busy {
                // It was a `try` that was refused and those who wait have not asked yet, or the answer is old.
                Busy::Held { .. } if !final_word => Duration::ZERO,
                Busy::Held { .. } => self.pause(key),
                Busy::Grace { remaining } | Busy::NotDue { remaining } => {
                    (*remaining).max(Duration::from_millis(1))
                }
            };
            // What is not due for one may be for another.
            if matches!(busy, Busy::NotDue { .. }) {
                self.leave_door(key, false, now);
            }
            if !pause.is_zero() {
                self.narrow_door(key, &busy);
                let timer = self.timers.set(now.after(pause), Timer::Entry(key));
                self.entries[key].phase = Phase::Pausing(timer);
            }
        }
        self.entries[key].seen = Some(busy);
        self.advance(key, now);
    }

    /// The pause after the store said no and has no queue: 1 ms, growing by half each time to 250 ms, and anything from half of it
    /// to one and a half of it.
    fn pause(&mut self, key: EntryKey) -> Duration {
        let entry = &mut self.entries[key];
        let base = 0.001 * 1.5_f64.powi(i32::try_from(entry.refusals.min(32)).unwrap_or(32));
        entry.refusals += 1;
        Duration::from_secs_f64(base.min(0.25) * (0.5 + self.random.f64()))
    }

    /// The claim may or may not have reached the store.
    fn unanswered(&mut self, key: EntryKey, error: &Error, now: Boottime) {
        if let Phase::Claiming(pending) | Phase::Queued(pending) = &mut self.entries[key].phase {
            pending.trouble.get_or_insert(now);
            pending.why = Some(error.clone());
            let pause = backoff(pending.sent.min(6)).mul_f64(0.5 + self.random.f64() / 2.0);
            let old = pending.timer.take();
            self.timers.clear(old);
            let timer = self.timers.set(now.after(pause), Timer::Entry(key));
            if let Phase::Claiming(pending) | Phase::Queued(pending) = &mut self.entries[key].phase {
                pending.timer = Some(timer);
            }
        }
        self.check_trouble(key, error, now);
    }

    /// Gives up on a store that has been out of reach for too long. True if so.
    fn check_trouble(&mut self, key: EntryKey, error: &Error, now: Boottime) -> bool {
        let limit = self.settings.store_timeout;
        let since = match &self.entries[key].phase {
            Phase::Claiming(pending) | Phase::Queued(pending) => pending.trouble,
            _ => None,
        };
        let Some(since) = since else { return false };
        if now.since(since) < limit && self.entries[key].live > 0 {
            return false;
        }
        let Some(pending) = self.end_pending(key) else { return false };
        self.owe_cancel(pending.claim, true, now);
        self.fail_all(key, error);
        self.fail_parked(key, error, now);
        self.advance(key, now);
        true
    }

    /// The claim did not happen and never will: whoever is first hears why, the next one tries for itself.
    fn failed(&mut self, key: EntryKey, error: Error, now: Boottime) {
        if let Some(pending) = self.end_pending(key)
            && pending.answered < pending.sent
        {
            self.owe_cancel(pending.claim, true, now);
        }
        if let Some(ticket) = self.next_waiter(key) {
            self.answer(ticket, Answer::Failed(error));
        }
        self.advance(key, now);
    }

    fn resync(&mut self, now: Boottime) {
        let keys: Vec<EntryKey> = self.entries.iter().map(|(key, _)| key).collect();
        for key in keys {
            if self.entries.contains(key) {
                self.ask_again(key, now);
            }
        }
    }

    /// Sends a claim again that waits in the store's queue, or for its next turn. One that is under way is sent again if its
    /// answer is that it waits.
    fn ask_again(&mut self, key: EntryKey, now: Boottime) {
        match &mut self.entries[key].phase {
            Phase::Queued(_) => self.claim_again(key, now),
            Phase::Claiming(pending) => pending.hinted = true,
            Phase::Pausing(timer) => {
                let timer = *timer;
                self.timers.clear(Some(timer));
                self.entries[key].phase = Phase::Idle;
                self.advance(key, now);
            }
            _ => {}
        }
    }

    /// Renews everything at once, to learn what the store still knows.
    fn renew_all(&mut self, now: Boottime) {
        let keys: HashSet<EntryKey> = self.renewals.iter().map(|(_, key)| *key).collect();
        self.renewals.clear();
        for key in keys {
            if let Phase::Held(hold) = &mut self.entries[key].phase
                && let Some(upkeep) = &mut hold.upkeep
            {
                upkeep.renew_at = now;
                self.renewals.insert((now, key));
            }
        }
        self.renew_due(now);
    }

    /// Takes out the claim whose fate is now known, and its timer.
    fn end_pending(&mut self, key: EntryKey) -> Option<Pending> {
        match std::mem::replace(&mut self.entries[key].phase, Phase::Idle) {
            Phase::Claiming(mut pending) | Phase::Queued(mut pending) => {
                self.timers.clear(pending.timer.take());
                Some(pending)
            }
            other => {
                self.entries[key].phase = other;
                None
            }
        }
    }

    /// Whether this claim is still wanted.
    fn is_waiting_for(&self, key: EntryKey, claim: ClaimId) -> bool {
        self.entries[key].is_pending(claim) && !matches!(self.entries[key].phase, Phase::Cancelling(_))
    }
}

/// Whether the claim neither holds nor waits, as far as is known.
fn is_refusal(reply: &Result<Attempt, Error>) -> bool {
    match reply {
        Ok(attempt) => matches!(attempt, Attempt::Busy(_)),
        Err(error) => error.kind() != ErrorKind::Unavailable,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use super::super::core::Settings;
    use super::super::ticket::{Granted, Patience, Terms, TicketKey, Wish};
    use super::*;
    use crate::caller::Caller;
    use crate::loss::LossReason;
    use crate::name::LockName;
    use crate::spi::{Expiry, Renewed, TokenBlock};
    use crate::token::FencingToken;

    pub(in super::super) fn core() -> Core {
        Core::new(Settings {
            backend: "test",
            ttl: None,
            store_timeout: Duration::from_secs(30),
            hand_on: true,
            inline: false,
            seed: 1,
        })
    }

    /// Somebody asks for the lock "x": the ticket and the claim that is sent for it.
    fn ask(core: &mut Core, now: Boottime) -> (TicketKey, Claim) {
        ask_for(core, "x", None, now)
    }

    fn ask_for(core: &mut Core, name: &str, ttl: Option<Duration>, now: Boottime) -> (TicketKey, Claim) {
        ask_on(core, name, Terms::plain(ttl), now)
    }

    pub(in super::super) fn ask_on(
        core: &mut Core,
        name: &str,
        terms: Terms,
        now: Boottime,
    ) -> (TicketKey, Claim) {
        let name = LockName::new(name).unwrap();
        let holder = Arc::new(Holder::default());
        let (patience, caller) = (Patience::Endless, Caller::default());
        let ticket = core.acquire(Wish { name, terms, holder, patience, caller }, now);
        (ticket, core.outbox().acquire.pop().unwrap())
    }

    /// The store grants the claim, and its caller takes the guard.
    fn take(core: &mut Core, now: Boottime) -> (Grant, Granted) {
        let (ticket, claim) = ask(core, now);
        let tokens = TokenBlock::new(FencingToken::new(7).unwrap(), 1).unwrap();
        let grant = Grant::new(&claim, tokens, Expiry::Never);
        core.acquired(&claim, now, Ok(Attempt::Granted(grant.clone())), now);
        match core.poll(ticket, &Context::from_waker(Waker::noop())) {
            Poll::Ready(Answer::Granted(granted)) => (grant, granted),
            other => panic!("{other:?}"),
        }
    }

    pub(in super::super) fn answer(core: &mut Core, ticket: TicketKey) -> Poll<Answer> {
        core.poll(ticket, &Context::from_waker(Waker::noop()))
    }

    /// A backend that fails a queued claim says so with a hint, and may do so before its answer was read.
    #[test]
    fn a_hint_that_overtakes_the_answer_is_not_forgotten() {
        let now = Boottime::now();
        for reply in [Attempt::queued(None, None), Attempt::held(None)] {
            let mut core = core();
            let (_, claim) = ask(&mut core, now);
            core.event(Event::Hint(claim.name.clone()), now);
            assert!(core.outbox().is_empty(), "the answer is still to come");
            core.acquired(&claim, now, Ok(reply), now);
            assert_eq!(core.outbox().acquire.len(), 1, "it was not asked again");
        }
    }

    /// The claim was sent again when it was undone. The store undid it, granted it anew, and answered that first.
    #[test]
    fn a_claim_that_is_granted_while_it_is_undone_is_undone_once_more() {
        let (now, tokens) = (Boottime::now(), TokenBlock::new(FencingToken::new(7).unwrap(), 1).unwrap());
        let mut core = core();
        let (ticket, claim) = ask(&mut core, now);
        core.acquired(&claim, now, Ok(Attempt::queued(None, None)), now);
        core.event(Event::Hint(claim.name.clone()), now);
        assert_eq!(std::mem::take(&mut core.outbox().acquire).len(), 1);
        core.abandon(ticket, now);
        assert_eq!(std::mem::take(&mut core.outbox().cancel).len(), 1);
        let grant = Grant::new(&claim, tokens, Expiry::Never);
        core.acquired(&claim, now, Ok(Attempt::Granted(grant)), now);
        core.cancelled(&claim, &Ok(()), now);
        assert!(!core.is_settled());
        assert_eq!(std::mem::take(&mut core.outbox().cancel).len(), 1, "it is not undone again");
        core.cancelled(&claim, &Ok(()), now);
        assert!(core.is_settled());
    }

    #[test]
    fn a_push_that_comes_during_the_release_changes_nothing() {
        let (now, mut core) = (Boottime::now(), core());
        let (grant, granted) = take(&mut core, now);
        let ticket = core.release(&granted, false, true, now).unwrap();
        core.event(Event::Granted(grant.clone(), None), now);
        assert_eq!(core.outbox().release.len(), 1, "it is released twice");
        core.released(&grant, &Ok(Released::Done), now);
        assert!(matches!(answer(&mut core, ticket), Poll::Ready(Answer::Done)));
        assert!(core.is_settled());
    }

    /// A claim that expired unseen is sent again and granted anew. What comes late about its first grant, by another way, is not about the second.
    #[test]
    fn what_is_said_of_an_earlier_grant_does_not_touch_the_present_one() {
        let (now, mut core) = (Boottime::now(), core());
        let (grant, granted) = take(&mut core, now);
        let mut earlier = grant.clone();
        earlier.tokens = TokenBlock::new(FencingToken::new(3).unwrap(), 1).unwrap();
        core.renewed(&earlier, now, &Ok(Renewed::Lost(LossReason::Expired)), now);
        let lost = |last| Event::Lost {
            name: grant.name.clone(),
            claim: grant.claim,
            last,
            reason: LossReason::Expired,
        };
        core.event(lost(Some(earlier.tokens.last())), now);
        assert!(granted.lease.is_held_at(now));
        core.event(lost(Some(grant.tokens.last())), now);
        assert!(!granted.lease.is_held_at(now));
    }

    /// A store that is too slow grants the rests of leases, thousands at a time.
    #[test]
    fn grants_with_nothing_left_of_their_lives_are_each_renewed_once() {
        let (now, mut core) = (Boottime::now(), core());
        for number in 0..100 {
            let (_, claim) = ask_for(&mut core, &number.to_string(), Some(Duration::from_secs(6)), now);
            let tokens = TokenBlock::new(FencingToken::new(7).unwrap(), 1).unwrap();
            let grant = Grant::new(&claim, tokens, Expiry::In(Duration::from_millis(100)));
            core.acquired(&claim, now, Ok(Attempt::Granted(grant)), now);
            // As their replies come, one after the other.
            core.renew_due(now);
        }
        core.renew_due(now.after(Duration::from_millis(1)));
        assert_eq!(core.outbox().renew.len(), 100);
    }

    #[test]
    fn a_release_that_fails_for_any_reason_is_told_and_stays_owed() {
        let (now, mut core) = (Boottime::now(), core());
        let (grant, granted) = take(&mut core, now);
        let ticket = core.release(&granted, false, true, now).unwrap();
        core.outbox().release.clear();
        core.released(&grant, &Err(Error::new(ErrorKind::StoreFull, "no descriptor left")), now);
        assert!(matches!(answer(&mut core, ticket), Poll::Ready(Answer::Failed(_))));
        assert_eq!(core.outbox().release.len(), 1, "it is not sent again");
        core.released(&grant, &Ok(Released::Done), now);
        assert!(core.is_settled());
    }

    #[test]
    fn a_store_that_will_not_list_its_grants_does_not_hold_up_renewals() {
        let (now, mut core) = (Boottime::now(), core());
        for (kind, goes_on) in [(ErrorKind::Unavailable, false), (ErrorKind::PermissionDenied, true)] {
            core.event(Event::Reset, now);
            core.recovered(Err(Error::new(kind, "no")), now);
            assert_eq!(!core.recovering, goes_on, "{kind:?}");
        }
    }
}
