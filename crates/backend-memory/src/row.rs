//! One lock: who holds it, who waits, and who may have it next. The plain store and the emulated one have the same rules.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use locks_api::spi::{
    Claim, ClaimId, Expiry, Grant, HeldBy, Leader, LockState, Mode, Result, TokenBlock, WaitingFor,
};
use locks_api::{Boottime, Busy, Error, ErrorKind, Holder, LockName};

/// One lock. `H` and `W` are what the store keeps beside each holder and each waiter.
#[derive(Clone, Debug)]
pub(crate) struct Row<H, W> {
    /// The last token that was handed out, and the epoch in which it was.
    counter: Option<(u64, u64)>,
    /// In the order of their grants.
    pub(crate) held: Vec<Held<H>>,
    /// First come first.
    pub(crate) waiting: VecDeque<Waiter<W>>,
    /// Until when nobody gets it, and whose grant says so.
    not_before: Option<(Boottime, ClaimId)>,
    /// When the last hold that was completed began.
    last_completed: Option<Boottime>,
}

/// Who holds.
#[derive(Clone, Debug)]
pub(crate) struct Held<H> {
    pub(crate) claim: Claim,
    pub(crate) grant: Grant,
    holder: Holder,
    since: Boottime,
    pub(crate) beside: H,
}

/// Who waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiter<W> {
    pub(crate) claim: Claim,
    pub(crate) beside: W,
}

/// How a claim stands.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It holds the lock, as this one of the holders.
    Holds(usize),
    /// It may have the lock now.
    Next,
    /// It has to wait, with so many before it.
    Behind(usize),
    /// It can't have it before some time has passed.
    NotDue(Duration),
}

impl Standing {
    /// Why it can't have the lock now, if it can't; `holder` is who has it.
    pub(crate) fn busy(self, holder: Option<Holder>) -> Option<Busy> {
        match self {
            Self::Holds(_) | Self::Next => None,
            Self::Behind(_) => Some(Busy::Held { by: holder }),
            Self::NotDue(remaining) => Some(Busy::NotDue { remaining }),
        }
    }
}

/// What comes of the first who waits.
#[derive(Debug)]
pub(crate) enum Next<W> {
    /// It is to be granted the lock.
    Granted(Waiter<W>),
    /// It wants the lock once in a while, and somebody was faster: it is to ask again.
    NotDue(Waiter<W>),
}

impl<H, W> Default for Row<H, W> {
    fn default() -> Self {
        Self {
            counter: None,
            held: Vec::new(),
            waiting: VecDeque::new(),
            not_before: None,
            last_completed: None,
        }
    }
}

impl<H, W> Row<H, W> {
    /// How this claim stands, whether it is new or known.
    pub(crate) fn standing(&self, claim: &Claim, now: Boottime) -> Result<Standing> {
        if let Some(holds) = self.held.iter().position(|held| held.claim.id == claim.id) {
            return Ok(Standing::Holds(holds));
        }
        self.check_limit(claim)?;
        let not_due = self.interval_left(claim, now);
        let ahead = self.waiting.iter().position(|waiter| waiter.claim.id == claim.id);
        let ahead = ahead.unwrap_or(self.waiting.len());
        let fits = ahead == 0 && claim.mode.fits_beside(self.modes());
        Ok(match (not_due, self.due_in(now)) {
            (Some(left), _) => Standing::NotDue(left),
            (None, None) if fits => Standing::Next,
            // One that may wait keeps its place.
            (None, Some(left)) if !claim.may_wait && (fits || self.held.is_empty()) => Standing::NotDue(left),
            _ => Standing::Behind(ahead),
        })
    }

    /// Puts a claim that stands behind `ahead` others into the queue, if it is not there yet.
    pub(crate) fn wait(&mut self, claim: &Claim, ahead: usize, beside: W) {
        let waiter = Waiter { claim: claim.clone(), beside };
        match self.waiting.get_mut(ahead) {
            Some(known) => *known = waiter,
            None => self.waiting.push_back(waiter),
        }
    }

    /// Who holds it, or the first of them.
    pub(crate) fn holder(&self) -> Option<Holder> {
        self.held.first().map(|held| held.holder.clone())
    }

    /// For how long nobody gets it.
    pub(crate) fn due_in(&self, now: Boottime) -> Option<Duration> {
        self.not_before.filter(|(until, _)| *until > now).map(|(until, _)| until.since(now))
    }

    /// Takes the first who waits out of the queue, if it is its turn. Nobody passes it, so that a writer is not starved by readers nor one of
    /// many permits by those of few.
    pub(crate) fn take_next(&mut self, now: Boottime) -> Option<Next<W>> {
        let first = self.waiting.front()?;
        if self.interval_left(&first.claim, now).is_some() {
            return self.waiting.pop_front().map(Next::NotDue);
        }
        if self.due_in(now).is_some() || !first.claim.mode.fits_beside(self.modes()) {
            return None;
        }
        self.waiting.pop_front().map(Next::Granted)
    }

