//! The locks for which somebody here waits.

use std::collections::HashMap;
use std::time::Duration;

use locks_api::{Boottime, LockName};

use super::key::Keys;

/// How long it hangs after the last time that the lock was refused. Whoever waits asks more often than that.
const HANGS_FOR: Duration = Duration::from_secs(2);

/// For each lock an advisory lock that is shared by the sessions of those who wait: whoever gives the lock back sees by it whether anybody is to
/// be told.
#[derive(Debug, Default)]
pub(crate) struct Bells(HashMap<i64, Bell>);

#[derive(Debug)]
struct Bell {
    name: LockName,
    keys: Keys,
    until: Boottime,
}

impl Bells {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The lock was refused once more. False if its bell does not hang.
    pub(crate) fn keep(&mut self, keys: Keys, now: Boottime) -> bool {
        self.0.get_mut(&keys.key).is_some_and(|bell| {
            bell.until = now.after(HANGS_FOR);
            bell.keys == keys
        })
    }

    pub(crate) fn hang(&mut self, name: LockName, keys: Keys, now: Boottime) {
        self.0.insert(keys.key, Bell { name, keys, until: now.after(HANGS_FOR) });
    }

    /// The lock whose bell was rung.
    pub(crate) fn name(&self, key: i64) -> Option<LockName> {
        self.0.get(&key).map(|bell| bell.name.clone())
    }

    /// When the first one may come down.
    pub(crate) fn first_end(&self) -> Option<Boottime> {
        self.0.values().map(|bell| bell.until).min()
    }

    /// Takes down those for which nobody has asked for long.
    pub(crate) fn take_down(&mut self, now: Boottime) -> Vec<Keys> {
        self.0.extract_if(|_, bell| bell.until <= now).map(|(_, bell)| bell.keys).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
