//! What callers were promised who hold a lock for a time at least, also when they give it back before.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Boottime;
use crate::name::LockName;
use crate::token::FencingToken;

/// The guards that callers had since the store last forgot something.
#[derive(Default)]
pub(super) struct MinimumHolds {
    guards: HashMap<LockName, Vec<Seen>>,
    since: Option<Boottime>,
}

/// A guard that a caller had.
#[derive(Clone, Copy)]
struct Seen {
    token: FencingToken,
    /// When the store granted it, by the true clock, and until when nobody else is to be granted the lock.
    granted_at: Boottime,
    until: Boottime,
}

impl MinimumHolds {
    /// The store has forgotten everything, minimum holds included.
    pub(super) fn forget(&mut self, now: Boottime) {
        self.guards.clear();
        self.since = Some(now);
    }

    /// A caller got a guard. An error says which other one was granted within the time of its own.
    pub(super) fn seen(
        &mut self,
        lock: &LockName,
        token: FencingToken,
        granted_at: Boottime,
        least: Duration,
    ) -> Result<(), String> {
        if self.since.is_some_and(|since| granted_at <= since) {
            return Ok(());
        }
        let new = Seen { token, granted_at, until: granted_at.after(least) };
        let guards = self.guards.entry(lock.clone()).or_default();
        // Answers overtake each other, so the new one may be the earlier of two.
        for other in guards.iter() {
            let (first, second) = if other.token < token { (*other, new) } else { (new, *other) };
            if second.granted_at < first.until {
                return Err(format!(
                    "minimum hold: {} of {lock} was granted {:?} before that of {} is over",
                    second.token,
                    first.until.since(second.granted_at),
                    first.token
                ));
            }
        }
        guards.push(new);
        Ok(())
    }
}
