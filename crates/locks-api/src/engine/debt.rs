//! What the store still has to be told.

use std::time::Duration;

use super::core::Core;
use super::outbox::Return;
use super::ticket::{Answer, TicketKey};
use super::timers::{Timer, TimerKey};
use crate::clock::Boottime;
use crate::error::{Error, ErrorKind};
use crate::observe::What;
use crate::spi::{Claim, ClaimId, Expiry, Grant, LeaseId};

/// A release or a cancellation that the store has not confirmed.
///
/// It is tried again until the store confirms it, or has surely forgotten the claim because nobody renewed it. A store
/// that renews many grants as one lease would never forget it: so once that time has passed, new claims go on
/// another lease, and the old one ends with its last live grant.
#[derive(Debug)]
pub(crate) struct Debt {
    pub(super) what: Owed,
    /// Who wants to know.
    pub(super) ticket: Option<TicketKey>,
    pub(super) attempts: u32,
    pub(super) timer: Option<TimerKey>,
    /// When the store has forgotten the claim by itself.
    pub(super) forgotten_at: Boottime,
    /// Whether a copy of the claim may still be under way to the store.
    pub(super) in_doubt: bool,
}

#[derive(Debug)]
pub(super) enum Owed {
    Release(Return),
    Cancel(Claim),
}

impl Debt {
    fn lease(&self) -> LeaseId {
        match &self.what {
            Owed::Release(back) => back.grant.lease,
            Owed::Cancel(claim) => claim.lease,
        }
    }
}

impl Core {
    /// A release was sent once without success.
    pub(super) fn owe_release(
        &mut self,
        back: Return,
        ticket: Option<TicketKey>,
        forgotten_at: Boottime,
        now: Boottime,
    ) {
        let claim = back.grant.claim;
        self.note_lock(&back.grant.name, || What::Owed);
        self.owe(claim, Owed::Release(back), ticket, forgotten_at, false, now);
    }

    /// A grant that is nobody's goes back.
    pub(super) fn owe_release_of(&mut self, grant: Grant, now: Boottime) {
        let forgotten_at = match grant.expiry {
            Expiry::Never => Boottime::NEVER,
            Expiry::In(ttl) => now.after(ttl),
        };
        self.owe_release(Return { grant, completed: false }, None, forgotten_at, now);
    }

    /// A claim whose fate is unknown must not hold or wait. With `in_doubt`, one success does not settle it.
    pub(super) fn owe_cancel(&mut self, claim: Claim, in_doubt: bool, now: Boottime) {
        let forgotten_at = claim.ttl.map_or(Boottime::NEVER, |ttl| now.after(ttl));
        let forgotten_at =
            if in_doubt { forgotten_at.min(now.after(self.settings.store_timeout)) } else { forgotten_at };
        self.owe(claim.id, Owed::Cancel(claim), None, forgotten_at, in_doubt, now);
    }

    fn owe(
        &mut self,
        claim: ClaimId,
        what: Owed,
        ticket: Option<TicketKey>,
        forgotten_at: Boottime,
        in_doubt: bool,
        now: Boottime,
    ) {
        if let Some(known) = self.debts.get_mut(&claim) {
            known.in_doubt |= in_doubt;
            known.ticket = known.ticket.or(ticket);
            return;
        }
        let debt = Debt { what, ticket, attempts: 1, timer: None, forgotten_at, in_doubt };
        self.debts.insert(claim, debt);
        self.retry_debt(claim, now);
    }

    /// Tries to pay, and sets the timer for the case that nothing comes back.
    pub(super) fn retry_debt(&mut self, claim: ClaimId, now: Boottime) {
        let Some(debt) = self.debts.get_mut(&claim) else { return };
        if now >= debt.forgotten_at {
            let lease = debt.lease();
            if self.lease == lease {
                self.lease = lease.next();
            }
            self.settle(claim, Err(unpaid()));
            return;
        }
        debt.attempts += 1;
        match &debt.what {
            Owed::Release(back) => self.outbox.release.push(back.clone()),
            Owed::Cancel(claim) => self.outbox.cancel.push(claim.clone()),
        }
        let at = now.after(backoff(debt.attempts)).min(debt.forgotten_at);
        let old = debt.timer.take();
        self.timers.clear(old);
        let timer = self.timers.set(at, Timer::Debt(claim));
        if let Some(debt) = self.debts.get_mut(&claim) {
            debt.timer = Some(timer);
        }
    }

    /// The store answered a release or a cancellation, or could not be told. If it was owed, it is paid now; or the caller hears
    /// of the trouble and the engine goes on.
    pub(super) fn note_debt(&mut self, claim: ClaimId, trouble: Option<&Error>, now: Boottime) {
        let Some(debt) = self.debts.get_mut(&claim) else { return };
        match trouble {
            Some(error) => {
                if let Some(ticket) = debt.ticket.take() {
                    self.answer(ticket, Answer::Failed(error.clone()));
                }
            }
            // A copy of the claim may reach the store yet: the timer asks again.
            None if debt.in_doubt && now < debt.forgotten_at => {}
            None => self.settle(claim, Ok(())),
        }
    }

    fn settle(&mut self, claim: ClaimId, outcome: Result<(), Error>) {
        let Some(debt) = self.debts.remove(&claim) else { return };
        self.timers.clear(debt.timer);
        if let Some(ticket) = debt.ticket {
            self.answer(ticket, outcome.map_or_else(Answer::Failed, |()| Answer::Done));
        }
        self.check_closed();
    }
}

fn unpaid() -> Error {
    Error::new(ErrorKind::Unavailable, "the store could not be told; it has let the lock expire by itself")
}

/// The pause before attempt `n + 1`: 50 ms, doubled each time, 5 s at most.
pub(super) fn backoff(attempts: u32) -> Duration {
    Duration::from_millis(50 << attempts.min(7)).min(Duration::from_secs(5))
}
