//! How long grants live, and what keeps them alive.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::debt::backoff;
use super::entry::{EntryKey, Hold, Phase, Upkeep, Usage};
use super::lease::Lease;
use super::outbox::Return;
use super::ticket::Answer;
use super::timers::Timer;
use crate::clock::Boottime;
use crate::error::{Error, ErrorKind};
use crate::loss::LossReason;
use crate::observe::What;
use crate::spi::{Expiry, Grant, Mode, Renewed};

/// How long a grant with this ttl counts as held, from before the step that set its expiry was sent.
///
/// The margin, the larger of 10 % and 500 ms but never more than half, is for clocks that run at slightly different rates and
/// for work that is under way when the deadline passes.
pub(crate) fn validity(ttl: Duration) -> Duration {
    ttl - margin(ttl)
}

fn margin(ttl: Duration) -> Duration {
    (ttl / 10).max(Duration::from_millis(500)).min(ttl / 2)
}

/// What is known of when the store wrote a grant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written {
    /// After a step was sent at this instant.
    After(Boottime),
    /// On its own, after this instant, if that is known.
    Pushed(Option<Boottime>),
}

impl Core {
    /// Makes what holds the lock for this process out of a grant. `mode` and `ttl` are what was asked for.
    pub(super) fn hold(
        &mut self,
        key: EntryKey,
        grant: Grant,
        (mode, ttl): (Mode, Option<Duration>),
        by_hand: bool,
        written: Written,
        now: Boottime,
    ) -> Hold {
        let (deadline, upkeep, usage) = match grant.expiry {
            Expiry::Never => (Boottime::NEVER, None, Usage::Free),
            Expiry::In(remaining) => {
                // A store that renews many grants as one lease grants what is left of that lease.
                let ttl = ttl.unwrap_or(remaining);
                // What is handed over may be short-lived until it is confirmed.
                let full = if matches!(written, Written::Pushed(_)) { remaining.min(ttl) } else { ttl };
                let valid_for = remaining.saturating_sub(margin(full));
                let since = match written {
                    Written::After(sent) => Some(sent),
                    Written::Pushed(since) => since.map(|since| since.min(now)),
                };
                let sent = since.unwrap_or(now);
                let deadline = sent.after(valid_for);
                // With less than a third of its life left, or an unknown rest, a renewal comes first. A slower store could not
                // renew it in time anyway.
                let fresh = since.is_some() && deadline.since(now) >= validity(full) / 3;
                let renew_at = if fresh { self.renewal_after(sent, valid_for) } else { now };
                let renew_at = if by_hand { now } else { renew_at };
                if !by_hand || !fresh {
                    self.renewals.insert((renew_at, key));
                }
                let timer = Some(self.timers.set(next_check(sent, valid_for, false), Timer::Lease(key)));
                let upkeep = Upkeep { ttl, by_hand, valid_for, sent, renew_at, is_asked: false, timer };
                (deadline, Some(upkeep), if fresh { Usage::Free } else { Usage::Unconfirmed })
            }
        };
        let lease = Arc::new(Lease::new(grant.claim, mode, deadline));
        let (thread, used, since, max_hold, extensions) = (None, 0, now, None, Vec::new());
        let (undo, copies) = (None, 0);
        Hold { grant, lease, usage, thread, used, since, upkeep, max_hold, extensions, undo, copies }
    }

    /// Stops keeping a grant alive, and says when the store has forgotten it.
    pub(super) fn end_upkeep(&mut self, key: EntryKey, hold: &mut Hold) -> Boottime {
        self.timers.clear(hold.max_hold.take());
        let loss = hold.lease.loss().unwrap_or(LossReason::Closed);
        for (ticket, _) in std::mem::take(&mut hold.extensions) {
            self.answer(ticket, Answer::Failed(Error::lost(loss)));
        }
        match &hold.upkeep {
            None => Boottime::NEVER,
            Some(upkeep) => {
                self.renewals.remove(&(upkeep.renew_at, key));
                self.timers.clear(upkeep.timer);
                // A renewal that was sent after `sent` may have moved it: count from its schedule.
                upkeep.renew_at.max(upkeep.sent).after(upkeep.ttl)
            }
        }
    }

