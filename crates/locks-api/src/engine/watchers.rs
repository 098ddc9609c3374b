//! Who of this process watches the values of locks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::name::LockName;

/// Those who watch, by lock.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<HashMap<LockName, Watched>>);

struct Watched {
    count: usize,
    changed: Arc<Notify>,
}

/// One who watches a lock.
pub(crate) struct Watch {
    changed: Arc<Notify>,
}

impl Watchers {
    pub(crate) fn join(&self, name: &LockName) -> Watch {
        let mut all = self.lock();
        let watched =
            all.entry(name.clone()).or_insert_with(|| Watched { count: 0, changed: Arc::default() });
        watched.count += 1;
        Watch { changed: Arc::clone(&watched.changed) }
    }

    /// Whether nobody watches the lock any more: then the store is to be told.
    pub(crate) fn leave(&self, name: &LockName) -> bool {
        let mut all = self.lock();
        let Some(watched) = all.get_mut(name) else { return false };
        watched.count -= 1;
        let nobody = watched.count == 0;
        if nobody {
            all.remove(name);
        }
        nobody
    }

    pub(crate) fn is_watched(&self, name: &LockName) -> bool {
        self.lock().contains_key(name)
    }

    pub(super) fn changed(&self, name: &LockName) {
        if let Some(watched) = self.lock().get(name) {
            watched.changed.notify_waiters();
        }
    }

    pub(super) fn all_changed(&self) {
        for watched in self.lock().values() {
            watched.changed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LockName, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// What wakes at the next change. It listens from its first poll, or from `enable`.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}
