//! The same locks for synchronous code: what the rest of this crate awaits, these types wait for on the calling thread.
//!
//! [`connect`] opens a store; names, options, guards and errors are those of the asynchronous API. [`Locks`] and
//! [`locks::Locks`](crate::Locks) are made from each other and share one connection.
//!
//! ```
//! # fn main() -> locks::Result<()> {
//! # #[cfg(feature = "memory")] {
//! let locks = locks::blocking::connect("memory:")?;
//! let guard = locks.lock("reports/nightly").acquire()?;
//! assert!(locks.lock("reports/nightly").try_acquire()?.is_none());
//! guard.release()?;
//! let sum = locks.lock("sums").run(|| 1 + 2)?;
//! assert_eq!(sum, 3);
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! The calls may be made inside a runtime: they never panic there, and where they could never end they are an
//! [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock). [`locks_api::blocking`] says when that is, and what becomes of a body whose lock is lost.

#[doc(inline)]
pub use locks_api::blocking::*;

use crate::{Result, SetUp};

/// Opens the store that `url` names. The URLs are those of [`locks::connect`](crate::connect).
///
/// A store that is reached over a network is contacted when the first lock is asked for, not here.
///
/// # Errors
///
/// As [`locks::connect`](crate::connect).
pub fn connect(url: &str) -> Result<Locks> {
    wait(crate::connect(url)).map(Locks::from)
}

/// The same as [`connect`], for a `Locks` with other options: a label, a store timeout.
///
/// # Errors
///
/// As [`connect`].
pub fn builder(url: &str) -> Result<LocksBuilder> {
    wait(crate::builder(url)).map(LocksBuilder::from)
}

/// Makes the store that `url` names ready, as [`locks::set_up`](crate::set_up) does. Only for a store that is known to be new.
///
/// Takes a few seconds at most, also if the store can't be reached.
///
/// # Errors
///
/// As [`locks::set_up`](crate::set_up).
pub fn set_up(url: &str) -> Result<SetUp> {
    wait(crate::set_up(url))
}
