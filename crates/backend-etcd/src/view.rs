//! A lock that is watched: its queue, and who here has an interest in it.

use std::collections::HashMap;
use std::time::Duration;

use locks_api::Boottime;
use locks_api::spi::ClaimId;

use crate::keys::Keys;
use crate::known::{Held, Waiting};
use crate::messages::WatchEvent;
use crate::queue::{Queue, Standing};

/// A watch is kept for so long after the last who had an interest in it. Whoever comes meanwhile needs not wait for a new one.
const KEPT: Duration = Duration::from_secs(5);

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct View {
    queue: Queue,
    /// The revision up to which all of the queue is known.
    known_at: i64,
    pub(crate) waiting: HashMap<ClaimId, Waiting>,
    pub(crate) held: Held,
    /// Somebody watches the lock's value.
    pub(crate) followed: bool,
    pub(crate) watch: Watch,
    idle_since: Option<Boottime>,
}

/// How far it is being watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Watch {
    #[default]
    No,
    /// Asked for under this number.
    Asked(i64),
    /// From this revision on. What was before has to be read.
    Since(i64, i64),
}

/// See [`View::wanted_until`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Still,
    Until(Boottime),
    NoMore,
}

impl View {
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// All of the queue was read at this revision. What is older than what is known tells nothing.
    pub(crate) fn read(&mut self, queue: Queue, revision: i64) {
        if revision >= self.known_at {
            self.queue = queue;
            self.known_at = revision;
        }
    }

    /// What the watch told, with all that happened at one revision in one piece. False if it makes no sense.
    pub(crate) fn hear(&mut self, keys: &Keys, events: Vec<WatchEvent>) -> bool {
        if self.is_unread() {
            // What happened before the watch began is not known, so nothing follows from this. It will be read, with this in it.
            if let Watch::Since(_, since) = &mut self.watch {
                let newest = events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.modified).max();
                *since = newest.map_or(*since, |newest| newest.max(*since));
            }
            return true;
        }
        let (known_at, mut sense) = (self.known_at, true);
        for event in events {
            let deleted = event.is_deletion();
            let Some(kv) = event.kv else { continue };
            // From a member that is behind the one that told it before.
            if kv.modified <= known_at {
                continue;
            }
            self.known_at = self.known_at.max(kv.modified);
            if deleted {
                self.queue.remove(keys, &kv.key);
            } else {
                sense &= self.queue.put(keys, kv).is_ok();
            }
        }
        sense
    }

    /// Whether it shows a key that was created at this revision, unless it is gone.
    pub(crate) fn shows(&self, created: i64) -> bool {
        created <= self.known_at
    }

    /// Whether all of the queue has to be read.
    pub(crate) fn is_unread(&self) -> bool {
        matches!(self.watch, Watch::Since(_, since) if self.known_at < since)
    }

    /// How each claim that waits here stands, if it is there as far as is known.
    pub(crate) fn standings_of_waiting(&self) -> Vec<(ClaimId, Option<Standing>)> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<(ClaimId, Option<Standing>)> = Vec::new();
        for (entry, standing) in self.queue.standings() {
            if self.waiting.get(&entry.claim).is_some_and(|waiting| waiting.created == entry.created) {
                found.push((entry.claim, Some(standing)));
            }
        }
        for (claim, waiting) in &self.waiting {
            if self.shows(waiting.created) && !found.iter().any(|(other, _)| other == claim) {
                found.push((*claim, None));
            }
        }
        found
    }

    /// Until when it is wanted: for as long as somebody has an interest in it, and for a moment longer.
    pub(crate) fn wanted_until(&mut self, now: Boottime) -> Wanted {
        if !self.waiting.is_empty() || !self.held.is_empty() || self.followed {
            self.idle_since = None;
            return Wanted::Still;
        }
        let until = self.idle_since.get_or_insert(now).after(KEPT);
        if self.watch == Watch::No || until <= now { Wanted::NoMore } else { Wanted::Until(until) }
    }
}

#[cfg(test)]
mod tests {
    use locks_api::LockName;
    use locks_api::spi::{Claim, InstanceId, Mode};

    use super::*;
    use crate::messages::KeyValue;
    use crate::record::Record;

    struct Watched {
        keys: Keys,
        claim: Claim,
        view: View,
    }

    impl Watched {
        /// A member that was at revision 10 has begun to watch.
        fn since_10() -> Self {
            let claim = Claim::new(LockName::new("a").unwrap(), InstanceId::random());
            let view = View { watch: Watch::Since(1, 10), ..View::default() };
            Self { keys: Keys::new("locks"), claim, view }
        }

        fn put(&self, claim: &Claim, revision: i64) -> KeyValue {
            let key = self.keys.claim(&claim.name, claim.id, Mode::Exclusive);
            let value = Record::of(claim).encode();
            KeyValue { key, created: revision, modified: revision, value, lease: 1 }
        }

        fn hear(&mut self, kind: i32, kv: KeyValue) {
            assert!(self.view.hear(&self.keys, vec![WatchEvent { kind, kv: Some(kv) }]));
        }

        fn read(&mut self, revision: i64, kvs: Vec<KeyValue>) {
            let queue = Queue::read(&self.keys, kvs).unwrap();
            self.view.read(queue, revision);
        }

        fn shows_ours(&self, created: i64) -> bool {
            let found = self.view.queue.find(self.claim.id).is_some_and(|entry| entry.created == created);
            assert!(found || self.view.shows(created), "it is not known whether it is there");
            found
        }
    }

    fn another() -> Claim {
        Claim::new(LockName::new("a").unwrap(), InstanceId::random())
    }

    /// A word that comes between the beginning of the watch and the reading of the queue says nothing of those who were there before.
    #[test]
    fn nothing_follows_from_what_is_heard_before_all_was_read() {
        let mut watched = Watched::since_10();
        let (ours, other) = (watched.put(&watched.claim, 7), watched.put(&another(), 11));
        watched.hear(0, other.clone());
        assert!(!watched.view.shows(7), "it looks as if our key was gone");
        assert!(watched.view.is_unread());
        watched.read(11, vec![ours, other]);
        assert!(!watched.view.is_unread() && watched.shows_ours(7));
    }

    /// What was heard and not used has to be in what is read. A step's answer may be older.
    #[test]
    fn what_was_heard_too_early_is_not_lost() {
        let mut watched = Watched::since_10();
        let ours = watched.put(&watched.claim, 7);
        watched.hear(1, KeyValue { modified: 12, created: 0, ..ours.clone() });
        watched.read(11, vec![ours]);
        assert!(watched.view.is_unread(), "our key seems to be there for ever");
        watched.read(12, Vec::new());
        assert!(!watched.view.is_unread() && !watched.shows_ours(7));
    }

    /// A member that is behind the last one tells again what is known. A key that was deleted and made anew is there.
    #[test]
    fn what_is_told_again_changes_nothing() {
        let mut watched = Watched::since_10();
        watched.read(10, Vec::new());
        let (first, second) = (watched.put(&watched.claim, 11), watched.put(&watched.claim, 13));
        let deleted = KeyValue { modified: 12, created: 0, ..first.clone() };
        watched.hear(0, first.clone());
        watched.hear(1, deleted.clone());
        watched.hear(0, second);
        watched.view.watch = Watch::Since(2, 10);
        assert!(!watched.view.is_unread());
        watched.hear(0, first);
        watched.hear(1, deleted);
        assert!(watched.shows_ours(13), "it looks as if our key was gone");
    }
}
