//! Who wants to hear when a lock's value changes.

use std::collections::HashMap;

use locks_api::LockName;
use locks_api::spi::Events;

/// Those who watch, by lock and by the number that each of them has.
#[derive(Debug)]
pub(crate) struct Watched<T>(HashMap<LockName, HashMap<u64, T>>);

impl<T> Default for Watched<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Watched<T> {
    /// From now on this one is reached by `way` when the lock's value changes.
    pub(crate) fn watch(&mut self, name: &LockName, who: u64, way: T) {
        self.0.entry(name.clone()).or_default().insert(who, way);
    }

    pub(crate) fn unwatch(&mut self, name: &LockName, who: u64) {
        if let Some(watchers) = self.0.get_mut(name) {
            watchers.remove(&who);
            if watchers.is_empty() {
                self.0.remove(name);
            }
        }
    }

    /// This one watches nothing any more.
    pub(crate) fn leave(&mut self, who: u64) {
        self.0.retain(|_, watchers| {
            watchers.remove(&who);
            !watchers.is_empty()
        });
    }

    /// How to reach all who watch this lock.
    pub(crate) fn of(&self, name: &LockName) -> impl Iterator<Item = &T> {
        self.0.get(name).into_iter().flat_map(HashMap::values)
    }
}

impl Watched<Events> {
    /// Tells all who watch this lock.
    pub(crate) fn changed(&self, name: &LockName) {
        for events in self.of(name) {
            events.changed(name.clone());
        }
    }
}