    /// Asks for all renewals that are due, and those that soon will be, in one go.
    pub(super) fn renew_due(&mut self, now: Boottime) {
        if self.recovering {
            return;
        }
        let Some(&(first, key)) = self.renewals.first() else { return };
        if first > now {
            return;
        }
        let window = match &self.entries[key].phase {
            Phase::Held(Hold { upkeep: Some(upkeep), .. }) => validity(upkeep.ttl) / 6,
            _ => Duration::ZERO,
        };
        let is_asked = |key: EntryKey| match &self.entries[key].phase {
            Phase::Held(Hold { upkeep: Some(upkeep), .. }) => upkeep.is_asked,
            _ => false,
        };
        let soon = self.renewals.iter().copied().take_while(|(at, _)| *at <= now.after(window));
        let due: Vec<(Boottime, EntryKey)> = soon.filter(|(at, key)| *at <= now || !is_asked(*key)).collect();
        for (at, key) in due {
            self.renewals.remove(&(at, key));
            let Phase::Held(hold) = &mut self.entries[key].phase else { continue };
            let Some(upkeep) = &mut hold.upkeep else { continue };
            // If nothing comes back it is asked again, three times before the deadline. Not more often the less is left: a store that is too slow for some
            // thousand grants would be asked for each of them all the time.
            let whole = validity(upkeep.ttl);
            let pause = (whole.min(upkeep.valid_for) / 6).max(whole / 24);
            upkeep.renew_at = now.after(pause).max(Boottime::from_nanos(now.as_nanos() + 1));
            upkeep.is_asked = true;
            self.renewals.insert((upkeep.renew_at, key));
            self.outbox.renew.push(hold.grant.clone());
        }
    }

    /// The store answered a renewal.
    pub(crate) fn renewed(
        &mut self,
        grant: &Grant,
        sent: Boottime,
        reply: &Result<Renewed, Error>,
        now: Boottime,
    ) {
        let Some(key) = self.find(&grant.name, grant.claim) else { return };
        // Meanwhile the claim may have lost this grant and got a later one: what is said of the first means nothing to that.
        let hold = self.entries[key].hold_of(grant.claim).filter(|hold| hold.grant.is_same_as(grant));
        let Some(hold) = hold else { return };
        match reply {
            Ok(Renewed::Extended(Expiry::Never)) => self.answer_extensions(key, sent, || Answer::Done),
            Ok(Renewed::Extended(Expiry::In(remaining))) => self.extended(key, *remaining, sent, now),
            Ok(Renewed::Lost(reason)) => self.lose(key, *reason, now),
            Err(error) => {
                let failed = What::RenewalFailed(error.clone());
                let token = hold.token();
                let Some(upkeep) = &mut hold.upkeep else { return };
                let retry = now.after((validity(upkeep.ttl) / 12).min(backoff(6)));
                if retry < upkeep.renew_at && !upkeep.by_hand {
                    self.renewals.remove(&(upkeep.renew_at, key));
                    upkeep.renew_at = retry;
                    self.renewals.insert((retry, key));
                }
                self.note(key, token, || failed);
                self.answer_extensions(key, sent, || Answer::Failed(error.clone()));
            }
        }
    }

