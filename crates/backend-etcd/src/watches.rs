//! Which locks are watched, and what the watches tell.

use locks_api::{Boottime, LockName};

use crate::keys::end_of;
use crate::known::{Known, State};
use crate::messages::{RangeRequest, WatchCancel, WatchCreate, WatchOrder, WatchRequest, WatchResponse};
use crate::queue::Queue;
use crate::view::{Wanted, Watch};

/// What came of a word of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Understood,
    /// The server refuses to watch, or says what makes no sense.
    Refused,
}

impl Known {
    /// What the server has to be told so that it watches what is of interest now.
    pub(crate) fn orders(&self) -> Vec<WatchRequest> {
        let now = Boottime::now();
        let mut state = self.state();
        let changed = std::mem::take(&mut state.changed);
        changed.into_iter().filter_map(|name| self.order(&mut state, name, now)).collect()
    }

    /// Whether there is anything to watch.
    pub(crate) fn wants_to_watch(&self) -> bool {
        !self.state().changed.is_empty()
    }

    /// A new connection watches nothing yet.
    pub(crate) fn unwatch_all(&self) {
        let mut state = self.state();
        let State { views, watched, changed, .. } = &mut *state;
        watched.clear();
        for (name, view) in views {
            view.watch = Watch::No;
            changed.insert(name.clone());
        }
    }

    /// The server said something. The queues that have to be read because of it are in [`unread`](Self::unread).
    pub(crate) fn hear(&self, word: WatchResponse) -> Heard {
        let mut state = self.state();
        let Some(name) = state.watched.get(&word.id).cloned() else {
            // Of a watch that was given up.
            return if word.canceled && word.id == -1 { Heard::Refused } else { Heard::Understood };
        };
        let revision = word.header.map_or(0, |header| header.revision);
        let Some(view) = state.views.get_mut(&name) else { return Heard::Understood };
        if word.canceled {
            view.watch = Watch::No;
            state.watched.remove(&word.id);
            state.changed.insert(name);
            // Compacted away while it was behind: it is watched anew from now on.
            return if word.compacted > 0 { Heard::Understood } else { Heard::Refused };
        }
        if word.created {
            view.watch = Watch::Since(word.id, revision);
            if view.is_unread() {
                state.unread.push(name);
            }
            return Heard::Understood;
        }
        if word.events.is_empty() {
            return Heard::Understood;
        }
        let makes_sense = view.hear(&self.keys, word.events);
        if view.followed
            && let Some(events) = self.events()
        {
            events.changed(name.clone());
        }
        self.evaluate(&mut state, &name);
        if makes_sense { Heard::Understood } else { Heard::Refused }
    }

    /// Locks whose queues have to be read, so many at most.
    pub(crate) fn unread(&self, limit: usize) -> Vec<(LockName, RangeRequest)> {
        let mut state = self.state();
        let mut ranges = Vec::new();
        while ranges.len() < limit
            && let Some(name) = state.unread.pop()
        {
            if state.views.get(&name).is_some_and(|view| view.is_unread()) {
                let key = self.keys.lock(&name);
                let end = end_of(&key);
                ranges.push((name, RangeRequest { key, end, ..RangeRequest::default() }));
            }
        }
        ranges
    }

    /// The queue of a lock was read.
    pub(crate) fn read(&self, name: &LockName, queue: Queue, revision: i64) {
        let mut state = self.state();
        let Some(view) = state.views.get_mut(name) else { return };
        view.read(queue, revision);
        if view.followed
            && let Some(events) = self.events()
        {
            events.changed(name.clone());
        }
        self.evaluate(&mut state, name);
    }

    fn order(&self, state: &mut State, name: LockName, now: Boottime) -> Option<WatchRequest> {
        let State { views, watched, idle, last_watch, .. } = state;
        let view = views.get_mut(&name)?;
        let wanted = view.wanted_until(now);
        let order = match (wanted, view.watch) {
            (Wanted::NoMore, watch) => {
                views.remove(&name);
                let id = match watch {
                    Watch::No => return None,
                    Watch::Asked(id) | Watch::Since(id, _) => id,
                };
                watched.remove(&id);
                WatchOrder::Cancel(WatchCancel { id })
            }
            (Wanted::Until(at), _) => {
                idle.insert((at, name));
                return None;
            }
            (Wanted::Still, Watch::No) => {
                *last_watch += 1;
                let (id, key) = (*last_watch, self.keys.lock(&name));
                view.watch = Watch::Asked(id);
                watched.insert(id, name);
                let end = end_of(&key);
                // From now on: a watch that begins in the past is served by a loop of its own, ten times a second.
                WatchOrder::Create(WatchCreate { key, end, start: 0, id })
            }
            (Wanted::Still, _) => return None,
        };
        Some(WatchRequest { order: Some(order) })
    }
}
