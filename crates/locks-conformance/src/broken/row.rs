//! One lock of the small store: who holds it, who waits, and what is wrong with it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use locks_api::spi::{
    Claim, ClaimId, Events, Expiry, Grant, HeldBy, Leader, LockState, Mode, Result, TokenBlock, WaitingFor,
};
use locks_api::{Boottime, Error, ErrorKind, Holder, LockName};

use super::Defect;

/// Where a counter starts that was forgotten.
const FORGOTTEN: u64 = 1_000;

/// One lock.
#[derive(Debug)]
pub(super) struct Row {
    defect: Option<Defect>,
    counter: Option<u64>,
    /// In the order of their grants.
    pub(super) held: Vec<Held>,
    /// First come first.
    pub(super) waiting: VecDeque<(Claim, Option<Events>)>,
    /// Until when nobody gets it, and whose grant says so.
    pub(super) not_before: Option<(Boottime, ClaimId)>,
    pub(super) last_completed: Option<Boottime>,
    /// Remembered only for the sake of a defect.
    pub(super) hand_overs: u32,
    pub(super) released: HashSet<ClaimId>,
    seen: Option<Leader>,
    former: Option<Leader>,
    looks: u32,
    lost_permits: u32,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) grant: Grant,
    pub(super) mode: Mode,
    pub(super) value: Option<Arc<str>>,
    pub(super) ttl: Option<Duration>,
    pub(super) ends: Option<Boottime>,
    pub(super) events: Option<Events>,
    by: Holder,
    pub(super) since: Boottime,
}

impl Held {
    pub(super) fn has_ended(&self, now: Boottime) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    pub(super) fn expiry(&self, now: Boottime) -> Expiry {
        self.remaining(now).map_or(Expiry::Never, Expiry::In)
    }

    fn remaining(&self, now: Boottime) -> Option<Duration> {
        self.ends.map(|ends| ends.since(now))
    }

    fn leader(&self, now: Boottime) -> Option<Leader> {
        let mut leader = Leader::new(self.grant.tokens.first(), self.value.clone()?);
        leader.holder = Some(self.by.clone());
        leader.remaining = self.remaining(now);
        Some(leader)
    }
}

impl Row {
    pub(super) fn new(defect: Option<Defect>) -> Self {
        Self {
            defect,
            counter: None,
            held: Vec::new(),
            waiting: VecDeque::new(),
            not_before: None,
            last_completed: None,
            hand_overs: 0,
            released: HashSet::new(),
            seen: None,
            former: None,
            looks: 0,
            lost_permits: 0,
        }
    }

    fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        self.held.first().map(|held| held.by.clone())
    }

    /// Whether a claim of this mode may hold beside those who do.
    pub(super) fn fits(&self, mode: Mode) -> bool {
        let mode = match mode {
            Mode::Permits { count, limit } if self.has(Defect::OneTooMany) => {
                Mode::Permits { count, limit: limit.saturating_add(1) }
            }
            Mode::Permits { count, limit } => {
                Mode::Permits { count: count.saturating_add(self.lost_permits), limit }
            }
            mode => mode,
        };
        mode.fits_beside(self.held.iter().map(|held| held.mode))
    }

    /// How many a claim of this mode has to wait for before it is its turn.
    pub(super) fn ahead(&self, claim: &Claim) -> usize {
        let place = self.waiting.iter().position(|(waiting, _)| waiting.id == claim.id);
        match place.unwrap_or(self.waiting.len()) {
            _ if claim.mode == Mode::Shared && self.has(Defect::PassedWriter) => 0,
            place => place,
        }
    }

    /// All who use it as a semaphore have to agree on how many permits there are.
    pub(super) fn check_limit(&self, claim: &Claim) -> Result<()> {
        let waiting = self.waiting.iter().filter(|(waiting, _)| waiting.id != claim.id);
        let modes = self.held.iter().map(|held| held.mode).chain(waiting.map(|(waiting, _)| waiting.mode));
        let mut limits = modes.filter_map(Mode::limit);
        match (claim.mode.limit(), limits.next()) {
            (Some(limit), Some(other)) if limit != other && !self.has(Defect::AnyLimit) => Err(Error::new(
                ErrorKind::LimitMismatch,
                format!("it is in use with a limit of {other} and was asked for with {limit}"),
            )),
            _ => Ok(()),
        }
    }

    /// How long the claim has to wait because what it wants to do was done.
    pub(super) fn interval_left(&self, claim: &Claim, now: Boottime) -> Option<Duration> {
        let due = self.last_completed?.after(claim.once_per()?);
        (due > now).then(|| due.since(now))
    }

    /// How long nobody gets it.
    pub(super) fn due_in(&self, now: Boottime) -> Option<Duration> {
        self.not_before.filter(|(due, _)| *due > now).map(|(due, _)| due.since(now))
    }

    /// When to look after it again: when somebody's time is up, or the minimum hold is over.
    pub(super) fn check_in(&self, now: Boottime) -> Option<Duration> {
        let ends = self.held.iter().filter_map(|held| held.remaining(now));
        ends.chain(self.due_in(now)).min().map(|left| left + Duration::from_millis(1))
    }

    /// Takes out those whose time is up. True if there were any.
    pub(super) fn reap(&mut self, now: Boottime) -> bool {
        let ended = self.held.iter().filter(|held| held.has_ended(now));
        let (mut count, mut permits) = (0, 0);
        for held in ended {
            count += 1;
            permits += held.mode.permits();
        }
        if count > 0 && self.has(Defect::BareCounter) {
            self.lost_permits += permits;
        }
        if count > 0 && self.has(Defect::ForgottenMinimum) {
            self.not_before = None;
        }
        self.held.retain(|held| !held.has_ended(now));
        count > 0
    }

    /// The step that grants, tokens and all.
    pub(super) fn grant(
        &mut self,
        claim: &Claim,
        ttl: Option<Duration>,
        events: Option<Events>,
        now: Boottime,
    ) -> Result<Grant> {
        let grant = Grant::new(claim, self.draw()?, ttl.map_or(Expiry::Never, Expiry::In));
        if let Some(least) = claim.min_hold() {
            self.not_before = Some((now.after(least), claim.id));
        }
        self.waiting.retain(|(waiting, _)| waiting.id != claim.id);
        self.held.push(Held {
            grant: grant.clone(),
            mode: claim.mode,
            value: claim.value().cloned(),
            ttl,
            ends: ttl.map(|ttl| now.after(ttl)),
            events,
            by: (*claim.holder).clone().with_since(SystemTime::now()),
            since: now,
        });
        Ok(grant)
    }

    pub(super) fn draw(&mut self) -> Result<TokenBlock> {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(clock.as_micros()).unwrap_or(u64::MAX);
        let tokens = match self.counter {
            None if self.has(Defect::ReusedToken) => TokenBlock::after(FORGOTTEN, clock),
            None => TokenBlock::without_counter(None, clock),
            Some(counter) => TokenBlock::after(counter, clock),
        };
        let tokens = tokens.ok_or_else(|| Error::new(ErrorKind::StoreFull, "the tokens are used up"))?;
        self.counter = Some(tokens.last().get());
        Ok(tokens)
    }

    /// Nobody has it and nobody wants it.
    pub(super) fn forget_if_idle(&mut self) {
        if self.has(Defect::ReusedToken) && self.held.is_empty() && self.waiting.is_empty() {
            self.counter = None;
        }
    }

    /// Who leads.
    pub(super) fn leader(&mut self, now: Boottime) -> Option<Leader> {
        let leader = self.held.first().and_then(|held| held.leader(now));
        if self.has(Defect::StaleLeader) {
            if self.seen.as_ref().map(|seen| seen.token) != leader.as_ref().map(|leader| leader.token) {
                self.former = std::mem::replace(&mut self.seen, leader.clone());
            }
            self.looks += 1;
            if self.looks.is_multiple_of(2) {
                return self.former.clone();
            }
        }
        leader
    }

    pub(super) fn state(&self, name: &LockName, now: Boottime) -> LockState {
        let mut state = LockState::free(name.clone());
        state.not_due_for = self.due_in(now);
        let holders = self.held.iter().filter(|held| !held.has_ended(now)).map(|held| {
            let mut holder = HeldBy::new(held.mode);
            holder.holder = Some(held.by.clone());
            holder.claim = Some(held.grant.claim);
            holder.token = Some(held.grant.tokens.first());
            holder.remaining = held.remaining(now);
            holder
        });
        state.holders = holders.collect();
        let waiters = self.waiting.iter().map(|(claim, _)| {
            let mut waiter = WaitingFor::new();
            waiter.mode = Some(claim.mode);
            waiter.holder = Some((*claim.holder).clone());
            waiter.claim = Some(claim.id);
            waiter
        });
        state.waiters = Some(waiters.collect());
        state
    }
}
