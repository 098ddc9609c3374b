//! When a lock is due: minimum holds and once-per intervals, on the wall clock of the machine.

use std::time::{Duration, SystemTime};

use locks_api::spi::Claim;

/// When a lock is due. All in µs, instants since 1970; 0 is never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) not_before: u64,
    /// The claim that wrote `not_before`.
    pub(crate) by: u128,
    pub(crate) last_completed: u64,
    /// The longest interval that anybody ever asked for who was granted the lock.
    pub(crate) longest_interval: u64,
}

impl Schedule {
    /// For how long nobody gets the lock.
    pub(crate) fn held_back(&self, now: u64) -> Option<Duration> {
        left(self.not_before, now)
    }

    /// For how long a claim that wants the lock once in a while does not get it.
    pub(crate) fn interval_left(&self, claim: &Claim, now: u64) -> Option<Duration> {
        let interval = claim.once_per()?;
        (self.last_completed != 0)
            .then(|| left(self.last_completed.saturating_add(micros(interval)), now))
            .flatten()
    }

    /// Whether anything of it may still matter.
    pub(crate) fn is_in_force(&self, now: u64) -> bool {
        let interval = self.last_completed.saturating_add(self.longest_interval);
        self.not_before > now || (self.last_completed != 0 && interval > now)
    }

    /// The schedule after a grant to this claim.
    pub(crate) fn after_grant(mut self, claim: &Claim, now: u64) -> Self {
        if let Some(least) = claim.min_hold() {
            self.not_before = now.saturating_add(micros(least));
            self.by = claim.id.to_bits();
        }
        if let Some(interval) = claim.once_per() {
            self.longest_interval = self.longest_interval.max(micros(interval));
        }
        self
    }
}

/// The wall clock in µs since 1970.
pub(crate) fn clock() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, micros)
}

fn left(until: u64, now: u64) -> Option<Duration> {
    until.checked_sub(now).filter(|left| *left > 0).map(Duration::from_micros)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
