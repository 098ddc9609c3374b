//! Which locks somebody waited for lately.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use locks_api::LockName;

/// The short statements of a free lock do nothing for one that is held or awaited. For these there are others.
///
/// It is a guess, and a wrong one costs a round trip, since the function that can do everything has to be asked after all.
#[derive(Debug, Default)]
pub(crate) struct Contention(Mutex<HashSet<LockName>>);

/// Then all are forgotten.
const MOST: usize = 10_000;

impl Contention {
    pub(crate) fn is_likely(&self, name: &LockName) -> bool {
        self.names().contains(name)
    }

    /// Somebody waited for it.
    pub(crate) fn note(&self, name: &LockName) {
        let mut names = self.names();
        if names.len() >= MOST {
            names.clear();
        }
        names.insert(name.clone());
    }

    /// It was free.
    pub(crate) fn forget(&self, name: &LockName) {
        self.names().remove(name);
    }

    fn names(&self) -> MutexGuard<'_, HashSet<LockName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
