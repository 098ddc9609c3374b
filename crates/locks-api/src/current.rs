//! The lock that the running code runs under, as the code can ask for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clock::Deadline;
use crate::engine::Lease;
use crate::locks::Handle;
use crate::name::LockName;
use crate::scope;
use crate::spi::Mode;
use crate::token::FencingToken;

/// The innermost lock that the running code runs under, or `None` outside of all.
///
/// Known inside a decorated function, [`Lock::run`](crate::Lock::run) and their like, and in all that they call on their own task or, where they
/// are synchronous, on their own thread. A task or a thread that was spawned there runs under nothing, and a guard that was simply acquired
/// is not asked for this way: it is at hand.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
/// fn write(rows: &mut Vec<u64>) {
///     if let Some(lock) = locks_api::current() {
///         rows.push(lock.fencing_token().get()); // the store refuses smaller ones
///     }
/// }
///
/// let mut rows = Vec::new();
/// locks.lock("rows").run(async { write(&mut rows) }).await?;
/// assert_eq!(rows.len(), 1);
/// assert!(locks_api::current().is_none());
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
pub fn current() -> Option<Current> {
    scope::innermost(|frame| Current {
        handle: Arc::clone(&frame.handle),
        name: frame.name.clone(),
        token: frame.token,
        lease: Arc::clone(&frame.lease),
        ended: Arc::clone(frame.ended()),
    })
}

/// A lock that code runs under, from [`current`]. It holds nothing: the lock is given back when the body ends, and this then says that it is
/// not held.
#[derive(Clone)]
pub struct Current {
    handle: Arc<Handle>,
    name: LockName,
    token: FencingToken,
    lease: Arc<Lease>,
    ended: Arc<AtomicBool>,
}

impl Current {
    /// The lock's name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The number of this grant: larger than that of every earlier holder of this lock.
    pub fn fencing_token(&self) -> FencingToken {
        self.token
    }

    /// How the lock is held.
    pub fn mode(&self) -> Mode {
        self.lease.mode()
    }

    /// Whether the body still runs and the lock is held at this instant: a local check, as [`LockGuard::is_held`](crate::LockGuard::is_held).
    pub fn is_held(&self) -> bool {
        !self.ended.load(Ordering::Acquire) && self.lease.is_held() && !self.handle.engine.is_forked()
    }

    /// Until when the lock is held if it is not renewed; `None` if it does not expire, or is not held any more.
    pub fn deadline(&self) -> Option<Deadline> {
        if !self.is_held() {
            return None;
        }
        self.lease.deadline().map(Deadline)
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current")
            .field("name", &self.name)
            .field("token", &self.token.get())
            .field("held", &self.is_held())
            .finish_non_exhaustive()
    }
}
