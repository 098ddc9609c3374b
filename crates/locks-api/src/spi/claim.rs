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
        }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// By one holder alone.
    Exclusive,
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
