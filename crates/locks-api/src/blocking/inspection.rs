//! Who holds and waits, for operators whose code is synchronous.

use super::Locks;
use super::park::wait;
use crate::error::Error;
use crate::spi::{ClaimId, LockState};

impl Locks {
    /// Who holds the lock of this name and who waits for it. Takes nothing and is in nobody's way.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the store can't tell; [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName);
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and what else the store says.
    ///
    /// # Example
    ///
    /// ```
    /// # let locks = locks_api::blocking::Locks::new(locks_backend_memory::MemoryBackend::new());
    /// let guard = locks.lock("x").label("import").acquire()?;
    /// let state = locks.inspect("x")?;
    /// let holder = state.holders[0].holder.as_ref().expect("it is known");
    /// assert_eq!(holder.label.as_deref(), Some("import"));
    /// # drop(guard);
    /// # Ok::<(), locks_api::Error>(())
    /// ```
    pub fn inspect(&self, name: impl AsRef<str>) -> Result<LockState, Error> {
        wait(self.inner.inspect(name))
    }

    /// All locks that are held or waited for and whose names begin with `prefix`, by name.
    ///
    /// # Errors
    ///
    /// As [`inspect`](Self::inspect).
    pub fn list(&self, prefix: impl AsRef<str>) -> Result<Vec<LockState>, Error> {
        wait(self.inner.list(prefix))
    }

    /// Takes the lock from all who hold it, whoever they are, and says from how many. It goes to whoever is next.
    ///
    /// Each of them is told that it lost the lock ([`LossReason::Revoked`](crate::LossReason::Revoked)), at its next renewal at the latest: until then
    /// only fencing tokens keep it from doing harm.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the store can't; otherwise as [`inspect`](Self::inspect).
    pub fn break_lock(&self, name: impl AsRef<str>) -> Result<u32, Error> {
        wait(self.inner.break_lock(name))
    }

    /// [`break_lock`](Self::break_lock) for one holder alone, as [`inspect`](Self::inspect) names it.
    ///
    /// # Errors
    ///
    /// As [`break_lock`](Self::break_lock).
    pub fn break_claim(&self, name: impl AsRef<str>, claim: ClaimId) -> Result<u32, Error> {
        wait(self.inner.break_claim(name, claim))
    }

    /// Asks all who hold the lock to give it back soon ([`LockGuard::asked`](super::LockGuard::asked)), and says how many were reached. What they do about it
    /// is up to them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the store can't; otherwise as [`inspect`](Self::inspect).
    pub fn revoke(&self, name: impl AsRef<str>) -> Result<u32, Error> {
        wait(self.inner.revoke(name))
    }

    /// [`revoke`](Self::revoke) for one holder alone, as [`inspect`](Self::inspect) names it.
    ///
    /// # Errors
    ///
    /// As [`revoke`](Self::revoke).
    pub fn revoke_claim(&self, name: impl AsRef<str>, claim: ClaimId) -> Result<u32, Error> {
        wait(self.inner.revoke_claim(name, claim))
    }
}
