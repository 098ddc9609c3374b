#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod busy;
mod clock;
mod engine;
mod error;
mod fence;
mod fork;
mod guard;
mod holder;
mod lock;
mod locks;
mod loss;
mod name;
mod observe;
mod outcome;
mod scope;
pub mod spi;
mod token;

pub use busy::Busy;
pub use clock::{Boottime, Deadline};
pub use error::{Error, ErrorKind};
pub use fence::{FenceGate, StaleToken};
pub use guard::LockGuard;
pub use holder::Holder;
pub use lock::Lock;
pub use locks::{Locks, LocksBuilder};
pub use loss::LossReason;
pub use name::LockName;
pub use outcome::Outcome;
pub use token::FencingToken;

/// What operations on locks return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
