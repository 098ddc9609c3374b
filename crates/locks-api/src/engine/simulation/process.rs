//! A simulated process: the engine's state machine, and callers who use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::super::core::{Core, Settings};
use super::super::ticket::{Answer, Granted, Patience, Special, Terms, TicketKey, Wish};
use super::world::TTL;
use crate::clock::Boottime;
use crate::holder::Holder;
use crate::name::LockName;
use crate::spi::{Extras, Mode, TtlLimits};
use crate::token::FencingToken;

pub(super) struct Process {
    pub(super) core: Core,
    /// Its clock's rate, in parts per thousand of the true one, and what it showed at the start.
    rate: u64,
    offset: u64,
    pub(super) callers: Vec<Caller>,
    /// Nothing runs here before this instant.
    pub(super) paused_until: Boottime,
    pub(super) crashed: bool,
    /// The epoch of the store that it knows.
    pub(super) epoch: u64,
    pub(super) tick_at: Option<Boottime>,
}

pub(super) struct Caller {
    pub(super) lock: LockName,
    /// How it wants the lock.
    terms: Terms,
    pub(super) doing: Doing,
    flag: Arc<Flag>,
    pub(super) rounds: u32,
}

pub(super) enum Doing {
    Resting,
    Waiting { ticket: TicketKey, since: Boottime, floor: Option<FencingToken> },
    Holding { granted: Granted, seen_lost: bool },
    Releasing { ticket: TicketKey },
}

/// Set by the engine when an answer is there. A caller looks only then, so a forgotten wake-up shows as a hang.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Caller {
    /// For how long nobody else is to be granted the lock after it was.
    pub(super) fn min_hold(&self) -> Duration {
        let extras = self.terms.special.as_ref().and_then(|special| special.extras.as_ref());
        extras.and_then(|extras| extras.min_hold).unwrap_or_default()
    }
}

impl Process {
    pub(super) fn new(random: &mut fastrand::Rng, callers: usize, kinds: bool, epoch: u64) -> Self {
        let settings = Settings {
            backend: "simulated",
            ttl: Some(TtlLimits::new(TTL / 2, TTL, TTL)),
            store_timeout: Duration::from_secs(60),
            hand_on: random.bool(),
            inline: false,
            seed: random.u64(..),
        };
        let callers = (0..callers).map(|_| Caller {
            lock: LockName::new(if random.bool() { "a" } else { "b" }).expect("a good name"),
            terms: if kinds { any_terms(random) } else { Terms::plain(Some(TTL)) },
            doing: Doing::Resting,
            flag: Arc::default(),
            rounds: random.u32(1..6),
        });
        Self {
            callers: callers.collect(),
            core: Core::new(settings),
            rate: random.u64(995..=1_005),
            offset: random.u64(1..1 << 50),
            paused_until: Boottime::from_nanos(0),
            crashed: false,
            epoch,
            tick_at: None,
        }
    }

    /// What this process's clock shows at a true instant.
    pub(super) fn local(&self, now: Boottime) -> Boottime {
        Boottime::from_nanos(self.offset + now.as_nanos() / 1_000 * self.rate)
    }

    /// The true instant, rounded up, at which its clock shows `local`.
    pub(super) fn to_true(&self, local: Boottime) -> Boottime {
        Boottime::from_nanos(
            (local.as_nanos().saturating_sub(self.offset) / self.rate + 1).saturating_mul(1_000),
        )
    }

    pub(super) fn runs(&self, now: Boottime) -> bool {
        !self.crashed && self.paused_until <= now
    }

    /// The caller asks for its lock.
    pub(super) fn request(
        &mut self,
        caller: usize,
        patience: Patience,
        floor: Option<FencingToken>,
        now: Boottime,
    ) {
        let local = self.local(now);
        let wish = Wish {
            name: self.callers[caller].lock.clone(),
            terms: self.callers[caller].terms.clone(),
            holder: Arc::new(Holder::default()),
            patience,
            caller: crate::caller::Caller::default(),
        };
        let ticket = self.core.acquire(wish, local);
        let caller = &mut self.callers[caller];
        caller.flag.0.store(true, Ordering::Relaxed);
        caller.doing = Doing::Waiting { ticket, since: now, floor };
    }

    /// Takes the caller's answer if it was woken.
    pub(super) fn look(&mut self, caller: usize) -> Option<Answer> {
        let Caller { doing, flag, .. } = &self.callers[caller];
        let (Doing::Waiting { ticket, .. } | Doing::Releasing { ticket }) = doing else { return None };
        if !flag.0.swap(false, Ordering::Relaxed) {
            return None;
        }
        let waker = Waker::from(Arc::clone(flag));
        match self.core.poll(*ticket, &Context::from_waker(&waker)) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    /// The caller gives its lock back, and waits for the confirmation or not.
    pub(super) fn release(&mut self, caller: usize, confirmed: bool, now: Boottime) {
        let local = self.local(now);
        let doing = std::mem::replace(&mut self.callers[caller].doing, Doing::Resting);
        let Doing::Holding { granted, .. } = doing else { return };
        let ticket = self.core.release(&granted, false, confirmed, local);
        let caller = &mut self.callers[caller];
        if let Some(ticket) = ticket {
            caller.flag.0.store(true, Ordering::Relaxed);
            caller.doing = Doing::Releasing { ticket };
        }
    }

    /// The caller drops its future.
    pub(super) fn abandon(&mut self, caller: usize, now: Boottime) {
        let local = self.local(now);
        let doing = std::mem::replace(&mut self.callers[caller].doing, Doing::Resting);
        if let Doing::Waiting { ticket, .. } | Doing::Releasing { ticket } = doing {
            self.core.abandon(ticket, local);
        }
    }
}

/// Some way to hold a lock. All who want permits agree on how many there are.
fn any_terms(random: &mut fastrand::Rng) -> Terms {
    let mode = match random.u32(0..4) {
        0 => Mode::Exclusive,
        1 => Mode::Shared,
        _ => Mode::Permits { count: random.u32(1..3), limit: 3 },
    };
    let some_time = Duration::from_millis(random.u64(1..2_000));
    let mut special = Special::default();
    match random.u32(0..8) {
        0 => special.max_hold = Some(some_time),
        1 => special.extras = Some(Arc::new(Extras { min_hold: Some(some_time), ..Extras::default() })),
        _ => {}
    }
    let special = (special != Special::default()).then(|| Arc::new(special));
    Terms { mode, ttl: Some(TTL), special }
}
