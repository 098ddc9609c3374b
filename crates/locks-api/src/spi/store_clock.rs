//! When something happened that a store dates by its own clock.

use std::time::Duration;

use crate::clock::Boottime;

/// What a store's clock showed once, and when it surely had not shown that yet.
///
/// For stores that put their time into their answers and into what they say on their own: see
/// [`Events::granted`](super::Events::granted).
///
/// ```
/// use std::time::Duration;
///
/// use locks_api::spi::{Boottime, StoreClock};
///
/// let sent = Boottime::now();
/// let clock = StoreClock::new(sent, Duration::from_secs(1_000));
/// assert_eq!(clock.instant_of(Duration::from_secs(1_003)), sent.after(Duration::from_secs(3)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct StoreClock {
    sent: Boottime,
    shown: Duration,
}

impl StoreClock {
    /// The store showed `shown` in its answer to what was sent at `sent`.
    pub const fn new(sent: Boottime, shown: Duration) -> Self {
        Self { sent, shown }
    }

    /// An instant that had not passed when the store's clock showed `time`, if both clocks run at the same rate. What was dated before the answer, and is read
    /// after it over another connection, happened before the answer.
    pub fn instant_of(self, time: Duration) -> Boottime {
        match time.checked_sub(self.shown) {
            Some(later) => self.sent.after(later),
            None => {
                let earlier = u64::try_from((self.shown - time).as_nanos()).unwrap_or(u64::MAX);
                Boottime::from_nanos(self.sent.as_nanos().saturating_sub(earlier))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_late_does_not_look_recent() {
        let sent = Boottime::now();
        let clock = StoreClock::new(sent, Duration::from_secs(1_000));
        assert_eq!(clock.instant_of(Duration::from_secs(1_000)), sent);
        let earlier = clock.instant_of(Duration::from_secs(995));
        assert_eq!(sent.since(earlier), Duration::from_secs(5));
        assert_eq!(
            clock.instant_of(Duration::ZERO).as_nanos(),
            sent.as_nanos().saturating_sub(1_000_000_000_000)
        );
    }
}
