//! Who holds and waits, for operators.

use std::pin::Pin;

use crate::error::{Error, ErrorKind};
use crate::locks::Locks;
use crate::name::LockName;
use crate::spi::{ClaimId, Inspect, LockState, Offer};

impl Locks {
    /// Who holds the lock of this name and who waits for it. Takes nothing and is in nobody's way.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where the store can't tell; [`ErrorKind::InvalidName`]; [`ErrorKind::Unavailable`] and what else the store says.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point.
    ///
    /// # Example
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
    /// let guard = locks.lock("x").label("import").acquire().await?;
    /// let state = locks.inspect("x").await?;
    /// let holder = state.holders[0].holder.as_ref().expect("it is known");
    /// assert_eq!(holder.label.as_deref(), Some("import"));
    /// # drop(guard);
    /// # Ok::<(), locks_api::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn inspect(&self, name: impl AsRef<str>) -> Result<LockState, Error> {
        let name = LockName::new(name)?;
        let asked = name.clone();
        let answer = self.put("inspect", Some(&name), Offer::Inspection, |inspect| {
            Box::pin(async move { inspect.state(&asked).await })
        });
        answer.await
    }

    /// All locks that are held or waited for and whose names begin with `prefix`, by name.
    ///
    /// # Errors
    ///
    /// As [`inspect`](Self::inspect).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point.
    pub async fn list(&self, prefix: impl AsRef<str>) -> Result<Vec<LockState>, Error> {
        let prefix = prefix.as_ref().to_owned();
        let answer = self.put("list", None, Offer::Inspection, |inspect| {
            Box::pin(async move { inspect.list(&prefix).await })
        });
        answer.await
    }

    /// Takes the lock from all who hold it, whoever they are, and says from how many. It goes to whoever is next.
    ///
    /// Each of them is told that it lost the lock ([`LossReason::Revoked`](crate::LossReason::Revoked)), at its next renewal at the latest: until then
    /// only fencing tokens keep it from doing harm.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where the store can't; otherwise as [`inspect`](Self::inspect).
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is done whether or not the future is dropped.
    pub async fn break_lock(&self, name: impl AsRef<str>) -> Result<u32, Error> {
        self.take_from(LockName::new(name)?, None).await
    }

    /// [`break_lock`](Self::break_lock) for one holder alone, as [`inspect`](Self::inspect) names it.
    ///
    /// # Errors
    ///
    /// As [`break_lock`](Self::break_lock).
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is done whether or not the future is dropped.
    pub async fn break_claim(&self, name: impl AsRef<str>, claim: ClaimId) -> Result<u32, Error> {
        self.take_from(LockName::new(name)?, Some(claim)).await
    }

    /// Asks all who hold the lock to give it back soon ([`LockGuard::asked`](crate::LockGuard::asked)), and says how many were reached. What they do about it
    /// is up to them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where the store can't; otherwise as [`inspect`](Self::inspect).
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is done whether or not the future is dropped.
    pub async fn revoke(&self, name: impl AsRef<str>) -> Result<u32, Error> {
        self.ask_back(LockName::new(name)?, None).await
    }

    /// [`revoke`](Self::revoke) for one holder alone, as [`inspect`](Self::inspect) names it.
    ///
    /// # Errors
    ///
    /// As [`revoke`](Self::revoke).
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is done whether or not the future is dropped.
    pub async fn revoke_claim(&self, name: impl AsRef<str>, claim: ClaimId) -> Result<u32, Error> {
        self.ask_back(LockName::new(name)?, Some(claim)).await
    }

    async fn take_from(&self, name: LockName, claim: Option<ClaimId>) -> Result<u32, Error> {
        let asked = name.clone();
        let answer = self.put("break", Some(&name), Offer::Breaking, move |inspect| {
            Box::pin(async move { inspect.break_lock(&asked, claim).await })
        });
        answer.await
    }

    async fn ask_back(&self, name: LockName, claim: Option<ClaimId>) -> Result<u32, Error> {
        let asked = name.clone();
        let answer = self.put("revoke", Some(&name), Offer::Revoking, move |inspect| {
            Box::pin(async move { inspect.revoke(&asked, claim).await })
        });
        answer.await
    }

    /// Puts a question to the store, if it offers that.
    async fn put<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: Option<&LockName>,
        offer: Offer,
        question: impl for<'a> FnOnce(&'a dyn Inspect) -> Inspection<'a, T> + Send + 'static,
    ) -> Result<T, Error> {
        let located = |error: Error| match name {
            Some(name) => error.at(self.guarantees().backend, operation, name),
            None => error,
        };
        self.handle().offers(offer).map_err(located)?;
        let answer = self.handle().engine.ask(|engine| async move {
            match engine.backend().abilities().inspect {
                Some(inspect) => question(inspect).await,
                None => Err(Error::new(ErrorKind::Unsupported, "the backend lacks what it offers")),
            }
        });
        answer.await.map_err(located)
    }
}

/// A question to a store's [`Inspect`].
type Inspection<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;
