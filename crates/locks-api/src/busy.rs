//! Why a lock could not be had now.

use std::fmt;
use std::time::Duration;

use crate::holder::Holder;

/// Why a lock could not be had now. Contended is an answer, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Busy {
    /// Somebody holds the lock, or waits for it and is first.
    Held {
        /// Who, if the store knows.
        by: Option<Holder>,
    },
    /// The store came back from a crash, a fail-over or a restore and may have forgotten its last grants.
    /// It grants nothing until all of them have surely expired.
    Grace {
        /// Time left, by the store's clock.
        remaining: Duration,
    },
    /// The lock is free and not due yet (a minimum hold or a once-per interval has not passed).
    NotDue {
        /// Time left, by the store's clock.
        remaining: Duration,
    },
}

impl Busy {
    /// Who holds the lock, if that is the reason and the store knows.
    pub fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Held { by } => by.as_ref(),
            Self::Grace { .. } | Self::NotDue { .. } => None,
        }
    }
}

/// Reads as "held by pid 4711 on db1, for 3m 2s".
impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { by: Some(holder) } => write!(f, "held by {holder}"),
            Self::Held { by: None } => f.write_str("held by somebody else"),
            Self::Grace { remaining } => write!(
                f,
                "in the grace period after a restart of the store, {:.1} s to go \
                 (a store that is known to be new can be set up without it: `locks setup URL`)",
                remaining.as_secs_f64()
            ),
            Self::NotDue { remaining } => write!(f, "not due for another {:.1} s", remaining.as_secs_f64()),
        }
    }
}
