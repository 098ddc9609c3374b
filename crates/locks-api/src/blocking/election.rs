//! The election of a leader, for synchronous code.

use std::fmt;
use std::time::Duration;

use super::LockGuard;
use super::guard::kind_of_guard;
use super::park::{wait, wait_timeout};
use crate::ask::options;
use crate::caller::Manner;
use crate::election::publish;
use crate::error::Error;
use crate::spi::Leader;

/// An election: an exclusive lock whose holder, the leader, publishes a value for everybody to see. Leads nothing by itself.
///
/// Made by [`Locks::election`](super::Locks::election). Those who [`campaign`](Self::campaign) lead one after the other, first come, first served; those who
/// [`observe`](Self::observe) need not campaign. A leader whose deadline passes knows by itself that it leads no more, without any network.
///
/// Every operation is an [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on a store without elections.
///
/// ```
/// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let election = locks.election("scheduler");
/// let leadership = election.campaign("10.0.0.7:8080")?;
/// let leader = election.leader()?.expect("somebody leads");
/// assert_eq!(&*leader.value, "10.0.0.7:8080");
/// assert_eq!(leader.token, leadership.fencing_token());
/// leadership.resign()?;
/// assert_eq!(election.leader()?, None);
/// # Ok::<(), locks_api::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing is led before a campaign"]
pub struct Election {
    inner: crate::Election,
}

options!(Election [inner]: ttl label);

impl Election {
    /// The longest value, in bytes of UTF-8.
    pub const MAX_VALUE_BYTES: usize = crate::Election::MAX_VALUE_BYTES;

    /// Waits until this process leads, and publishes `value` in the same step.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a value that is longer than [`Election::MAX_VALUE_BYTES`]; otherwise as
    /// [`Lock::acquire`](super::Lock::acquire).
    pub fn campaign(&self, value: &str) -> Result<Leadership, Error> {
        wait(self.inner.campaign(value)).map(Leadership::from)
    }

    /// Leads if nobody does or wants to; `None` otherwise.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) as from [`campaign`](Self::campaign); otherwise as [`Lock::try_acquire`](super::Lock::try_acquire).
    pub fn try_campaign(&self, value: &str) -> Result<Option<Leadership>, Error> {
        Ok(wait(self.inner.try_campaign(value))?.map(Leadership::from))
    }

    /// Waits until this process leads, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) once the time is up; otherwise as [`campaign`](Self::campaign).
    pub fn campaign_timeout(&self, value: &str, timeout: Duration) -> Result<Leadership, Error> {
        wait(self.inner.campaign_timeout(value, timeout)).map(Leadership::from)
    }

    /// Who leads at this moment, as the store sees it; `None` if nobody does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the store does not answer, and what else it says.
    pub fn leader(&self) -> Result<Option<Leader>, Error> {
        wait(self.inner.leader())
    }

    /// Everybody who leads from now on, one after the other.
    ///
    /// Nothing is asked before [`Observer::next`].
    pub fn observe(&self) -> Observer {
        Observer { inner: self.inner.observe() }
    }
}

impl From<crate::Election> for Election {
    fn from(mut inner: crate::Election) -> Self {
        inner.ask.manner = Manner::Blocks;
        Self { inner }
    }
}

/// The lead of an election. A [`LockGuard`] in all it can tell: [`is_held`](LockGuard::is_held) turns false by itself at the deadline.
#[derive(Debug)]
#[must_use = "who drops the lead resigns"]
pub struct Leadership(LockGuard);

impl Leadership {
    /// Replaces the published value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) if this process leads no more; [`ErrorKind::Config`](crate::ErrorKind::Config) for a value that is longer
    /// than [`Election::MAX_VALUE_BYTES`]; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the store does not answer: the value may be
    /// published or not.
    pub fn publish(&self, value: &str) -> Result<(), Error> {
        wait(publish(&self.0.inner, value))
    }

    /// Gives up the lead and waits until the store has taken it. See [`LockGuard::release`].
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    pub fn resign(self) -> Result<(), Error> {
        self.0.release()
    }
}

kind_of_guard!(Leadership);

/// Sees who leads. Made by [`Election::observe`].
///
/// ```
/// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
/// use std::time::Duration;
///
/// let election = locks.election("scheduler");
/// let mut observer = election.observe();
/// assert_eq!(observer.next()?, None);
/// let leadership = election.campaign("here")?;
/// assert_eq!(&*observer.next()?.expect("somebody leads").value, "here");
/// assert_eq!(observer.next_timeout(Duration::from_millis(10))?, None); // nothing has changed
/// leadership.publish("there")?;
/// assert_eq!(&*observer.next()?.expect("somebody leads").value, "there");
/// # Ok::<(), locks_api::Error>(())
/// ```
#[must_use = "it sees nothing before `next`"]
pub struct Observer {
    inner: crate::Observer,
}

impl Observer {
    /// Who leads, or that nobody does: at first at once, later when that or the value has changed.
    ///
    /// Two leaders are never told in the wrong order. What changed back or was followed by another change before it was read is passed over. As long as
    /// nothing changes it waits, if need be for ever; on a current-thread runtime also for what a task of that very runtime would do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the store has been out of reach for longer than the store timeout, and what else it says. It
    /// can be called again.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends, and its items are not results")]
    pub fn next(&mut self) -> Result<Option<Leader>, Error> {
        wait(self.inner.next())
    }

    /// [`next`](Self::next), at most for `timeout`: `None` if nothing changed until then, else who leads or that nobody does. What it did not tell
    /// the next call tells.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Option<Leader>>, Error> {
        wait_timeout(self.inner.next(), timeout).transpose()
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