    /// The one atomic step that grants: it takes the tokens too. The claim is known to be next.
    pub(crate) fn grant(
        &mut self,
        claim: &Claim,
        epoch: u64,
        expiry: Expiry,
        beside: H,
        now: Boottime,
    ) -> Result<Grant> {
        debug_assert!(claim.mode.fits_beside(self.modes()), "it is not its turn");
        let wall = SystemTime::now();
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        let tokens = match self.counter {
            Some((counter, written)) if written == epoch => TokenBlock::after(counter, clock),
            counter => TokenBlock::without_counter(counter.map(|(counter, _)| counter), clock),
        };
        let tokens =
            tokens.ok_or_else(|| Error::new(ErrorKind::StoreFull, "the fencing tokens are used up"))?;
        let grant = Grant::new(claim, tokens, expiry);
        self.counter = Some((tokens.last().get(), epoch));
        self.waiting.retain(|waiter| waiter.claim.id != claim.id);
        if let Some(least) = claim.min_hold() {
            self.not_before = Some((now.after(least), claim.id));
        }
        let holder = (*claim.holder).clone().with_since(wall);
        self.held.push(Held { claim: claim.clone(), grant: grant.clone(), holder, since: now, beside });
        Ok(grant)
    }

    /// The holder with this very grant.
    pub(crate) fn held_mut(&mut self, grant: &Grant) -> Option<&mut Held<H>> {
        self.held.iter_mut().find(|held| held.grant.is_same_as(grant))
    }

    /// Ends this very grant, and writes down whether what it was for was done.
    pub(crate) fn release(&mut self, grant: &Grant, completed: bool) -> Option<Held<H>> {
        let at = self.held.iter().position(|held| held.grant.is_same_as(grant))?;
        let held = self.held.remove(at);
        if completed {
            self.last_completed = self.last_completed.max(Some(held.since));
        }
        Some(held)
    }

    /// Undoes a claim, whatever it reached, as if it had never been. True if it was there: then others may be next.
    pub(crate) fn cancel(&mut self, claim: ClaimId) -> bool {
        let before = self.held.len() + self.waiting.len();
        if self.not_before.is_some_and(|(_, by)| by == claim) {
            self.not_before = None;
        }
        self.waiting.retain(|waiter| waiter.claim.id != claim);
        self.held.retain(|held| held.claim.id != claim);
        self.held.len() + self.waiting.len() < before
    }

    /// Who holds it, with a value; `remaining` tells how long a hold lasts.
    pub(crate) fn leader(&self, remaining: impl Fn(&H) -> Option<Duration>) -> Option<Leader> {
        let held = self.held.first()?;
        let mut leader = Leader::new(held.grant.tokens.first(), held.claim.value()?.clone());
        leader.holder = Some(held.holder.clone());
        leader.remaining = remaining(&held.beside);
        Some(leader)
    }

    /// What can be told of it; `remaining` tells how long a hold lasts.
    pub(crate) fn state(
        &self,
        name: &LockName,
        remaining: impl Fn(&H) -> Option<Duration>,
        now: Boottime,
    ) -> LockState {
        let mut state = LockState::free(name.clone());
        state.holders = self.held.iter().map(|held| held.state(&remaining)).collect();
        state.waiters = Some(self.waiting.iter().map(Waiter::state).collect());
        state.not_due_for = self.due_in(now);
        state
    }

    /// Whether nothing would be lost if it were forgotten. A counter that is gone goes on at the clock, above everything it has handed out.
    pub(crate) fn is_idle(&self, now: Boottime) -> bool {
        let unused = self.held.is_empty() && self.waiting.is_empty();
        unused && self.last_completed.is_none() && self.due_in(now).is_none()
    }

    fn modes(&self) -> impl Iterator<Item = Mode> {
        self.held.iter().map(|held| held.claim.mode)
    }

    /// How long a claim that wants the lock once in a while has to wait since somebody has done what it wants to do.
    fn interval_left(&self, claim: &Claim, now: Boottime) -> Option<Duration> {
        let due = self.last_completed?.after(claim.once_per()?);
        (due > now).then(|| due.since(now))
    }

    /// All who use it as a semaphore have to agree on its limit.
    fn check_limit(&self, claim: &Claim) -> Result<()> {
        let Some(limit) = claim.mode.limit() else { return Ok(()) };
        let waiting = self.waiting.iter().filter(|waiter| waiter.claim.id != claim.id);
        let others = self.modes().chain(waiting.map(|waiter| waiter.claim.mode));
        match others.filter_map(Mode::limit).find(|other| *other != limit) {
            Some(other) => Err(Error::new(
                ErrorKind::LimitMismatch,
                format!("the semaphore is in use with a limit of {other} and was asked for with {limit}"),
            )),
            None => Ok(()),
        }
    }
}

impl<H> Held<H> {
    /// Replaces its value.
    pub(crate) fn publish(&mut self, value: &str) {
        self.claim = self.claim.clone().with_value(value);
    }

    fn state(&self, remaining: impl Fn(&H) -> Option<Duration>) -> HeldBy {
        let mut state = HeldBy::new(self.claim.mode);
        state.holder = Some(self.holder.clone());
        state.claim = Some(self.claim.id);
        state.token = Some(self.grant.tokens.first());
        state.remaining = remaining(&self.beside);
        state
    }
}

impl<W> Waiter<W> {
    fn state(&self) -> WaitingFor {
        let mut state = WaitingFor::new();
        state.mode = Some(self.claim.mode);
        state.holder = Some((*self.claim.holder).clone());
        state.claim = Some(self.claim.id);
        state
    }
}
