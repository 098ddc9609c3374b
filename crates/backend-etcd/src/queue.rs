//! A lock as its keys tell it: who holds it and who waits, in the order in which their claims were created.
//!
//! Nothing else is written down: a claim holds when it fits beside all that are before it. So whoever reads the keys at one revision knows who holds at that
//! revision, and since a claim only ever moves forward, who holds goes on holding until its own key goes.

use std::collections::BTreeMap;
use std::time::Duration;

use locks_api::spi::{ClaimId, Mode};
use locks_api::{Busy, Result};

use crate::keys::{Keys, Part};
use crate::messages::KeyValue;
use crate::record::{Record, Rest};

/// All there is of a lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    claims: BTreeMap<i64, Entry>,
    rests: Vec<Resting>,
}

/// A claim in it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) claim: ClaimId,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) lease: i64,
    pub(crate) record: Record,
}

#[derive(Clone, Debug)]
struct Resting {
    claim: ClaimId,
    /// The create revision of that claim.
    created: i64,
    rest: Rest,
}

/// How a claim stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Holds,
    /// It will hold once it is confirmed.
    HasItsTurn,
    Waits {
        /// How many who wait are before it.
        ahead: u64,
    },
}

impl Queue {
    /// What these keys and values tell.
    pub(crate) fn read(keys: &Keys, kvs: Vec<KeyValue>) -> Result<Self> {
        let mut queue = Self::default();
        for kv in kvs {
            queue.put(keys, kv)?;
        }
        Ok(queue)
    }

    /// A key was written.
    pub(crate) fn put(&mut self, keys: &Keys, kv: KeyValue) -> Result<()> {
        match keys.parse(&kv.key) {
            Some((_, Part::Claim(claim) | Part::Permits(claim, _))) => {
                let record = Record::decode(&kv.value)?;
                let KeyValue { key, created, modified, lease, .. } = kv;
                self.claims.insert(created, Entry { key, claim, created, modified, lease, record });
            }
            Some((_, Part::Rest(claim))) => {
                let rest = Rest::decode(&kv.value)?;
                let created = if rest.created == 0 { kv.created } else { rest.created };
                self.rests.retain(|other| other.claim != claim);
                self.rests.push(Resting { claim, created, rest });
            }
            None => {}
        }
        Ok(())
    }

    /// A key is gone. The claim, if it was one's.
    pub(crate) fn remove(&mut self, keys: &Keys, key: &[u8]) -> Option<Entry> {
        match keys.parse(key)?.1 {
            Part::Claim(claim) | Part::Permits(claim, _) => {
                let created = self.find(claim).filter(|entry| entry.key == key)?.created;
                self.claims.remove(&created)
            }
            Part::Rest(claim) => {
                self.rests.retain(|resting| resting.claim != claim);
                None
            }
        }
    }

    pub(crate) fn find(&self, claim: ClaimId) -> Option<&Entry> {
        self.claims.values().find(|entry| entry.claim == claim)
    }

    /// The first claim, which holds if anybody does.
    pub(crate) fn first(&self) -> Option<&Entry> {
        self.claims.values().next()
    }

    /// Every claim and how it stands, in order.
    pub(crate) fn standings(&self) -> impl Iterator<Item = (&Entry, Standing)> {
        let mut before = Before::default();
        self.claims.values().map(move |entry| {
            let standing = self.standing_after(&before, entry);
            before.add(entry, standing);
            (entry, standing)
        })
    }

    /// Those who hold, in the order of their grants.
    pub(crate) fn holders(&self) -> impl Iterator<Item = &Entry> {
        self.standings().filter(|(_, standing)| *standing == Standing::Holds).map(|(entry, _)| entry)
    }

    /// How this claim stands, if it is there.
    pub(crate) fn standing(&self, claim: ClaimId) -> Option<(&Entry, Standing)> {
        self.standings().find(|(entry, _)| entry.claim == claim)
    }

