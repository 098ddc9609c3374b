//! Proves or disproves from a [history](crate::history) what the locks promise.
//!
//! - [`order`]: fencing tokens are unique and grow in real time; holds are disjoint; what is released was granted.
//! - [`validity`]: no guard says that it holds after a guard with a higher token has said so. Holds under every fault.
//! - [`linearizability`]: a search, which trusts no token, for an order of all operations that one fenced lock could have
//!   gone through: a mutex, a reader/writer lock or a semaphore.
//! - [`observation`]: nobody who watches an election is told of an older leader after a newer, nor of one that never led.

use std::fmt;
use std::time::Duration;

use crate::history::{Event, Mode, Operation, operations};

pub mod linearizability;
pub mod observation;
pub mod order;
pub mod validity;

/// A promise that a history shows to be broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The history contradicts itself, so that nothing can be told from it.
    Malformed(String),
    /// Two grants of one lock had the same token.
    TokenReused {
        /// The lock.
        lock: String,
        /// The token.
        token: u64,
    },
    /// A grant that began after another had been given has a lower token.
    TokenOrder {
        /// The lock.
        lock: String,
        /// The token of the earlier grant.
        earlier: u64,
        /// The token of the later one.
        later: u64,
    },
    /// Two holds overlapped, or were held in another order than that of their tokens.
    Overlap {
        /// The lock.
        lock: String,
        /// The token of the hold that began first.
        first: u64,
        /// The token of the other.
        second: u64,
    },
    /// More permits were held at once than there are.
    OverLimit {
        /// The lock.
        lock: String,
        /// The token of the hold that was too many.
        token: u64,
        /// How many permits were held.
        permits: u32,
        /// How many there are.
        limit: u32,
    },
    /// An observer of an election was told of an older leader after a newer one, or after the newer one had been told that it leads.
    Backwards {
        /// The lock.
        lock: String,
        /// The token of the newer leader.
        newer: u64,
        /// The token of the older one, which was told later.
        older: u64,
    },
    /// Something was released, or checked, under a token that was never granted.
    NeverGranted {
        /// The lock.
        lock: String,
        /// The token.
        token: u64,
    },
    /// A grant came without a token, or an acquire that succeeded names no claim.
    Unidentified {
        /// The lock.
        lock: String,
    },
    /// A guard said that it holds although one with a higher token had said so before it was asked.
    StaleHolder {
        /// The lock.
        lock: String,
        /// The token of the guard that was wrong.
        stale: u64,
        /// The higher token.
        newer: u64,
    },
    /// No order of the operations could have happened on one lock.
    NotLinearizable {
        /// The lock.
        lock: String,
        /// How many operations the impossible stretch has.
        operations: usize,
    },
    /// A stretch without a quiet moment is too long to search.
    TooLong {
        /// The lock.
        lock: String,
        /// How many operations it has.
        operations: usize,
    },
}

impl Violation {
    /// The lock at which it was seen; none if the history itself makes no sense.
    pub fn lock(&self) -> Option<&str> {
        match self {
            Self::Malformed(_) => None,
            Self::TokenReused { lock, .. }
            | Self::TokenOrder { lock, .. }
            | Self::Overlap { lock, .. }
            | Self::OverLimit { lock, .. }
            | Self::Backwards { lock, .. }
            | Self::NeverGranted { lock, .. }
            | Self::Unidentified { lock }
            | Self::StaleHolder { lock, .. }
            | Self::NotLinearizable { lock, .. }
            | Self::TooLong { lock, .. } => Some(lock),
        }
    }

    /// The fencing tokens of the holds that it is about, the one that was wrong last.
    pub fn tokens(&self) -> Vec<u64> {
        match *self {
            Self::TokenReused { token, .. }
            | Self::OverLimit { token, .. }
            | Self::NeverGranted { token, .. } => vec![token],
            Self::TokenOrder { earlier, later, .. } => vec![earlier, later],
            Self::Overlap { first, second, .. } => vec![first, second],
            Self::Backwards { newer, older, .. } => vec![newer, older],
            Self::StaleHolder { stale, newer, .. } => vec![newer, stale],
            Self::Malformed(_)
            | Self::Unidentified { .. }
            | Self::NotLinearizable { .. }
            | Self::TooLong { .. } => Vec::new(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the history makes no sense: {why}"),
            Self::TokenReused { lock, token } => write!(f, "{lock:?}: token {token} was granted twice"),
            Self::TokenOrder { lock, earlier, later } => {
                write!(f, "{lock:?}: token {later} was granted after token {earlier}")
            }
            Self::Overlap { lock, first, second } => {
                write!(f, "{lock:?}: the holds under tokens {first} and {second} overlap or are out of order")
            }
            Self::OverLimit { lock, token, permits, limit } => {
                write!(f, "{lock:?}: {permits} of {limit} permits were held at once, with token {token}")
            }
            Self::Backwards { lock, newer, older } => {
                write!(f, "{lock:?}: token {older} was seen to lead after token {newer}")
            }
            Self::NeverGranted { lock, token } => {
                write!(f, "{lock:?}: token {token} was used and never granted")
            }
            Self::Unidentified { lock } => write!(f, "{lock:?}: a grant has no token or no claim"),
            Self::StaleHolder { lock, stale, newer } => {
                write!(f, "{lock:?}: token {stale} said that it holds after token {newer} had said so")
            }
            Self::NotLinearizable { lock, operations } => {
                write!(
                    f,
                    "{lock:?}: no order of these {operations} operations could have happened on one lock"
                )
            }
            Self::TooLong { lock, operations } => {
                write!(f, "{lock:?}: {operations} operations without a quiet moment are too many to search")
            }
        }
    }
}

impl std::error::Error for Violation {}

/// Which checks a history can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strictness {
    /// Nobody died, was paused past its ttl or was cut off from the store: everything is checked.
    NoFaults,
    /// Processes were killed, and nobody lost a lock alive: everything but the search, for which the dead leave too much open.
    Crashes,
    /// Holders may have lost their locks without noticing at once: holds may overlap on paper, while tokens and
    /// what guards said must not.
    Loss,
    /// The same, and connections were cut with which locks end: whoever was cut off may say for a second longer than that it holds.
    Cuts,
}

