//! The claims that wait here.

use std::collections::HashMap;
use std::time::Duration;

use locks_api::Boottime;
use locks_api::spi::{Claim, ClaimId};

use super::key::Keys;
use super::line::Taken;

/// How long a lock is not asked for whose holder tells when it gives it back.
const ASKED_EVERY: Duration = Duration::from_millis(250);

/// The same for a lock whose holder is a transaction or another program, at first. It grows by half each time, to as much.
const ASKED_SOON: Duration = Duration::from_millis(2);

/// For each lock those of this process who wait for it.
///
/// Their session shares two advisory locks with those of others who wait: the bell, by which whoever gives the lock back sees that somebody is to be
/// told, and the one of its place among [so many](super::line::PLACES), by which it chooses whom to tell.
#[derive(Debug, Default)]
pub(crate) struct Waiters(HashMap<i64, Crowd>);

#[derive(Debug)]
struct Crowd {
    keys: Keys,
    claims: Vec<Claim>,
    /// Whether the session says so.
    is_announced: bool,
    ask_at: Boottime,
    pause: Duration,
}

impl Waiters {
    /// For how many locks somebody waits.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether these could wait beside those who do. A lock of another name with the same key is not theirs.
    pub(crate) fn may_wait(&self, keys: Keys) -> bool {
        self.0.get(&keys.key).is_none_or(|crowd| crowd.keys == keys)
    }

    /// Whether the session says that somebody waits for this lock.
    pub(crate) fn is_announced(&self, keys: Keys) -> bool {
        self.0.get(&keys.key).is_some_and(|crowd| crowd.is_announced)
    }

    /// The claim was refused, and waits.
    pub(crate) fn refused(&mut self, claim: &Claim, keys: Keys, is_announced: bool, taken: Taken) {
        let crowd = self.0.entry(keys.key).or_insert_with(|| Crowd {
            keys,
            claims: Vec::new(),
            is_announced,
            ask_at: Boottime::now(),
            pause: ASKED_SOON,
        });
        if crowd.claims.iter().all(|waiting| waiting.id != claim.id) {
            crowd.claims.push(claim.clone());
        }
        crowd.is_announced = is_announced;
        let is_told = is_announced && taken == Taken::Busy;
        crowd.pause = if is_told { ASKED_EVERY } else { crowd.pause.mul_f64(1.5).min(ASKED_EVERY) };
        crowd.ask_at = Boottime::now().after(crowd.pause.mul_f64(0.5 + fastrand::f64()));
    }

    /// The session says no more that somebody waits for this lock.
    pub(crate) fn withdrawn(&mut self, keys: Keys) {
        if let Some(crowd) = self.0.get_mut(&keys.key) {
            crowd.is_announced = false;
        }
    }

    /// The claim waits no more. What the session says in vain now is to be taken back.
    pub(crate) fn remove(&mut self, claim: ClaimId) -> Option<Keys> {
        let (key, crowd) = self.0.iter_mut().find_map(|(key, crowd)| {
            let at = crowd.claims.iter().position(|waiting| waiting.id == claim)?;
            crowd.claims.remove(at);
            Some((*key, crowd))
        })?;
        let told_in_vain = crowd.is_announced.then_some(crowd.keys);
        if !crowd.claims.is_empty() {
            return None;
        }
        self.0.remove(&key);
        told_in_vain
    }

    /// This lock is free, or was a moment ago.
    pub(crate) fn ask_now(&mut self, key: i64) {
        if let Some(crowd) = self.0.get_mut(&key) {
            crowd.ask_at = Boottime::now();
        }
    }

    /// The first of those who wait, for each lock that is to be asked for again. Whatever comes of it, they are not due again at once.
    pub(crate) fn due(&mut self, now: Boottime) -> Vec<(Claim, Keys)> {
        let mut due = Vec::new();
        for crowd in self.0.values_mut().filter(|crowd| crowd.ask_at <= now) {
            crowd.ask_at = now.after(ASKED_EVERY);
            due.extend(crowd.claims.first().map(|claim| (claim.clone(), crowd.keys)));
        }
        due
    }

    /// When the first is due.
    pub(crate) fn first_due(&self) -> Option<Boottime> {
        self.0.values().map(|crowd| crowd.ask_at).min()
    }

    /// Nobody waits any more. Whether somebody did.
    pub(crate) fn clear(&mut self) -> bool {
        let somebody = !self.0.is_empty();
        self.0.clear();
        somebody
    }
}
