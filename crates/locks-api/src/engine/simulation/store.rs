//! The simulated store.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::busy::Busy;
use crate::clock::Boottime;
use crate::loss::LossReason;
use crate::name::LockName;
use crate::spi::{Attempt, Claim, ClaimId, Expiry, Grant, InstanceId, Mode, Released, Renewed, TokenBlock};
use crate::token::FencingToken;

/// What a store can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It grants at once after it has forgotten its grants.
    NoGrace,
    /// A renewal revives a grant that has expired.
    ResurrectingRenewal,
    /// Whoever releases frees the lock, whoever holds it.
    ReleaseByAnyone,
    /// After it has forgotten its counters it starts again from a smaller number.
    ReusedToken,
    /// It frees a lock without telling those who wait, and they are never asked to look.
    LostWakeUp,
    /// It gives out one permit more than there are.
    OnePermitTooMany,
    /// It lets a reader in beside a writer.
    ReaderBesideWriter,
    /// It grants a lock before its minimum hold is over.
    ShortMinimumHold,
    /// It says that a grant was taken back, and keeps it.
    KeptRelease,
}

impl Flaw {
    pub(super) const ALL: [Self; 9] = [
        Self::NoGrace,
        Self::ResurrectingRenewal,
        Self::ReleaseByAnyone,
        Self::ReusedToken,
        Self::LostWakeUp,
        Self::OnePermitTooMany,
        Self::ReaderBesideWriter,
        Self::ShortMinimumHold,
        Self::KeptRelease,
    ];

    /// How the violation that it leads to begins.
    pub(super) fn violates(self) -> &'static str {
        match self {
            Self::NoGrace | Self::ResurrectingRenewal | Self::ReleaseByAnyone => "exclusion",
            Self::OnePermitTooMany | Self::ReaderBesideWriter => "exclusion",
            Self::ReusedToken => "token order",
            Self::LostWakeUp => "liveness",
            Self::ShortMinimumHold => "minimum hold",
            Self::KeptRelease => "leftovers",
        }
    }
}

/// What the store tells a process on its own.
#[derive(Clone, Debug)]
pub(super) enum Push {
    Granted(Grant, Option<Boottime>),
    Lost(LockName, ClaimId, LossReason),
    Hint(LockName),
}

#[derive(Clone, Debug)]
pub(super) struct Store {
    flaw: Option<Flaw>,
    queue: bool,
    /// Whether its pushes say when the grant was written, and hand it over for a short time only.
    tells_time: bool,
    grace: Duration,
    rows: BTreeMap<LockName, Row>,
    /// Counts the times it has forgotten something.
    pub(super) epoch: u64,
    grace_until: Boottime,
    /// When it granted what, by the last token of each grant.
    granted: BTreeMap<(LockName, FencingToken), Boottime>,
    pub(super) pushes: Vec<(InstanceId, Push)>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    counter: Option<(u64, u64)>,
    held: Vec<Held>,
    waiting: VecDeque<(Claim, Boottime)>,
    not_before: Option<(Boottime, ClaimId)>,
}

#[derive(Clone, Debug)]
struct Held {
    grant: Grant,
    instance: InstanceId,
    mode: Mode,
    ttl: Duration,
    ends: Boottime,
}

impl Row {
    /// Whether a claim may hold beside those who do, as far as this store cares.
    fn fits(&self, mode: Mode, flaw: Option<Flaw>) -> bool {
        let others = self.held.iter().map(|held| held.mode);
        match (flaw, mode) {
            (Some(Flaw::OnePermitTooMany), Mode::Permits { count, limit }) => {
                Mode::Permits { count, limit: limit + 1 }.fits_beside(others)
            }
            (Some(Flaw::ReaderBesideWriter), Mode::Shared) => true,
            _ => mode.fits_beside(others),
        }
    }

    /// Until when nobody gets it.
    fn not_due(&self, now: Boottime) -> Option<Boottime> {
        self.not_before.map(|(until, _)| until).filter(|until| *until > now)
    }
}

impl Store {
    pub(super) fn new(flaw: Option<Flaw>, queue: bool, tells_time: bool, grace: Duration) -> Self {
        Self {
            flaw,
            queue,
            tells_time,
            grace,
            rows: BTreeMap::new(),
            epoch: 1,
            grace_until: Boottime::from_nanos(0),
            granted: BTreeMap::new(),
            pushes: Vec::new(),
        }
    }

