//! The clock that leases are measured on.

use std::fmt;
use std::time::Duration;

/// An instant on a clock that runs while the machine is suspended.
///
/// `std::time::Instant` stops during suspend on Linux and macOS (rust-lang/rust#87906), so a laptop that wakes up would
/// take an hour-old lease for a fresh one. This is `CLOCK_BOOTTIME` on Linux and the continuous clock
/// on Apple systems.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boottime(u64);

impl Boottime {
    /// The latest instant that can be told: what never comes.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The present instant.
    pub fn now() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "fuchsia"))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        // Everywhere else CLOCK_MONOTONIC is the best there is; on Apple systems it goes on during sleep.
        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "fuchsia")))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(CLOCK);
        Self(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
    }

    /// The instant that many nanoseconds after boot. For simulations and logs of one machine.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant `duration` later; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` until this instant, or zero if it is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Boottime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("never");
        }
        write!(f, "boot+{:.6}s", Duration::from_nanos(self.0).as_secs_f64())
    }
}

/// The instant up to which a guard counts as held unless it is renewed.
///
/// It already has the safety margin taken off: the store keeps others out for some time longer.
///
/// ```
/// # async fn f(guard: locks_api::LockGuard) {
/// if let Some(deadline) = guard.deadline() {
///     println!("{:?} left", deadline.remaining());
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub(crate) Boottime);

impl Deadline {
    /// Time left; zero once it has passed.
    pub fn remaining(&self) -> Duration {
        self.0.since(Boottime::now())
    }

    /// Whether it has passed.
    pub fn has_passed(&self) -> bool {
        Boottime::now() >= self.0
    }

    /// The instant itself.
    pub fn instant(&self) -> Boottime {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_forward_and_saturates() {
        let first = Boottime::now();
        let later = first.after(Duration::from_millis(5));
        assert_eq!(later.since(first), Duration::from_millis(5));
        assert_eq!(first.since(later), Duration::ZERO);
        assert_eq!(Boottime::from_nanos(u64::MAX - 1).after(Duration::MAX), Boottime::NEVER);
        assert!(Boottime::now() >= first);
    }
}
