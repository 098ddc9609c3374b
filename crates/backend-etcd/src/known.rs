//! What this process knows of its locks: what it holds, what it waits for, and the queues of the locks that it watches.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use locks_api::spi::{Claim, ClaimId, Events, Expiry, Grant, Mode, TokenBlock};
use locks_api::{Boottime, Error, ErrorKind, FencingToken, LockName, LossReason, Result};
use tokio::sync::Notify;

use crate::keys::Keys;
use crate::leases::Lease;
use crate::queue::{Queue, Standing};
use crate::record::{Record, wall_clock};
use crate::view::View;

/// After so long a hold is watched. Most are shorter.
const WATCHED_AFTER: Duration = Duration::from_millis(250);

/// When to try again to delete what could not be deleted.
const DELETED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) keys: Keys,
    events: OnceLock<Events>,
    state: Mutex<State>,
    /// Wakes the watcher.
    pub(crate) wake: Notify,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) views: HashMap<LockName, View>,
    pub(crate) holds: HashMap<ClaimId, Hold>,
    /// When holds end that nobody renews.
    ends: BTreeSet<(Boottime, ClaimId)>,
    /// When holds are to be watched.
    unwatched: BTreeSet<(Boottime, ClaimId)>,
    /// Keys of ours that are to be deleted, with their create revisions.
    owed: Vec<(Vec<u8>, i64)>,
    owed_at: Option<Boottime>,
    /// When minimum holds end, with their leases.
    rests: BTreeSet<(Boottime, i64)>,
    /// The locks whose watches are to be looked at.
    pub(crate) changed: HashSet<LockName>,
    /// When watches without interest are to be looked at.
    pub(crate) idle: BTreeSet<(Boottime, LockName)>,
    /// The locks that are watched, by the number of the watch.
    pub(crate) watched: HashMap<i64, LockName>,
    /// The locks whose queues have to be read.
    pub(crate) unread: Vec<LockName>,
    pub(crate) last_watch: i64,
}

/// A claim that holds.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) name: LockName,
    pub(crate) key: Vec<u8>,
    pub(crate) created: i64,
    pub(crate) tokens: TokenBlock,
    pub(crate) record: Record,
    pub(crate) lease: Arc<Lease>,
    pub(crate) ttl: Duration,
    /// When it ends unless it is renewed, also if its lease lives on.
    pub(crate) ends: Boottime,
    /// When its minimum hold is over.
    pub(crate) rests_until: Option<Boottime>,
    /// Somebody of us is about to delete its key.
    pub(crate) leaves: bool,
    asked: bool,
}

/// A claim that is in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) claim: Claim,
    pub(crate) key: Vec<u8>,
    pub(crate) created: i64,
    pub(crate) lease: Arc<Lease>,
    pub(crate) ttl: Duration,
    hinted: bool,
}

/// The tokens of a grant whose key was created at this revision. Only who holds alone hands the lock on by himself and has a use for more than one.
pub(crate) fn tokens(created: i64, record: &Record) -> Result<TokenBlock> {
    let used_up = || Error::new(ErrorKind::StoreFull, "the fencing tokens are used up");
    let len = if record.mode == Mode::Exclusive { TokenBlock::MAX_LEN } else { 1 };
    let first =
        created.unsigned_abs().checked_mul(u64::from(TokenBlock::MAX_LEN)).and_then(FencingToken::new);
    first.and_then(|first| TokenBlock::new(first, len)).ok_or_else(used_up)
}

/// The revision at which the key of this grant was created.
pub(crate) fn created(grant: &Grant) -> i64 {
    i64::try_from(grant.tokens.first().get() / u64::from(TokenBlock::MAX_LEN)).unwrap_or(i64::MAX)
}

