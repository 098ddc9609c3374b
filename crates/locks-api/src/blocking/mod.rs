//! The same locks for synchronous code: what the rest of this crate awaits, these types wait for on the calling thread.
//!
//! Names, options, guards and errors are those of the asynchronous API. [`blocking::Locks`](Locks) and [`Locks`](crate::Locks) are made
//! from each other and share one connection: a program may use both, and they queue for the same locks.
//!
//! ```
//! use std::sync::Arc;
//! use std::thread;
//! use std::time::Duration;
//!
//! use locks_api::blocking::Locks;
//! use locks_backend_memory::MemoryBackend;
//!
//! let locks = Locks::new(MemoryBackend::new());
//! let guard = locks.lock("reports/nightly").acquire()?;
//! let waiter = {
//!     let locks = locks.clone();
//!     thread::spawn(move || locks.lock("reports/nightly").run(|| "after the report"))
//! };
//! guard.release()?;
//! assert_eq!(waiter.join().unwrap()?, "after the report");
//! # Ok::<(), locks_api::Error>(())
//! ```
//!
//! # Inside a runtime
//!
//! The calls need no runtime and never panic inside one, but they do block the thread: tasks that share it stand still. Prefer `spawn_blocking`, or await the
//! asynchronous API. The library's own thread does all I/O, so a blocked runtime delays no answer.
//!
//! On a thread that drives a current-thread runtime a wait could last for ever: if a task of that runtime has the lock, or asked for it first, the
//! blocked thread keeps it from giving the lock back. Such a call is an [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock) at once, also with a
//! timeout, which could only run out. A reader that has to wait beside a reader of its own thread gets the same error, possibly only once the store has answered: somebody is
//! waiting for that reader to go.
//!
//! - A task counts where its request was first polled, and a guard where it was asked for. Sending the guard to another thread does not change that.
//! - Guards that were had on other threads, `spawn_blocking` included, or on a runtime with several threads never cause the error, and neither
//!   does a hold that ends by itself ([`max_hold`](Lock::max_hold), or without [`renew`](Lock::renew)), nor permits of which enough are elsewhere.
//! - A `try` and a timeout of zero do not wait and never get it.
//! - It is known for one [`Locks`] and its clones. What waits for a guard in a roundabout way (through a channel, another lock, a second `Locks`) can't be seen.
//!
//! On plain threads a raw guard is no obstacle of that kind: who asks again for a lock that it holds waits until some other thread drops the guard.
//!
//! # The bodies of `run`
//!
//! A body is a closure. It can't be stopped from outside, so a lock that is lost meanwhile is reported afterwards, as an
//! [`ErrorKind::Lost`](crate::ErrorKind::Lost) instead of the body's output; a long body asks [`current`](crate::current) now and then. If it panics, the lock
//! is released. Asking for the same lock inside is an [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock) on any thread's own call stack, whether
//! the outer or the inner call is blocking or asynchronous.

mod election;
mod guard;
mod inspection;
mod lock;
mod lock_all;
mod locks;
mod park;
mod rw_lock;
mod semaphore;
mod waiting;

pub use election::{Election, Leadership, Observer};
pub use guard::LockGuard;
pub use lock::Lock;
pub use lock_all::{LockAll, LockAllGuard};
pub use locks::{Locks, LocksBuilder};
#[doc(hidden)]
pub use park::wait;
pub use rw_lock::{ReadGuard, RwLock, WriteGuard};
pub use semaphore::{Permit, Semaphore};
pub use waiting::Waiting;
