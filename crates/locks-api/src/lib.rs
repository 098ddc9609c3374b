#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod ask;
pub mod blocking;
mod busy;
mod caller;
mod clock;
mod current;
#[doc(hidden)]
pub mod decorated;
mod election;
mod engine;
mod error;
mod fence;
mod fork;
mod guard;
mod holder;
mod inspection;
mod lock;
mod lock_all;
mod locks;
mod loss;
mod name;
mod observe;
mod outcome;
mod process_default;
mod request;
mod rw_lock;
mod scope;
mod semaphore;
pub mod spi;
mod token;
mod waiting;

pub use busy::Busy;
pub use clock::{Boottime, Deadline};
pub use current::{Current, current};
pub use election::{Election, Leadership, Observer};
pub use error::{Error, ErrorKind};
pub use fence::{FenceGate, StaleToken};
pub use guard::LockGuard;
pub use holder::Holder;
pub use lock::Lock;
pub use lock_all::{LockAll, LockAllGuard};
pub use locks::{Locks, LocksBuilder};
pub use loss::LossReason;
pub use name::LockName;
pub use outcome::Outcome;
pub use process_default::{install, with_default, with_default_blocking};
pub use rw_lock::{ReadGuard, RwLock, WriteGuard};
pub use semaphore::{Permit, Semaphore};
pub use spi::{HeldBy, Leader, LockState, Mode, WaitingFor};
pub use token::FencingToken;
pub use waiting::{WaitStatus, Waiting};

/// What operations on locks return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