/// How long it may take until a holder has heard that its lock ended with its connection.
pub(crate) const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// Checks a history.
///
/// # Errors
///
/// The first [`Violation`] found.
pub fn check(events: &[Event], strictness: Strictness) -> Result<(), Violation> {
    let operations = operations(events).map_err(Violation::Malformed)?;
    for operations in by_lock(&operations) {
        order::tokens(&operations)?;
        order::provenance(&operations)?;
        match strictness {
            Strictness::Cuts => validity::check_late(&operations, HEARD_WITHIN)?,
            _ => validity::check(&operations)?,
        }
        observation::check(&operations)?;
        if !matches!(strictness, Strictness::Loss | Strictness::Cuts) {
            order::disjoint(&operations)?;
        }
        if strictness == Strictness::NoFaults {
            linearizability::check(&operations)?;
        }
    }
    Ok(())
}

/// The highest tokens of holds, by how they were held.
#[derive(Clone, Copy, Debug, Default)]
struct Highest {
    exclusive: u64,
    shared: u64,
    permits: u64,
}

impl Highest {
    fn add(&mut self, mode: Mode, token: u64) {
        let highest = match mode {
            Mode::Exclusive => &mut self.exclusive,
            Mode::Shared => &mut self.shared,
            Mode::Permits { .. } => &mut self.permits,
        };
        *highest = token.max(*highest);
    }

    /// The highest of those that can't be held beside one like this.
    fn of_those_that_exclude(&self, mode: Mode) -> Option<u64> {
        let highest = match mode {
            Mode::Exclusive => self.exclusive.max(self.shared).max(self.permits),
            Mode::Shared => self.exclusive.max(self.permits),
            Mode::Permits { .. } => self.exclusive.max(self.shared),
        };
        (highest > 0).then_some(highest)
    }
}

/// The operations of each lock, in the order of their beginnings: locks don't influence each other.
fn by_lock(operations: &[Operation]) -> Vec<Vec<Operation>> {
    let mut locks = std::collections::BTreeMap::<&str, Vec<Operation>>::new();
    for operation in operations {
        locks.entry(&operation.lock).or_default().push(operation.clone());
    }
    locks.into_values().collect()
}

#[cfg(test)]
pub(crate) mod scripted {
    //! Histories written by hand.

    use crate::history::{Mode, Op, Operation, Phase};

    pub(crate) fn acquire(client: u32, invoked: u64, ended: u64, token: u64) -> Operation {
        operation(client, Op::Acquire, invoked, Some(ended), Phase::Ok, Some(token))
    }

    pub(crate) fn acquire_as(mode: Mode, client: u32, invoked: u64, ended: u64, token: u64) -> Operation {
        Operation { mode, ..acquire(client, invoked, ended, token) }
    }

    pub(crate) fn downgrade(client: u32, invoked: u64, ended: u64, token: u64) -> Operation {
        operation(client, Op::Downgrade, invoked, Some(ended), Phase::Ok, Some(token))
    }

    /// `None` for nobody.
    pub(crate) fn observed(client: u32, invoked: u64, ended: u64, token: Option<u64>) -> Operation {
        operation(client, Op::Observe, invoked, Some(ended), Phase::Ok, token)
    }

    pub(crate) fn refused(client: u32, invoked: u64, ended: u64) -> Operation {
        operation(client, Op::Acquire, invoked, Some(ended), Phase::Fail, None)
    }

    pub(crate) fn unknown_acquire(client: u32, invoked: u64) -> Operation {
        operation(client, Op::Acquire, invoked, None, Phase::Info, None)
    }

    pub(crate) fn release(client: u32, invoked: u64, ended: u64, token: u64) -> Operation {
        operation(client, Op::Release, invoked, Some(ended), Phase::Ok, Some(token))
    }

    pub(crate) fn unknown_release(client: u32, invoked: u64, token: u64) -> Operation {
        operation(client, Op::Release, invoked, None, Phase::Info, Some(token))
    }

    pub(crate) fn said(client: u32, invoked: u64, ended: u64, token: u64, held: bool) -> Operation {
        Operation {
            held: Some(held),
            ..operation(client, Op::Check, invoked, Some(ended), Phase::Ok, Some(token))
        }
    }

    fn operation(
        client: u32,
        op: Op,
        invoked: u64,
        ended: Option<u64>,
        outcome: Phase,
        token: Option<u64>,
    ) -> Operation {
        let claim = token.map(|token| format!("{token:x}"));
        Operation {
            client: (1, client),
            lock: "a".into(),
            op,
            invoked,
            ended,
            outcome,
            mode: Mode::Exclusive,
            claim,
            token,
            held: None,
        }
    }
}
