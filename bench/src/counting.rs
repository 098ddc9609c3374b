//! A backend that counts what it is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, Events, Grant, Guarantees, Inline, Released, Renewed, Result,
    async_trait,
};

/// Passes everything on and counts each step that goes to the store.
#[derive(Debug)]
pub(crate) struct Counting<B> {
    inner: B,
    asked: Arc<AtomicU64>,
}

impl<B: Backend> Counting<B> {
    pub(crate) fn new(inner: B) -> Self {
        Self { inner, asked: Arc::default() }
    }

    /// The number of steps so far, also when the backend has been given away.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.asked)
    }

    fn count(&self) -> &B {
        self.asked.fetch_add(1, Ordering::Relaxed);
        &self.inner
    }

    /// What answers at once, counted. Only backends that answer at once are counted this way.
    fn count_inline(&self) -> &dyn Inline {
        self.count().inline().expect("the backend was asked before whether it answers at once")
    }
}

#[async_trait]
impl<B: Backend> Backend for Counting<B> {
    fn guarantees(&self) -> &Guarantees {
        self.inner.guarantees()
    }

    fn subscribe(&self, events: Events) {
        self.inner.subscribe(events);
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        self.count().acquire(claims).await
    }

    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        self.count().cancel(claims).await
    }

    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        self.count().release(grants).await
    }

    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        self.count().renew(grants).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn inline(&self) -> Option<&dyn Inline> {
        self.inner.inline().map(|_| self as &dyn Inline)
    }

    fn abilities(&self) -> Abilities<'_> {
        self.inner.abilities()
    }
}

impl<B: Backend> Inline for Counting<B> {
    fn acquire(&self, claim: &Claim) -> Result<Attempt> {
        self.count_inline().acquire(claim)
    }

    fn cancel(&self, claim: &Claim) -> Result<()> {
        self.count_inline().cancel(claim)
    }

    fn release(&self, grant: &Grant) -> Result<Released> {
        self.count_inline().release(grant)
    }
}