impl Known {
    pub(crate) fn new(keys: Keys) -> Self {
        Self {
            keys,
            events: OnceLock::new(),
            state: Mutex::default(),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn subscribe(&self, events: Events) {
        self.events.get_or_init(|| events);
    }

    pub(crate) fn events(&self) -> Option<&Events> {
        self.events.get()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The cluster is another one: nothing is held and nothing is known.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        let last_watch = state.last_watch;
        let State { holds, .. } = std::mem::replace(&mut *state, State { last_watch, ..State::default() });
        if let Some(events) = self.events() {
            for (claim, hold) in holds {
                events.lost(hold.name, claim, Some(hold.tokens.last()), LossReason::StoreReset);
            }
            events.reset();
        }
        drop(state);
        self.wake.notify_one();
    }

    /// The claim holds since the answer to what was sent at `sent`.
    pub(crate) fn grant(&self, granted: Granted<'_>) -> Result<Grant> {
        let Granted { claim, key, created, record, lease, ttl, sent, rests_until } = granted;
        let tokens = tokens(created, &record)?;
        let ends = lease.ends().min(sent.after(ttl));
        let mut state = self.state();
        state.drop_waiting(claim);
        let name = claim.name.clone();
        let (leaves, asked) = (false, false);
        let lease = Arc::clone(lease);
        let hold = Hold { name, key, created, tokens, record, lease, ttl, ends, rests_until, leaves, asked };
        if self.hold(&mut state, claim.id, hold) {
            self.wake.notify_one();
        }
        drop(state);
        Ok(Grant::new(claim, tokens, Expiry::In(ends.since(sent))))
    }

    /// The claim waits in this queue, as it was at `revision`.
    pub(crate) fn wait(&self, waiting: Waiting, queue: Queue, revision: i64) {
        let mut state = self.state();
        let name = waiting.claim.name.clone();
        let view = state.views.entry(name.clone()).or_default();
        view.read(queue, revision);
        view.waiting.insert(waiting.claim.id, waiting);
        state.changed.insert(name.clone());
        self.evaluate(&mut state, &name);
        drop(state);
        self.wake.notify_one();
    }

    /// The claim waits and holds no more, since it is about to be cancelled.
    pub(crate) fn forget(&self, claim: &Claim) {
        let mut state = self.state();
        state.drop_waiting(claim);
        state.drop_hold(claim.id);
    }

    /// The hold of exactly this grant, which is about to be given back.
    pub(crate) fn leave(&self, grant: &Grant) -> Option<Hold> {
        let mut state = self.state();
        let hold = state.holds.get_mut(&grant.claim).filter(|hold| hold.created == created(grant))?;
        hold.leaves = true;
        Some(hold.clone())
    }

    /// The key of exactly this grant is gone.
    pub(crate) fn left(&self, grant: &Grant) {
        let mut state = self.state();
        if state.holds.get(&grant.claim).is_some_and(|hold| hold.created == created(grant)) {
            state.drop_hold(grant.claim);
        }
    }

    /// The hold of exactly this grant.
    pub(crate) fn hold_of(&self, grant: &Grant) -> Option<Hold> {
        let state = self.state();
        state.holds.get(&grant.claim).filter(|hold| hold.created == created(grant)).cloned()
    }

    /// What this claim holds, whatever its grant.
    pub(crate) fn hold_by(&self, claim: ClaimId) -> Option<Hold> {
        self.state().holds.get(&claim).cloned()
    }

    /// Changes what is known of the hold of exactly this grant.
    pub(crate) fn update(&self, grant: &Grant, change: impl FnOnce(&mut Hold)) {
        self.state().change(grant, change);
    }

    /// Exactly this grant is a shared one from now on, with the tokens that it has.
    pub(crate) fn downgraded(&self, grant: &Grant) {
        self.update(grant, |hold| hold.record.mode = Mode::Shared);
    }

    /// All keys that a lease carries and that live, with their create revisions.
    pub(crate) fn carried_by(&self, lease: i64) -> Vec<(ClaimId, Vec<u8>, i64)> {
        let state = self.state();
        let holds = state.holds.iter().filter(|(_, hold)| hold.lease.id == lease && !hold.leaves);
        let holds = holds.map(|(claim, hold)| (*claim, hold.key.clone(), hold.created));
        let waiting = state.views.values().flat_map(|view| view.waiting.iter());
        let waiting = waiting.filter(|(_, waiting)| waiting.lease.id == lease);
        holds.chain(waiting.map(|(claim, waiting)| (*claim, waiting.key.clone(), waiting.created))).collect()
    }

    /// These claims are carried by another lease.
    pub(crate) fn moved(&self, claims: &[ClaimId], lease: &Arc<Lease>) {
        let mut state = self.state();
        for claim in claims {
            if let Some(hold) = state.holds.get_mut(claim) {
                hold.lease = Arc::clone(lease);
            }
            for view in state.views.values_mut() {
                if let Some(waiting) = view.waiting.get_mut(claim) {
                    waiting.lease = Arc::clone(lease);
                }
            }
        }
    }

    pub(crate) fn is_holding(&self) -> bool {
        !self.state().holds.is_empty()
    }

    /// The minimum hold on this lease is over at this instant.
    pub(crate) fn rest_until(&self, until: Boottime, lease: i64) {
        self.state().rests.insert((until, lease));
        self.wake.notify_one();
    }

    /// When something is due next.
    pub(crate) fn next_due(&self) -> Option<Boottime> {
        let state = self.state();
        let ends = state.ends.first().map(|(at, _)| *at);
        let unwatched = state.unwatched.first().map(|(at, _)| *at);
        let rests = state.rests.first().map(|(at, _)| *at);
        let idle = state.idle.first().map(|(at, _)| *at);
        [ends, unwatched, rests, idle, state.owed_at].into_iter().flatten().min()
    }

    /// These keys could not be deleted now.
    pub(crate) fn owe(&self, keys: Vec<(Vec<u8>, i64)>) {
        let mut state = self.state();
        state.owed.extend(keys);
        state.owed_at = Some(Boottime::now().after(DELETED_AGAIN_AFTER));
    }

    /// What is due now: the minimum holds that are over, by lease, and the keys of holds that have ended without a renewal. Holds that last for a while are watched from
    /// now on.
    pub(crate) fn due(&self) -> (Vec<i64>, Vec<(Vec<u8>, i64)>) {
        let now = Boottime::now();
        let mut state = self.state();
        while let Some(&(at, claim)) = state.unwatched.first().filter(|(at, _)| *at <= now) {
            state.unwatched.remove(&(at, claim));
            let Some(name) = state.holds.get(&claim).map(|hold| hold.name.clone()) else { continue };
            state.views.entry(name.clone()).or_default().held.insert(claim);
            state.changed.insert(name.clone());
            // It may have gone before that, in sight of a watch that was there for another one.
            self.evaluate(&mut state, &name);
        }
        while let Some((at, name)) = state.idle.first().filter(|(at, _)| *at <= now).cloned() {
            state.idle.remove(&(at, name.clone()));
            state.changed.insert(name);
        }
        let mut rests = Vec::new();
        while let Some(&(at, lease)) = state.rests.first().filter(|(at, _)| *at <= now) {
            state.rests.remove(&(at, lease));
            rests.push(lease);
        }
        let mut ended = Vec::new();
        if state.owed_at.take_if(|at| *at <= now).is_some() {
            ended = std::mem::take(&mut state.owed);
        }
        while let Some(&(at, claim)) = state.ends.first().filter(|(at, _)| *at <= now) {
            state.ends.remove(&(at, claim));
            ended.extend(state.drop_hold(claim).map(|hold| (hold.key, hold.created)));
        }
        (rests, ended)
    }

    /// The value of this lock, or who has it, is of interest.
    pub(crate) fn follow(&self, name: &LockName) {
        let mut state = self.state();
        state.views.entry(name.clone()).or_default().followed = true;
        state.changed.insert(name.clone());
        drop(state);
        self.wake.notify_one();
    }

    pub(crate) fn unfollow(&self, name: &LockName) {
        let mut state = self.state();
        if let Some(view) = state.views.get_mut(name) {
            view.followed = false;
            state.changed.insert(name.clone());
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws the conclusions from what the view of this lock shows.
    pub(crate) fn evaluate(&self, state: &mut State, name: &LockName) {
        let Some(events) = self.events() else { return };
        let State { views, holds, .. } = &mut *state;
        let Some(view) = views.get_mut(name) else { return };
        let mut gone = Vec::new();
        for claim in &view.held {
            let Some(hold) = holds.get_mut(claim) else {
                gone.push((*claim, None));
                continue;
            };
            match view.queue().find(*claim).filter(|entry| entry.created == hold.created) {
                Some(entry) if entry.record.asked && !hold.asked => {
                    hold.asked = true;
                    events.asked(name.clone(), *claim);
                }
                Some(_) => {}
                None if view.shows(hold.created) && !hold.leaves => {
                    let reason =
                        if hold.lease.is_gone() { LossReason::SessionGone } else { LossReason::Revoked };
                    gone.push((*claim, Some(reason)));
                }
                None => {}
            }
        }
        let mut granted = Vec::new();
        let mut hint = false;
        for (claim, standing) in view.standings_of_waiting() {
            let Some(waiting) = view.waiting.get_mut(&claim) else { continue };
            match standing {
                Some(Standing::Holds) => granted.push(claim),
                // It has to be confirmed, which its next step does.
                Some(Standing::HasItsTurn) => hint |= !std::mem::replace(&mut waiting.hinted, true),
                Some(Standing::Waits { .. }) => {}
                None => {
                    // Its lease has ended, or somebody deleted its key: it has to get in line again.
                    view.waiting.remove(&claim);
                    hint = true;
                }
            }
        }
        let granted: Vec<(Waiting, i64, Record)> = granted
            .into_iter()
            .filter_map(|claim| {
                let entry = view.queue().find(claim)?;
                let (carrier, mut record) = (entry.lease, entry.record.clone());
                record.since = wall_clock();
                Some((view.waiting.remove(&claim)?, carrier, record))
            })
            .collect();
        for (claim, _) in &gone {
            view.held.remove(claim);
        }
        for (claim, reason) in gone {
            if let (Some(hold), Some(reason)) = (state.drop_hold(claim), reason) {
                events.lost(name.clone(), claim, Some(hold.tokens.last()), reason);
            }
        }
        for (waiting, carrier, record) in granted {
            // A step may have moved it to another lease and not have heard of that.
            hint |= carrier != waiting.lease.id || !self.push(state, waiting, record, events);
        }
        if hint {
            events.hint(name.clone());
        }
    }

    /// Tells that a claim that waited holds. False if it is to ask instead.
    fn push(&self, state: &mut State, waiting: Waiting, record: Record, events: &Events) -> bool {
        let Waiting { claim, key, created, lease, ttl, .. } = waiting;
        let since = lease.kept_at();
        let ends = lease.ends().min(since.after(ttl));
        let Ok(tokens) = tokens(created, &record) else { return false };
        if lease.is_gone() || ends <= Boottime::now() {
            return false;
        }
        let (leaves, asked, rests_until) = (false, false, None);
        let name = claim.name.clone();
        let hold = Hold { name, key, created, tokens, record, lease, ttl, ends, rests_until, leaves, asked };
        self.hold(state, claim.id, hold);
        events.granted(Grant::new(&claim, tokens, Expiry::In(ends.since(since))), Some(since));
        true
    }

    /// Writes down a hold. True if the watcher is to look when it is next due.
    fn hold(&self, state: &mut State, claim: ClaimId, hold: Hold) -> bool {
        state.drop_hold(claim);
        let first = state.ends.first().copied();
        state.ends.insert((hold.ends, claim));
        let watched_at = Boottime::now().after(WATCHED_AFTER);
        match state.views.get_mut(&hold.name) {
            Some(view) => {
                view.held.insert(claim);
                state.changed.insert(hold.name.clone());
            }
            None => {
                state.unwatched.insert((watched_at, claim));
            }
        }
        state.holds.insert(claim, hold);
        first.is_none_or(|(at, _)| at > watched_at)
    }
}

impl State {
    /// Changes what is known of the hold of exactly this grant, if there is one.
    pub(crate) fn change<T>(&mut self, grant: &Grant, change: impl FnOnce(&mut Hold) -> T) -> Option<T> {
        let hold = self.holds.get_mut(&grant.claim).filter(|hold| hold.created == created(grant))?;
        self.ends.remove(&(hold.ends, grant.claim));
        let changed = change(hold);
        self.ends.insert((hold.ends, grant.claim));
        Some(changed)
    }

    pub(crate) fn drop_hold(&mut self, claim: ClaimId) -> Option<Hold> {
        let hold = self.holds.remove(&claim)?;
        self.ends.remove(&(hold.ends, claim));
        if let Some(view) = self.views.get_mut(&hold.name) {
            view.held.remove(&claim);
            self.changed.insert(hold.name.clone());
        }
        Some(hold)
    }

    fn drop_waiting(&mut self, claim: &Claim) {
        if let Some(view) = self.views.get_mut(&claim.name)
            && view.waiting.remove(&claim.id).is_some()
        {
            self.changed.insert(claim.name.clone());
        }
    }
}

impl Waiting {
    pub(crate) fn new(claim: &Claim, key: Vec<u8>, created: i64, lease: &Arc<Lease>, ttl: Duration) -> Self {
        Self { claim: claim.clone(), key, created, lease: Arc::clone(lease), ttl, hinted: false }
    }
}

/// A claim that was granted in the answer to a step.
#[derive(Debug)]
pub(crate) struct Granted<'a> {
    pub(crate) claim: &'a Claim,
    pub(crate) key: Vec<u8>,
    pub(crate) created: i64,
    pub(crate) record: Record,
    pub(crate) lease: &'a Arc<Lease>,
    pub(crate) ttl: Duration,
    pub(crate) sent: Boottime,
    pub(crate) rests_until: Option<Boottime>,
}

/// Those who hold, by lock.
pub(crate) type Held = HashSet<ClaimId>;
