//! Answers to claims that were sent more than once, when their fate is decided already.
//!
//! A claim is sent again when the store hinted at its lock, or did not answer in time. Its grant may come by another way before all copies of it are
//! answered, and a copy that the store works on after the grant went back gets somewhere anew.

use super::core::Core;
use super::entry::{EntryKey, Phase};
use crate::clock::Boottime;
use crate::error::Error;
use crate::spi::{Attempt, Claim};

impl Core {
    /// The claim was granted before this copy of it was answered, and its grant is here or on its way back.
    pub(super) fn late_answer(&mut self, key: EntryKey, claim: &Claim, reply: &Result<Attempt, Error>) {
        match &mut self.entries[key].phase {
            Phase::Held(hold) => hold.copies = hold.copies.saturating_sub(1),
            Phase::Releasing(releasing) if releasing.awaits > 0 => {
                releasing.awaits -= 1;
                if releasing.awaits == 0 {
                    self.outbox.release.push(releasing.back());
                }
            }
            Phase::Releasing(releasing) if claim.min_hold().is_none() => {
                // A store that works on several steps at a time may have taken the grant back before it did this, and answer in the other order.
                let revived = match reply {
                    Ok(Attempt::Granted(grant)) => !grant.is_same_as(&releasing.grant),
                    Ok(Attempt::Queued { .. }) => true,
                    Ok(Attempt::Busy(_)) | Err(_) => false,
                };
                if revived {
                    releasing.revived = Some(Box::new(claim.clone()));
                }
            }
            _ => {}
        }
    }

