//! What this process holds in its session.

use std::collections::HashMap;

use locks_api::Boottime;
use locks_api::spi::{Claim, ClaimId, Grant};

use super::key::Keys;

/// A claim that holds its lock.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) claim: Claim,
    pub(crate) grant: Grant,
    pub(crate) keys: Keys,
    /// When it is given back unless it is renewed.
    pub(crate) ends: Boottime,
}

/// All holds of a session. The server lets a session take the same advisory lock twice, so this is what keeps its claims apart.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    by_claim: HashMap<ClaimId, Hold>,
    by_key: HashMap<i64, ClaimId>,
}

impl Holds {
    pub(crate) fn len(&self) -> usize {
        self.by_claim.len()
    }

    pub(crate) fn of(&self, claim: ClaimId) -> Option<&Hold> {
        self.by_claim.get(&claim)
    }

    /// Exactly this grant, if it holds.
    pub(crate) fn same(&mut self, grant: &Grant) -> Option<&mut Hold> {
        self.by_claim.get_mut(&grant.claim).filter(|hold| hold.grant.is_same_as(grant))
    }

    /// Whoever has the advisory lock of this key.
    pub(crate) fn at(&self, keys: Keys) -> Option<&Hold> {
        self.by_claim.get(self.by_key.get(&keys.key)?)
    }

    pub(crate) fn insert(&mut self, hold: Hold) {
        self.by_key.insert(hold.keys.key, hold.claim.id);
        self.by_claim.insert(hold.claim.id, hold);
    }

    pub(crate) fn remove(&mut self, claim: ClaimId) -> Option<Hold> {
        let hold = self.by_claim.remove(&claim)?;
        self.by_key.remove(&hold.keys.key);
        Some(hold)
    }

    /// Those that nobody has renewed in time.
    pub(crate) fn expired(&self, now: Boottime) -> Vec<ClaimId> {
        self.by_claim.values().filter(|hold| hold.ends <= now).map(|hold| hold.claim.id).collect()
    }

    /// When the first one ends, unless it is renewed.
    pub(crate) fn first_end(&self) -> Option<Boottime> {
        self.by_claim.values().map(|hold| hold.ends).min()
    }

    /// When the last one ends, unless it is renewed.
    pub(crate) fn last_end(&self) -> Option<Boottime> {
        self.by_claim.values().map(|hold| hold.ends).max()
    }

    /// All of them; none is left.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Hold> + '_ {
        self.by_key.clear();
        self.by_claim.drain().map(|(_, hold)| hold)
    }
}