    /// Whether a claim of this mode would hold at once if it came now.
    pub(crate) fn has_room_for(&self, mode: Mode) -> bool {
        let mut before = Before::default();
        for (entry, standing) in self.standings() {
            before.add(entry, standing);
        }
        before.has_room_for(mode) && self.rests.is_empty()
    }

    /// The other limit that is in force because somebody else holds or awaits permits.
    pub(crate) fn other_limit(&self, claim: ClaimId, mode: Mode) -> Option<u32> {
        let limit = mode.limit()?;
        let others = self.claims.values().filter(|entry| entry.claim != claim);
        others.filter_map(|entry| entry.record.mode.limit()).find(|other| *other != limit)
    }

    /// What somebody is told who has no room.
    pub(crate) fn refusal(&self) -> Busy {
        match (self.first(), self.rests_for()) {
            (None, Some(remaining)) => Busy::NotDue { remaining },
            (first, _) => Busy::Held { by: first.map(|entry| entry.record.holder()) },
        }
    }

    /// How long nobody gets it because of a minimum hold.
    pub(crate) fn rests_for(&self) -> Option<Duration> {
        self.rests.iter().map(|resting| resting.rest.remaining()).max()
    }

    fn standing_after(&self, before: &Before, entry: &Entry) -> Standing {
        let rests =
            self.rests.iter().any(|other| other.claim != entry.claim && other.created < entry.created);
        if rests || !before.has_room_for(entry.record.mode) {
            Standing::Waits { ahead: before.waiting }
        } else if entry.record.unconfirmed {
            Standing::HasItsTurn
        } else {
            Standing::Holds
        }
    }
}

/// All claims before one.
#[derive(Debug, Default)]
struct Before {
    /// How many of them wait as well.
    waiting: u64,
    /// What all of them are.
    mode: Option<Mode>,
    permits: u64,
    /// Nobody has room: they are of several kinds, or one of them will decide more when it is confirmed.
    full: bool,
}

impl Before {
    fn has_room_for(&self, mode: Mode) -> bool {
        let fits = self.mode.is_none_or(|other| mode.is_compatible(other));
        let permits = self.permits + u64::from(mode.permits());
        !self.full && fits && mode.limit().is_none_or(|limit| permits <= u64::from(limit))
    }

    fn add(&mut self, entry: &Entry, standing: Standing) {
        let mode = entry.record.mode;
        self.full |=
            self.mode.is_some_and(|other| !mode.is_compatible(other)) || standing == Standing::HasItsTurn;
        self.full |= entry.record.unconfirmed;
        self.waiting += u64::from(standing != Standing::Holds);
        self.permits += u64::from(mode.permits());
        self.mode = Some(mode);
    }
}

#[cfg(test)]
mod tests {
    use locks_api::LockName;
    use locks_api::spi::{Claim, InstanceId};

    use super::*;

    struct Made {
        keys: Keys,
        name: LockName,
        queue: Queue,
        revision: i64,
    }

    impl Made {
        fn new() -> Self {
            let name = LockName::new("a").unwrap();
            Self { keys: Keys::new("locks"), name, queue: Queue::default(), revision: 10 }
        }

        fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
            self.revision += 1;
            let (created, modified) = (self.revision, self.revision);
            self.queue.put(&self.keys, KeyValue { key, created, modified, value, lease: 1 }).unwrap();
        }

        fn claim(&mut self, mode: Mode) -> ClaimId {
            self.claim_that(mode, false)
        }

        fn claim_that(&mut self, mode: Mode, unconfirmed: bool) -> ClaimId {
            let claim = Claim::new(self.name.clone(), InstanceId::random()).with_mode(mode);
            let record = Record { unconfirmed, ..Record::of(&claim) };
            self.put(self.keys.claim(&self.name, claim.id, mode), record.encode());
            claim.id
        }