    fn extended(&mut self, key: EntryKey, remaining: Duration, sent: Boottime, now: Boottime) {
        let Phase::Held(Hold { upkeep: Some(upkeep), .. }) = &self.entries[key].phase else { return };
        let valid_for = remaining.saturating_sub(margin(upkeep.ttl));
        let next = self.renewal_after(sent, valid_for);
        let Phase::Held(hold) = &mut self.entries[key].phase else { return };
        let Some(upkeep) = &mut hold.upkeep else { return };
        if !hold.lease.extend(sent.after(valid_for), now) {
            let reason = hold.lease.loss().unwrap_or(LossReason::Expired);
            return self.lose(key, reason, now);
        }
        if sent >= upkeep.sent {
            self.renewals.remove(&(upkeep.renew_at, key));
            self.timers.clear(upkeep.timer.take());
            upkeep.valid_for = valid_for;
            upkeep.sent = sent;
            upkeep.renew_at = if upkeep.by_hand { upkeep.renew_at } else { next };
            upkeep.is_asked = false;
            upkeep.timer = Some(self.timers.set(next_check(sent, valid_for, false), Timer::Lease(key)));
            if !upkeep.by_hand {
                self.renewals.insert((next, key));
            }
        }
        let (token, confirmed) = (hold.token(), hold.usage == Usage::Unconfirmed);
        if confirmed {
            hold.usage = Usage::Free;
        }
        self.note(key, token, || What::Renewed { valid_for: sent.after(valid_for).since(now) });
        self.answer_extensions(key, sent, || Answer::Done);
        if confirmed {
            self.advance(key, now);
        }
    }

    /// A lease is at risk, or has ended.
    pub(super) fn check_lease(&mut self, key: EntryKey, now: Boottime) {
        let Phase::Held(hold) = &mut self.entries[key].phase else { return };
        let Some(upkeep) = &mut hold.upkeep else { return };
        if !hold.lease.is_held_at(now) {
            upkeep.timer = None;
            let reason = hold.lease.loss().unwrap_or(LossReason::Expired);
            return self.lose(key, reason, now);
        }
        hold.lease.put_at_risk();
        upkeep.timer =
            Some(self.timers.set(next_check(upkeep.sent, upkeep.valid_for, true), Timer::Lease(key)));
        let token = hold.token();
        self.note(key, token, || What::AtRisk);
    }

    /// The grant is gone. Its guard, if there is one, is told, and never comes back to life.
    pub(super) fn lose(&mut self, key: EntryKey, reason: LossReason, now: Boottime) {
        let Phase::Held(mut hold) = std::mem::replace(&mut self.entries[key].phase, Phase::Idle) else {
            return;
        };
        hold.lease.lose(reason);
        let forgotten_at = self.end_upkeep(key, &mut hold);
        self.note(key, hold.token(), || What::Lost(reason));
        // Nobody has it, so nothing is under way that the rest of the ttl would have to protect. A guard that is out keeps
        // the store's margin: its holder may be at work still.
        if hold.usage != Usage::Out && reason == LossReason::Expired {
            match hold.undo {
                Some(claim) if hold.used == 0 => self.owe_cancel(*claim, hold.copies > 0, now),
                _ => {
                    self.owe_release(Return { grant: hold.grant, completed: false }, None, forgotten_at, now)
                }
            }
            if hold.used == 0 {
                self.too_slow(key, now);
            }
        }
        self.advance(key, now);
    }

    /// A grant ended before anybody could have it. If that goes on for too long, nobody waits any more.
    fn too_slow(&mut self, key: EntryKey, now: Boottime) {
        let since = *self.entries[key].slow_since.get_or_insert(now);
        if now.since(since) >= self.settings.store_timeout {
            let message = "the store answers too slowly for this ttl; a longer one would help";
            self.fail_all(key, &Error::new(ErrorKind::Unavailable, message));
        }
    }

    /// After a third of the time, give or take a tenth, so that processes do not renew in step.
    fn renewal_after(&mut self, sent: Boottime, valid_for: Duration) -> Boottime {
        sent.after((valid_for / 3).mul_f64(0.9 + 0.2 * self.random.f64()))
    }
}

/// When to look at a lease: when its first renewal is overdue, then at its deadline.
fn next_check(sent: Boottime, valid_for: Duration, at_risk: bool) -> Boottime {
    sent.after(if at_risk { valid_for } else { valid_for * 2 / 3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_is_a_tenth_and_half_a_second_at_least() {
        assert_eq!(validity(Duration::from_secs(15)), Duration::from_millis(13_500));
        assert_eq!(validity(Duration::from_secs(2)), Duration::from_millis(1_500));
        assert_eq!(validity(Duration::from_millis(600)), Duration::from_millis(300));
    }
}
