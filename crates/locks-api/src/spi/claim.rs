//! What is asked of a store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::holder::Holder;
use crate::name::LockName;

/// One attempt to get one lock, by one process.
///
/// Cloning is cheap.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// Names this attempt, for ever.
    pub id: ClaimId,
    /// The process's `Locks` that asks.
    pub instance: InstanceId,
    /// What is asked for. Already checked.
    pub name: LockName,
    /// How it is to be held.
    pub mode: Mode,
    /// The lease that shall carry the grant, for stores that renew many grants as one; others ignore it.
    pub lease: LeaseId,
    /// How long the store keeps others out when it hears nothing more. Already checked against
    /// [`Guarantees::ttl`](super::Guarantees::ttl); `None` for stores without expiry.
    pub ttl: Option<Duration>,
    /// Whether the store may queue the claim.
    pub may_wait: bool,
    /// Who asks, for people to read.
    pub holder: Arc<Holder>,
    /// What few claims have. Apart, since claims are moved about.
    pub extras: Option<Arc<Extras>>,
}

/// What few claims have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extras {
    /// See [`Claim::min_hold`].
    pub min_hold: Option<Duration>,
    /// See [`Claim::once_per`].
    pub once_per: Option<Duration>,
    /// See [`Claim::value`].
    pub value: Option<Arc<str>>,
}

impl Claim {
    /// A claim of this name that may not wait, with a new id and no ttl. The engine makes claims; this is for tests of a backend
    /// that call its steps directly.
    pub fn new(name: LockName, instance: InstanceId) -> Self {
        Self {
            id: ClaimId::random(),
            instance,
            name,
            mode: Mode::Exclusive,
            lease: LeaseId::FIRST,
            ttl: None,
            may_wait: false,
            holder: Arc::new(Holder::this_process()),
            extras: None,
        }
    }

    /// For how long from its grant nobody else may get the lock, even after it was given back; only with
    /// [`Offer::Schedule`](super::Offer::Schedule).
    pub fn min_hold(&self) -> Option<Duration> {
        self.extras.as_ref()?.min_hold
    }

    /// How long ago the last completed hold must have been granted; only with [`Offer::Schedule`](super::Offer::Schedule).
    pub fn once_per(&self) -> Option<Duration> {
        self.extras.as_ref()?.once_per
    }

    /// What everybody may read while this claim holds the lock; only with [`Offer::Values`](super::Offer::Values).
    pub fn value(&self) -> Option<&Arc<str>> {
        self.extras.as_ref()?.value.as_ref()
    }

    /// The same claim, held like this.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The same claim, after whose grant nobody else gets the lock for so long.
    #[must_use]
    pub fn with_min_hold(mut self, min_hold: Duration) -> Self {
        self.extras_mut().min_hold = Some(min_hold);
        self
    }

    /// The same claim, which is not due before so much time has passed since the grant of the last completed hold.
    #[must_use]
    pub fn with_once_per(mut self, interval: Duration) -> Self {
        self.extras_mut().once_per = Some(interval);
        self
    }

    /// The same claim, which publishes this value.
    #[must_use]
    pub fn with_value(mut self, value: impl Into<Arc<str>>) -> Self {
        self.extras_mut().value = Some(value.into());
        self
    }

    fn extras_mut(&mut self) -> &mut Extras {
        Arc::make_mut(self.extras.get_or_insert_default())
    }

    /// The same claim, which may wait.
    #[must_use]
    pub fn waiting(mut self) -> Self {
        self.may_wait = true;
        self
    }

    /// The same claim with this ttl.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// How a lock is held.
///
/// All modes of one name are one lock: two claims of it may hold together only as [compatible](Mode::is_compatible) ones. A claim also
/// MUST NOT pass an earlier claim that waits and is not compatible with it, so that readers don't starve a writer and claims of one
/// permit don't starve one of many. Claims for permits are served strictly in order among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// By one holder alone.
    Exclusive,
    /// Together with others that only share it.
    Shared,
    /// As `count` of the `limit` permits that the lock has.
    ///
    /// The limit is in force while any claim of permits holds or waits: a claim with another one is then an
    /// [`ErrorKind::LimitMismatch`](crate::ErrorKind::LimitMismatch). An idle semaphore takes the limit of the next claim. `1 ≤ count ≤ limit` is
    /// checked before the store is asked. What a claim holds belongs to it: a store MUST NOT keep a bare count, which a crash would leave
    /// wrong for ever.
    Permits {
        /// How many this claim takes.
        count: u32,
        /// How many there are.
        limit: u32,
    },
}

impl Mode {
    /// Whether a claim of this mode may hold while one of `other` does; permits, as long as they last.
    pub const fn is_compatible(self, other: Self) -> bool {
        matches!((self, other), (Self::Shared, Self::Shared) | (Self::Permits { .. }, Self::Permits { .. }))
    }

    /// Whether a claim of this mode may hold beside all of these: compatible with each, and within the limit.
    ///
    /// ```
    /// use locks_api::Mode;
    ///
    /// let two = Mode::Permits { count: 2, limit: 5 };
    /// assert!(two.fits_beside([two]));
    /// assert!(!two.fits_beside([two, two]));
    /// assert!(!Mode::Exclusive.fits_beside([Mode::Shared]));
    /// ```
    pub fn fits_beside(self, held: impl IntoIterator<Item = Self>) -> bool {
        let mut permits = u64::from(self.permits());
        for other in held {
            if !self.is_compatible(other) {
                return false;
            }
            permits += u64::from(other.permits());
        }
        self.limit().is_none_or(|limit| permits <= u64::from(limit))
    }

    /// How many permits there are, as this claim has it; `None` unless it is for permits.
    pub const fn limit(self) -> Option<u32> {
        match self {
            Self::Permits { limit, .. } => Some(limit),
            Self::Exclusive | Self::Shared => None,
        }
    }

    /// How many permits it takes: none unless it is for permits.
    pub const fn permits(self) -> u32 {
        match self {
            Self::Permits { count, .. } => count,
            Self::Exclusive | Self::Shared => 0,
        }
    }
}

/// Reads as "exclusive", "shared" or "2 of 5 permits".
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusive => f.write_str("exclusive"),
            Self::Shared => f.write_str("shared"),
            Self::Permits { count, limit } => write!(f, "{count} of {limit} permits"),
        }
    }
}

/// 128 random bits that name one claim.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(u128);

/// 128 random bits that name one [`Locks`](crate::Locks) of one process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(u128);

macro_rules! random_id {
    ($type:ident) => {
        impl $type {
            /// A new id. Random, so that processes need not agree on who uses which.
            pub fn random() -> Self {
                Self(fastrand::u128(1..))
            }

            /// The id with these bits.
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// The bits.
            pub const fn to_bits(self) -> u128 {
                self.0
            }
        }

        /// 32 hexadecimal digits.
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({:032x})"), self.0)
            }
        }
    };
}

random_id!(ClaimId);
random_id!(InstanceId);

/// Numbers the leases of one [`InstanceId`]: the engine moves to the next one when a release
/// can't be delivered, so that the old lease, and with it the debt, can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(u32);

impl LeaseId {
    /// The lease that every instance starts with.
    pub const FIRST: Self = Self(1);

    /// The lease after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}