        fn remove(&mut self, claim: ClaimId, mode: Mode) {
            let key = self.keys.claim(&self.name, claim, mode);
            assert!(self.queue.remove(&self.keys, &key).is_some());
        }

        fn holders(&self) -> Vec<ClaimId> {
            self.queue.holders().map(|entry| entry.claim).collect()
        }
    }

    const X: Mode = Mode::Exclusive;
    const S: Mode = Mode::Shared;

    fn permits(count: u32) -> Mode {
        Mode::Permits { count, limit: 5 }
    }

    #[test]
    fn one_holds_alone_and_the_next_follows() {
        let mut made = Made::new();
        assert!(made.queue.has_room_for(X));
        let (one, two) = (made.claim(X), made.claim(X));
        assert_eq!(made.holders(), [one]);
        let three = made.claim(X);
        assert_eq!(made.queue.standing(two).unwrap().1, Standing::Waits { ahead: 0 });
        assert_eq!(made.queue.standing(three).unwrap().1, Standing::Waits { ahead: 1 });
        made.remove(one, X);
        assert_eq!(made.holders(), [two]);
    }

    #[test]
    fn readers_hold_together_and_do_not_pass_a_writer() {
        let mut made = Made::new();
        let (one, two, writer, late) = (made.claim(S), made.claim(S), made.claim(X), made.claim(S));
        assert_eq!(made.holders(), [one, two]);
        assert!(!made.queue.has_room_for(S));
        made.remove(one, S);
        made.remove(two, S);
        assert_eq!(made.holders(), [writer]);
        made.remove(writer, X);
        assert_eq!(made.holders(), [late]);
        assert!(made.queue.has_room_for(S) && !made.queue.has_room_for(permits(1)));
    }

    #[test]
    fn permits_are_given_in_order() {
        let mut made = Made::new();
        let (one, large, small) = (made.claim(permits(3)), made.claim(permits(3)), made.claim(permits(1)));
        assert_eq!(made.holders(), [one]);
        made.remove(one, permits(3));
        assert_eq!(made.holders(), [large, small]);
        assert!(made.queue.has_room_for(permits(1)) && !made.queue.has_room_for(permits(2)));
        let other = Mode::Permits { count: 1, limit: 6 };
        assert_eq!(made.queue.other_limit(ClaimId::random(), other), Some(5));
        assert_eq!(made.queue.other_limit(ClaimId::random(), permits(1)), None);
    }

    #[test]
    fn who_has_to_be_confirmed_holds_up_those_behind() {
        let mut made = Made::new();
        let (one, scheduled, late) = (made.claim(S), made.claim_that(S, true), made.claim(S));
        assert_eq!(made.holders(), [one]);
        assert_eq!(made.queue.standing(scheduled).unwrap().1, Standing::HasItsTurn);
        assert_eq!(made.queue.standing(late).unwrap().1, Standing::Waits { ahead: 1 });
        assert!(!made.queue.has_room_for(S));
    }

    #[test]
    fn a_minimum_hold_keeps_out_those_behind_its_claim() {
        let mut made = Made::new();
        let (one, two) = (made.claim(X), made.claim(X));
        let created = made.queue.find(one).unwrap().created;
        let rest = Rest::new(created, Duration::from_secs(60));
        made.put(made.keys.rest(&made.name, one), rest.encode());
        assert_eq!(made.holders(), [one]);
        made.remove(one, X);
        assert_eq!(made.queue.standing(two).unwrap().1, Standing::Waits { ahead: 0 });
        assert!(matches!(made.queue.refusal(), Busy::Held { .. }));
        made.remove(two, X);
        assert!(!made.queue.has_room_for(X) && matches!(made.queue.refusal(), Busy::NotDue { .. }));
        let key = made.keys.rest(&made.name, one);
        assert!(made.queue.remove(&made.keys, &key).is_none());
        assert!(made.queue.has_room_for(X));
    }
}
