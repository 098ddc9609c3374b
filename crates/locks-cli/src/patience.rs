//! How long to wait for the lock.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    TryOnce,
    AtMost(Duration),
    Forever,
}

impl Patience {
    /// What is left of it after `spent`.
    pub(crate) fn less(self, spent: Duration) -> Self {
        match self {
            Self::AtMost(limit) if limit <= spent => Self::TryOnce,
            Self::AtMost(limit) => Self::AtMost(limit - spent),
            Self::TryOnce | Self::Forever => self,
        }
    }

    /// How long that is, and `most` if it is longer.
    pub(crate) fn at_most(self, most: Duration) -> Duration {
        match self {
            Self::TryOnce => Duration::ZERO,
            Self::AtMost(limit) => limit.min(most),
            Self::Forever => most,
        }
    }

    /// The limit that was given.
    pub(crate) fn limit(self) -> Option<Duration> {
        match self {
            Self::AtMost(limit) => Some(limit),
            Self::TryOnce | Self::Forever => None,
        }
    }
}