    /// Comes back with an older state, or with none.
    pub(super) fn forget(&mut self, restored: Option<Self>, now: Boottime) {
        self.rows = restored.map(|older| older.rows).unwrap_or_default();
        self.epoch += 1;
        if self.flaw != Some(Flaw::NoGrace) {
            self.grace_until = now.after(self.grace);
        }
    }

    pub(super) fn acquire(&mut self, claim: &Claim, now: Boottime) -> Attempt {
        self.reap(&claim.name, now);
        let ttl = claim.ttl.unwrap_or(self.grace);
        let row = self.rows.entry(claim.name.clone()).or_default();
        if let Some(held) = row.held.iter().find(|held| held.grant.claim == claim.id) {
            return Attempt::Granted(Grant::new(claim, held.grant.tokens, Expiry::In(held.ends.since(now))));
        }
        if now < self.grace_until {
            return Attempt::Busy(Busy::Grace { remaining: self.grace_until.since(now) });
        }
        let place = row.waiting.iter().position(|(waiter, _)| waiter.id == claim.id);
        let not_due = row.not_due(now);
        let is_first = place.unwrap_or(row.waiting.len()) == 0;
        if is_first && not_due.is_none() && row.fits(claim.mode, self.flaw) {
            return Attempt::Granted(self.grant(claim, ttl, ttl, now));
        }
        if !claim.may_wait || !self.queue {
            return match not_due {
                Some(until) if row.held.is_empty() => {
                    Attempt::Busy(Busy::NotDue { remaining: until.since(now) })
                }
                _ => Attempt::held(None),
            };
        }
        let gone_at = now.after(ttl);
        match place {
            Some(place) => row.waiting[place].1 = gone_at,
            None => row.waiting.push_back((claim.clone(), gone_at)),
        }
        let ends = row.held.iter().map(|held| held.ends).chain(not_due).min().unwrap_or(now);
        let check_in = (self.flaw != Some(Flaw::LostWakeUp))
            .then(|| ends.since(now).min(ttl / 3) + Duration::from_millis(1));
        Attempt::Queued { position: None, by: None, check_in }
    }

    pub(super) fn cancel(&mut self, claim: &Claim, now: Boottime) {
        let Some(row) = self.rows.get_mut(&claim.name) else { return };
        row.waiting.retain(|(waiter, _)| waiter.id != claim.id);
        row.held.retain(|held| held.grant.claim != claim.id);
        row.not_before = row.not_before.filter(|(_, by)| *by != claim.id);
        self.freed(&claim.name, now);
    }

    pub(super) fn release(&mut self, grant: &Grant, now: Boottime) -> Released {
        let anyone = self.flaw == Some(Flaw::ReleaseByAnyone);
        let Some(row) = self.rows.get_mut(&grant.name) else { return Released::NotHeld };
        let Some(at) = row.held.iter().position(|held| held.grant.is_same_as(grant) || anyone) else {
            return Released::NotHeld;
        };
        if self.flaw == Some(Flaw::KeptRelease) {
            return Released::Done;
        }
        let held = row.held.remove(at);
        self.freed(&grant.name, now);
        if held.ends > now { Released::Done } else { Released::NotHeld }
    }

    pub(super) fn renew(&mut self, grant: &Grant, now: Boottime) -> Renewed {
        let (grace, flaw) = (now < self.grace_until, self.flaw);
        let row = self.rows.get_mut(&grant.name);
        let held = row.and_then(|row| row.held.iter_mut().find(|held| held.grant.is_same_as(grant)));
        match held {
            Some(held) if held.ends > now => {
                held.ends = now.after(held.ttl);
                Renewed::Extended(Expiry::In(held.ttl))
            }
            _ if flaw == Some(Flaw::ResurrectingRenewal) => Renewed::Extended(Expiry::In(self.grace)),
            Some(_) => Renewed::Lost(LossReason::Expired),
            None => Renewed::Lost(if grace { LossReason::StoreReset } else { LossReason::Taken }),
        }
    }

