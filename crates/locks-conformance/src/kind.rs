//! The kinds of locks, as one thing that cases and workers ask for and hold.

use std::time::Duration;

use locks_api::spi::Offer;
use locks_api::{
    FencingToken, Leadership, LockAllGuard, LockGuard, Locks, Mode, Permit, ReadGuard, Result, WriteGuard,
};
use serde::{Deserialize, Serialize};

/// A kind of lock, and what of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The exclusive lock.
    Lock,
    /// A reader/writer lock, shared.
    Read,
    /// A reader/writer lock, alone.
    Write,
    /// So many permits of a semaphore.
    Permits { count: u32, limit: u32 },
    /// This lock and others together.
    All { also: Vec<String> },
    /// The lead of an election.
    Leader { value: String },
}

impl Kind {
    /// What a store has to offer for it.
    pub(crate) fn offer(&self) -> Option<Offer> {
        match self {
            Self::Lock | Self::All { .. } => None,
            Self::Read | Self::Write => Some(Offer::Shared),
            Self::Permits { .. } => Some(Offer::Permits),
            Self::Leader { .. } => Some(Offer::Values),
        }
    }

    /// How a store holds it.
    pub(crate) fn mode(&self) -> Mode {
        match *self {
            Self::Read => Mode::Shared,
            Self::Permits { count, limit } => Mode::Permits { count, limit },
            Self::Lock | Self::Write | Self::All { .. } | Self::Leader { .. } => Mode::Exclusive,
        }
    }
}

/// What is asked for, with options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Want {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) ttl: Option<Duration>,
    /// Only for locks that have it.
    pub(crate) min_hold: Option<Duration>,
    pub(crate) label: Option<String>,
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
enum Patience {
    Try,
    For(Duration),
    Endless,
}

impl Want {
    pub(crate) fn new(kind: Kind, name: &str) -> Self {
        Self { name: name.to_owned(), kind, ttl: None, min_hold: None, label: None }
    }

    pub(crate) fn ttl(mut self, ttl: Option<Duration>) -> Self {
        self.ttl = ttl;
        self
    }

    pub(crate) fn min_hold(mut self, least: Duration) -> Self {
        self.min_hold = Some(least);
        self
    }

    /// Waits for it.
    pub(crate) async fn acquire(&self, locks: &Locks) -> Result<Held> {
        self.take(locks, Patience::Endless).await.map(|held| held.expect("a wait ends with a guard"))
    }

    /// Waits for it for so long.
    pub(crate) async fn acquire_timeout(&self, locks: &Locks, timeout: Duration) -> Result<Held> {
        self.take(locks, Patience::For(timeout)).await.map(|held| held.expect("a wait ends with a guard"))
    }

    /// Tries to have it now.
    pub(crate) async fn try_acquire(&self, locks: &Locks) -> Result<Option<Held>> {
        self.take(locks, Patience::Try).await
    }

    async fn take(&self, locks: &Locks, patience: Patience) -> Result<Option<Held>> {
        /// Asks in one of the three ways.
        macro_rules! ask {
            ($lock:expr, $held:path, $wait:ident $try:ident $timeout:ident ($($of:expr)?)) => {
                match patience {
                    Patience::Try => Ok($lock.$try($($of)?).await?.map($held)),
                    Patience::For(timeout) => $lock.$timeout($($of,)? timeout).await.map($held).map(Some),
                    Patience::Endless => $lock.$wait($($of)?).await.map($held).map(Some),
                }
            };
        }
        /// With these options, where they are asked for.
        macro_rules! with {
            ($lock:expr, $($option:ident)+) => {{
                let mut lock = $lock;
                $(if let Some(value) = &self.$option {
                    lock = lock.$option(value.clone());
                })+
                lock
            }};
        }
        match &self.kind {
            Kind::Lock => {
                let lock = with!(locks.lock(&self.name), ttl min_hold label);
                ask!(lock, Held::Lock, acquire try_acquire acquire_timeout())
            }
            Kind::Read => {
                let lock = with!(locks.rw_lock(&self.name), ttl min_hold label);
                ask!(lock, Held::Read, read try_read read_timeout())
            }
            Kind::Write => {
                let lock = with!(locks.rw_lock(&self.name), ttl min_hold label);
                ask!(lock, Held::Write, write try_write write_timeout())
            }
            Kind::Permits { count, limit } => {
                let semaphore = with!(locks.semaphore(&self.name, *limit), ttl min_hold label);
                ask!(semaphore, Held::Permit, acquire_many try_acquire_many acquire_many_timeout(*count))
            }
            Kind::All { also } => {
                let names = also.iter().map(String::as_str).chain([self.name.as_str()]);
                let all = with!(locks.lock_all(names), ttl label);
                ask!(all, Held::All, acquire try_acquire acquire_timeout())
            }
            Kind::Leader { value } => {
                let election = with!(locks.election(&self.name), ttl label);
                ask!(election, Held::Leader, campaign try_campaign campaign_timeout(value))
            }
        }
    }
}

/// What somebody has who asked for it.
#[derive(Debug)]
pub(crate) enum Held {
    Lock(LockGuard),
    Read(ReadGuard),
    Write(WriteGuard),
    Permit(Permit),
    All(LockAllGuard),
    Leader(Leadership),
}

impl Held {
    /// The guards of all its locks.
    pub(crate) fn guards(&self) -> &[LockGuard] {
        match self {
            Self::Lock(guard) => std::slice::from_ref(guard),
            Self::Read(guard) => std::slice::from_ref(guard),
            Self::Write(guard) => std::slice::from_ref(guard),
            Self::Permit(permit) => std::slice::from_ref(permit),
            Self::All(all) => all.guards(),
            Self::Leader(leadership) => std::slice::from_ref(leadership),
        }
    }

    /// The guard of its only lock, or of the first.
    pub(crate) fn guard(&self) -> &LockGuard {
        &self.guards()[0]
    }

    pub(crate) fn token(&self) -> FencingToken {
        self.guard().fencing_token()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.guards().iter().all(LockGuard::is_held)
    }

    pub(crate) async fn release(self) -> Result<()> {
        match self {
            Self::Lock(guard) => guard.release().await,
            Self::Read(guard) => guard.release().await,
            Self::Write(guard) => guard.release().await,
            Self::Permit(permit) => permit.release().await,
            Self::All(all) => all.release().await,
            Self::Leader(leadership) => leadership.resign().await,
        }
    }
}