    /// Nobody waits for this claim any more, and nobody has it. If it got somewhere, that is undone; but somebody may have had an earlier grant of it, whose
    /// minimum hold must stay.
    pub(super) fn stray(&mut self, claim: &Claim, reply: Result<Attempt, Error>, now: Boottime) {
        let must_stay = claim.min_hold().is_some() && !self.debts.contains_key(&claim.id);
        match reply {
            Ok(Attempt::Granted(grant)) if must_stay => self.owe_release_of(grant, now),
            // Its grant will be pushed, and goes back then.
            Ok(Attempt::Queued { .. }) if must_stay => {}
            Ok(Attempt::Granted(_) | Attempt::Queued { .. }) => self.owe_cancel(claim.clone(), false, now),
            Ok(Attempt::Busy(_)) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Poll;
    use std::time::Duration;

    use super::super::replies::tests::{answer, ask_on, core};
    use super::super::ticket::{Answer, Special, Terms, TicketKey};
    use super::*;
    use crate::loss::LossReason;
    use crate::spi::{Event, Expiry, Extras, Grant, Released, Renewed, TokenBlock};
    use crate::token::FencingToken;

    /// Somebody waits for the lock, whose claim was sent again on a hint and granted by a push before the copy was answered.
    fn granted_before_its_copy_is_answered(terms: Terms, now: Boottime) -> (Core, TicketKey, Claim, Grant) {
        let mut core = core();
        let (ticket, claim) = ask_on(&mut core, "x", terms, now);
        core.acquired(&claim, now, Ok(Attempt::queued(None, None)), now);
        core.event(Event::Hint(claim.name.clone()), now);
        assert_eq!(std::mem::take(&mut core.outbox().acquire).len(), 1, "it is not sent again");
        let grant = grant(&claim, 7);
        core.event(Event::Granted(grant.clone(), None), now);
        (core, ticket, claim, grant)
    }

    /// The same, and its holder has given it back.
    fn given_back_before_its_copy_is_answered(terms: Terms, now: Boottime) -> (Core, Claim, Grant) {
        let (mut core, ticket, claim, grant) = granted_before_its_copy_is_answered(terms, now);
        let Poll::Ready(Answer::Granted(granted)) = answer(&mut core, ticket) else {
            panic!("nobody got it");
        };
        assert!(core.release(&granted, false, false, now).is_none());
        (core, claim, grant)
    }

    fn grant(claim: &Claim, token: u64) -> Grant {
        Grant::new(claim, TokenBlock::new(FencingToken::new(token).unwrap(), 1).unwrap(), Expiry::Never)
    }

    fn with_minimum_hold() -> Terms {
        let extras = Extras { min_hold: Some(Duration::from_secs(60)), ..Extras::default() };
        let special = Special { extras: Some(Arc::new(extras)), ..Special::default() };
        Terms { special: Some(Arc::new(special)), ..Terms::plain(None) }
    }

    /// The store took the grant back, then did what the copy says, and answered that first.
    #[test]
    fn a_claim_that_gets_somewhere_while_its_grant_goes_back_is_undone() {
        for got in
            [|claim: &Claim| Attempt::Granted(grant(claim, 8)), |_: &Claim| Attempt::queued(None, None)]
        {
            let now = Boottime::now();
            let (mut core, claim, grant) = given_back_before_its_copy_is_answered(Terms::plain(None), now);
            assert_eq!(std::mem::take(&mut core.outbox().release).len(), 1);
            core.acquired(&claim, now, Ok(got(&claim)), now);
            core.released(&grant, &Ok(Released::Done), now);
            assert_eq!(std::mem::take(&mut core.outbox().cancel).len(), 1, "what it got is not undone");
            core.cancelled(&claim, &Ok(()), now);
            assert!(core.is_settled());
        }
    }

    #[test]
    fn the_same_grant_once_more_is_not_undone() {
        let now = Boottime::now();
        let (mut core, claim, grant) = given_back_before_its_copy_is_answered(Terms::plain(None), now);
        core.outbox().release.clear();
        core.acquired(&claim, now, Ok(Attempt::Granted(grant.clone())), now);
        core.released(&grant, &Ok(Released::Done), now);
        assert!(core.outbox().is_empty() && core.is_settled());
    }

    /// A copy that came to the store after the release would wait there, and undoing that would end the minimum hold.
    #[test]
    fn a_minimum_hold_is_given_back_after_all_copies_of_its_claim_are_answered() {
        let now = Boottime::now();
        let (mut core, claim, grant) = given_back_before_its_copy_is_answered(with_minimum_hold(), now);
        assert!(core.outbox().is_empty(), "it went back before");
        core.acquired(&claim, now, Ok(Attempt::Granted(grant.clone())), now);
        assert_eq!(std::mem::take(&mut core.outbox().release).len(), 1, "it does not go back");
        core.released(&grant, &Ok(Released::Done), now);
        assert!(core.outbox().is_empty() && core.is_settled());
    }

    #[test]
    fn a_minimum_hold_whose_copies_are_answered_goes_back_at_once() {
        let now = Boottime::now();
        let (mut core, ticket, claim, grant) = granted_before_its_copy_is_answered(with_minimum_hold(), now);
        let Poll::Ready(Answer::Granted(granted)) = answer(&mut core, ticket) else {
            panic!("nobody got it");
        };
        core.acquired(&claim, now, Ok(Attempt::Granted(grant)), now);
        assert!(core.release(&granted, false, false, now).is_none());
        assert_eq!(core.outbox().release.len(), 1);
    }

    #[test]
    fn a_minimum_hold_is_given_back_although_a_copy_of_its_claim_is_never_answered() {
        let now = Boottime::now();
        let (mut core, _, grant) = given_back_before_its_copy_is_answered(with_minimum_hold(), now);
        let later = core.next_tick().expect("somebody looks after it");
        core.tick(later);
        assert_eq!(std::mem::take(&mut core.outbox().release).len(), 1);
        core.released(&grant, &Ok(Released::Done), later);
        assert!(core.is_settled());
    }

    /// The grant had an owner who may count on its minimum hold: no cancellation may end that.
    #[test]
    fn what_a_late_copy_gets_after_a_minimum_hold_is_never_undone() {
        let now = Boottime::now();
        let (mut core, claim, grant) = given_back_before_its_copy_is_answered(with_minimum_hold(), now);
        core.acquired(&claim, now, Ok(Attempt::Granted(grant.clone())), now);
        core.released(&grant, &Ok(Released::Done), now);
        core.outbox().release.clear();
        core.acquired(&claim, now, Ok(Attempt::queued(None, None)), now);
        assert!(core.outbox().is_empty() && core.is_settled(), "its minimum hold is undone");
        core.acquired(&claim, now, Ok(Attempt::Granted(grant.clone())), now);
        assert!(core.outbox().cancel.is_empty(), "its minimum hold is undone");
        assert_eq!(std::mem::take(&mut core.outbox().release).len(), 1);
        core.released(&grant, &Ok(Released::NotHeld), now);
        assert!(core.is_settled());
    }

    /// A copy that the store works on after the cancellation would be granted to nobody, minimum hold and all.
    #[test]
    fn a_minimum_hold_that_nobody_got_is_undone_for_as_long_as_a_copy_may_come() {
        let now = Boottime::now();
        let (mut core, ticket, claim, _) = granted_before_its_copy_is_answered(with_minimum_hold(), now);
        core.abandon(ticket, now);
        assert_eq!(std::mem::take(&mut core.outbox().cancel).len(), 1);
        core.cancelled(&claim, &Ok(()), now);
        assert_eq!(std::mem::take(&mut core.outbox().cancel).len(), 1, "once is taken for enough");
        core.cancelled(&claim, &Ok(()), now);
        assert!(!core.is_settled(), "twice is taken for enough");
    }

    #[test]
    fn a_minimum_hold_that_expired_unseen_is_undone_for_as_long_as_a_copy_may_come() {
        let now = Boottime::now();
        let terms = Terms { ttl: Some(Duration::from_secs(6)), ..with_minimum_hold() };
        let mut core = core();
        let (_, claim) = ask_on(&mut core, "x", terms, now);
        core.acquired(&claim, now, Ok(Attempt::queued(None, None)), now);
        core.event(Event::Hint(claim.name.clone()), now);
        core.outbox().acquire.clear();
        let grant = Grant { expiry: Expiry::In(Duration::from_millis(100)), ..grant(&claim, 7) };
        core.event(Event::Granted(grant.clone(), None), now);
        core.renewed(&grant, now, &Ok(Renewed::Lost(LossReason::Expired)), now);
        assert_eq!(std::mem::take(&mut core.outbox().cancel).len(), 1);
        core.cancelled(&claim, &Ok(()), now);
        assert!(core.debts.contains_key(&claim.id), "once is taken for enough");
    }
}
