//! What a guard and the engine share about one grant.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::clock::Boottime;
use crate::loss::LossReason;
use crate::spi::{ClaimId, Mode};

/// What a guard and the engine share about one grant of the store.
///
/// `deadline` is the one word that decides: nanoseconds of [`Boottime`], `u64::MAX` for never, and [`LOST`] for
/// lost. Whoever first sees the deadline passed swaps in [`LOST`]; a renewal swaps in a later deadline only while
/// it is not lost and not passed. So the two can't disagree, and a lost lock stays lost.
pub(crate) struct Lease {
    claim: ClaimId,
    mode: Mode,
    downgraded: AtomicBool,
    deadline: AtomicU64,
    reason: AtomicU8,
    at_risk: AtomicBool,
    exported: AtomicBool,
    asked: AtomicBool,
    changed: Notify,
}

const LOST: u64 = 0;

impl Lease {
    pub(crate) fn new(claim: ClaimId, mode: Mode, deadline: Boottime) -> Self {
        Self {
            claim,
            mode,
            downgraded: AtomicBool::new(false),
            deadline: AtomicU64::new(deadline.as_nanos()),
            reason: AtomicU8::new(0),
            at_risk: AtomicBool::new(false),
            exported: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    pub(crate) fn claim(&self) -> ClaimId {
        self.claim
    }

    /// How the lock is held.
    pub(crate) fn mode(&self) -> Mode {
        if self.downgraded.load(Ordering::Acquire) { Mode::Shared } else { self.mode }
    }

    /// Says that it is held as a reader from now on.
    pub(crate) fn downgrade(&self) {
        self.downgraded.store(true, Ordering::Release);
    }

    /// Whether it is held now. Once this was false it stays false.
    pub(crate) fn is_held(&self) -> bool {
        match self.deadline.load(Ordering::Acquire) {
            u64::MAX => true,
            LOST => false,
            _ => self.is_held_at(Boottime::now()),
        }
    }

    /// [`Lease::is_held`] at an instant that the caller has just read from the clock.
    pub(crate) fn is_held_at(&self, now: Boottime) -> bool {
        let mut seen = self.deadline.load(Ordering::Acquire);
        loop {
            if seen == LOST {
                return false;
            }
            if now.as_nanos() < seen {
                return true;
            }
            match self.deadline.compare_exchange(seen, LOST, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.changed.notify_waiters();
                    return false;
                }
                Err(other) => seen = other,
            }
        }
    }

    /// The deadline, or `None` if it never comes or the lease is lost.
    pub(crate) fn deadline(&self) -> Option<Boottime> {
        match self.deadline.load(Ordering::Acquire) {
            LOST | u64::MAX => None,
            nanos => Some(Boottime::from_nanos(nanos)),
        }
    }

    /// Moves the deadline to `later`. False if the lease is lost by now.
    pub(crate) fn extend(&self, later: Boottime, now: Boottime) -> bool {
        let mut seen = self.deadline.load(Ordering::Acquire);
        while seen != LOST && now.as_nanos() < seen {
            if seen >= later.as_nanos() {
                break;
            }
            match self.deadline.compare_exchange(seen, later.as_nanos(), Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => break,
                Err(other) => seen = other,
            }
        }
        let held = self.is_held_at(now);
        if held {
            self.at_risk.store(false, Ordering::Release);
        }
        held
    }

    /// Declares it lost. The first reason stays.
    pub(crate) fn lose(&self, reason: LossReason) {
        if self.deadline.load(Ordering::Acquire) != LOST {
            // A concurrent expiry may win the word; the reason is then as true as its own.
            self.reason.store(encode(reason), Ordering::Release);
            self.deadline.store(LOST, Ordering::Release);
        }
        self.changed.notify_waiters();
    }

    /// Why it was lost, if it was.
    pub(crate) fn loss(&self) -> Option<LossReason> {
        if self.is_held() { None } else { Some(decode(self.reason.load(Ordering::Acquire))) }
    }

    /// Says that the first renewal is overdue.
    pub(crate) fn put_at_risk(&self) {
        self.at_risk.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_at_risk(&self) -> bool {
        self.at_risk.load(Ordering::Acquire)
    }

    /// Says that somebody outside this process relies on the grant: it is never handed on.
    pub(crate) fn export(&self) {
        self.exported.store(true, Ordering::Release);
    }

    pub(crate) fn is_exported(&self) -> bool {
        self.exported.load(Ordering::Acquire)
    }

    /// Says that somebody wants the lock back soon.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until somebody wants the lock back, or the lease is lost.
    pub(crate) async fn asked(&self) {
        self.when(|lease| (lease.asked.load(Ordering::Acquire) || !lease.is_held()).then_some(())).await;
    }

    /// Waits until the lease is lost.
    pub(crate) async fn lost(&self) -> LossReason {
        self.when(Self::loss).await
    }

    /// Waits until a renewal is overdue or the lease is lost.
    pub(crate) async fn at_risk(&self) {
        self.when(|lease| (lease.is_at_risk() || !lease.is_held()).then_some(())).await;
    }

    async fn when<T>(&self, ready: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Listens before it looks, so that no change falls between.
            changed.as_mut().enable();
            if let Some(value) = ready(self) {
                return value;
            }
            changed.await;
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("claim", &self.claim)
            .field("deadline", &Boottime::from_nanos(self.deadline.load(Ordering::Relaxed)))
            .finish_non_exhaustive()
    }
}

fn encode(reason: LossReason) -> u8 {
    match reason {
        LossReason::Expired => 0,
        LossReason::Taken => 1,
        LossReason::Revoked => 2,
        LossReason::SessionGone => 3,
        LossReason::StoreReset => 4,
        LossReason::Closed => 5,
        LossReason::MaxHold => 6,
    }
}

fn decode(code: u8) -> LossReason {
    match code {
        1 => LossReason::Taken,
        2 => LossReason::Revoked,
        3 => LossReason::SessionGone,
        4 => LossReason::StoreReset,
        5 => LossReason::Closed,
        6 => LossReason::MaxHold,
        _ => LossReason::Expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Boottime {
        Boottime::from_nanos(nanos)
    }

    #[test]
    fn a_passed_deadline_is_final_even_for_a_late_renewal() {
        let lease = Lease::new(ClaimId::random(), Mode::Exclusive, at(100));
        assert!(lease.is_held_at(at(99)));
        assert!(!lease.is_held_at(at(100)));
        assert!(!lease.extend(at(500), at(50)), "a renewal with an older clock reading revives nothing");
        assert!(!lease.is_held_at(at(50)));
        assert_eq!(lease.loss(), Some(LossReason::Expired));
    }

    #[test]
    fn renewal_moves_the_deadline_forward_only() {
        let lease = Lease::new(ClaimId::random(), Mode::Exclusive, at(100));
        assert!(lease.extend(at(300), at(10)));
        assert!(lease.extend(at(200), at(10)), "an older reply does no harm");
        assert!(lease.is_held_at(at(299)));
    }

    #[test]
    fn the_first_reason_stays() {
        let lease = Lease::new(ClaimId::random(), Mode::Exclusive, Boottime::NEVER);
        assert!(lease.is_held());
        lease.lose(LossReason::Revoked);
        lease.lose(LossReason::Taken);
        assert_eq!(lease.loss(), Some(LossReason::Revoked));
    }
}