    pub(super) fn grants(&self, instance: InstanceId) -> Vec<Grant> {
        let held = self.rows.values().flat_map(|row| &row.held);
        held.filter(|held| held.instance == instance).map(|held| held.grant.clone()).collect()
    }

    /// When it granted the block that this token is of.
    pub(super) fn granted_at(&self, name: &LockName, token: FencingToken) -> Option<Boottime> {
        let from = self.granted.range((name.clone(), token)..).next();
        from.filter(|((lock, _), _)| lock == name).map(|(_, at)| *at)
    }

    /// Claims that hold or wait and have not expired, of one process or of all.
    pub(super) fn live_claims(&self, of: Option<InstanceId>, now: Boottime) -> usize {
        let counts =
            |instance: InstanceId, ends: Boottime| ends > now && of.is_none_or(|wanted| wanted == instance);
        let rows = self.rows.values();
        rows.map(|row| {
            row.held.iter().filter(|held| counts(held.instance, held.ends)).count()
                + row.waiting.iter().filter(|(waiter, gone_at)| counts(waiter.instance, *gone_at)).count()
        })
        .sum()
    }

    fn reap(&mut self, name: &LockName, now: Boottime) {
        let Some(row) = self.rows.get_mut(name) else { return };
        for held in row.held.iter().filter(|held| held.ends <= now) {
            let lost = Push::Lost(name.clone(), held.grant.claim, LossReason::Expired);
            self.pushes.push((held.instance, lost));
        }
        row.held.retain(|held| held.ends > now);
        self.hand_over(name, now);
    }

    /// Somebody holds the lock no more: whoever is next gets it, or is to ask when it is due.
    fn freed(&mut self, name: &LockName, now: Boottime) {
        self.hand_over(name, now);
        let Some(row) = self.rows.get(name).filter(|row| row.not_due(now).is_some()) else { return };
        for (waiter, _) in &row.waiting {
            self.pushes.push((waiter.instance, Push::Hint(name.clone())));
        }
    }

    fn hand_over(&mut self, name: &LockName, now: Boottime) {
        while now >= self.grace_until
            && let Some(row) = self.rows.get_mut(name)
        {
            row.waiting.retain(|(_, gone_at)| *gone_at > now);
            let Some((next, _)) = row.waiting.front() else { return };
            if row.not_due(now).is_some() || !row.fits(next.mode, self.flaw) {
                return;
            }
            let next = next.clone();
            let ttl = next.ttl.unwrap_or(self.grace);
            let grant = self.grant(&next, ttl, if self.tells_time { ttl / 2 } else { ttl }, now);
            if self.flaw != Some(Flaw::LostWakeUp) {
                self.pushes.push((next.instance, Push::Granted(grant, self.tells_time.then_some(now))));
            }
        }
    }

    fn grant(&mut self, claim: &Claim, ttl: Duration, life: Duration, now: Boottime) -> Grant {
        let (epoch, flaw) = (self.epoch, self.flaw);
        let row = self.rows.entry(claim.name.clone()).or_default();
        let clock = now.as_nanos() / 1_000;
        let tokens = match row.counter {
            Some((counter, written)) if written == epoch => TokenBlock::after(counter, clock),
            Some((counter, _)) if flaw == Some(Flaw::ReusedToken) => TokenBlock::after(counter, clock),
            None if flaw == Some(Flaw::ReusedToken) => TokenBlock::after(0, 100),
            counter => TokenBlock::without_counter(counter.map(|(counter, _)| counter), clock),
        };
        let tokens = tokens.expect("the simulation ends before the year 2255");
        let grant = Grant::new(claim, tokens, Expiry::In(life));
        row.counter = Some((tokens.last().get(), epoch));
        row.waiting.retain(|(waiter, _)| waiter.id != claim.id);
        self.granted.insert((claim.name.clone(), tokens.last()), now);
        if let Some(least) = claim.min_hold().filter(|_| flaw != Some(Flaw::ShortMinimumHold)) {
            row.not_before = Some((now.after(least), claim.id));
        }
        let (instance, mode, ends) = (claim.instance, claim.mode, now.after(life));
        row.held.push(Held { grant: grant.clone(), instance, mode, ttl, ends });
        grant
    }
}
