//! A bad connection to a good store: answers that get lost, steps that are done twice, a store out of reach.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use async_trait::async_trait;
use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, Events, Grant, Guarantees, Inline, Released, Renewed,
    Result as StepResult,
};
use locks_api::{Error, ErrorKind};
use tokio::sync::Notify;

use crate::harness::AnyBackend;
use crate::recording::{self, Target};

mod abilities;

/// A backend behind a bad connection.
#[derive(Debug)]
pub(crate) struct Flaky {
    inner: AnyBackend,
    control: Arc<Control>,
}

/// How bad the connection is.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// How many steps were asked for.
    pub(crate) steps: AtomicU64,
    /// How many steps of each hundred are done, while their answer is lost.
    pub(crate) lost_answers: AtomicU32,
    /// How many steps of each hundred never arrive.
    pub(crate) lost_questions: AtomicU32,
    /// How many steps of each hundred arrive twice.
    pub(crate) doubled: AtomicU32,
    /// Nothing arrives and nothing comes back.
    pub(crate) cut: AtomicBool,
    /// The answer to the next release is lost, and every further release waits for [`Control::admit_releases`].
    pub(crate) lose_release: AtomicBool,
    hold_releases: AtomicBool,
    release_lost: Notify,
    releases_admitted: Notify,
}

impl Control {
    /// Ready once the answer to a release was lost.
    pub(crate) async fn release_lost(&self) {
        self.release_lost.notified().await;
    }

    /// Lets releases through again.
    pub(crate) fn admit_releases(&self) {
        self.hold_releases.store(false, Ordering::SeqCst);
        self.releases_admitted.notify_waiters();
    }

    async fn until_releases_are_admitted(&self) {
        loop {
            let mut admitted = std::pin::pin!(self.releases_admitted.notified());
            // Listens before it looks, so that nothing falls between.
            admitted.as_mut().enable();
            if !self.hold_releases.load(Ordering::SeqCst) {
                return;
            }
            admitted.await;
        }
    }

    fn happens(&self, percent: &AtomicU32) -> bool {
        fastrand::u32(..100) < percent.load(Ordering::Relaxed)
    }

    /// Whether the step arrives, and how often.
    fn arrivals(&self) -> StepResult<u32> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        if self.cut.load(Ordering::SeqCst) || self.happens(&self.lost_questions) {
            return Err(lost("a question is lost"));
        }
        if self.happens(&self.doubled) {
            recording::strikes(Target::Messages, "a question arrives twice");
            return Ok(2);
        }
        Ok(1)
    }

    fn answer<T>(&self, answer: StepResult<T>) -> StepResult<T> {
        if self.cut.load(Ordering::SeqCst) || self.happens(&self.lost_answers) {
            return Err(lost("an answer is lost"));
        }
        answer
    }
}

fn lost(what: &str) -> Error {
    recording::strikes(Target::Messages, what);
    Error::new(ErrorKind::Unavailable, "the kit lost this message on purpose")
}

impl Flaky {
    pub(crate) fn new(inner: AnyBackend) -> (Self, Arc<Control>) {
        let control = Arc::new(Control::default());
        (Self { inner, control: Arc::clone(&control) }, control)
    }
}

#[async_trait]
impl Backend for Flaky {
    fn guarantees(&self) -> &Guarantees {
        self.inner.guarantees()
    }

    fn subscribe(&self, events: Events) {
        self.inner.subscribe(events);
    }

    async fn acquire(&self, claims: &[Claim]) -> StepResult<Vec<StepResult<Attempt>>> {
        for _ in 1..self.control.arrivals()? {
            self.control.answer(self.inner.acquire(claims).await)?;
        }
        self.control.answer(self.inner.acquire(claims).await)
    }

    async fn cancel(&self, claims: &[Claim]) -> StepResult<Vec<StepResult<()>>> {
        for _ in 1..self.control.arrivals()? {
            self.control.answer(self.inner.cancel(claims).await)?;
        }
        self.control.answer(self.inner.cancel(claims).await)
    }

    async fn release(&self, grants: &[Grant]) -> StepResult<Vec<StepResult<Released>>> {
        self.control.until_releases_are_admitted().await;
        let arrivals = self.control.arrivals()?;
        let answer = self.inner.release(grants).await;
        if self.control.lose_release.swap(false, Ordering::SeqCst) {
            self.control.hold_releases.store(true, Ordering::SeqCst);
            self.control.release_lost.notify_one();
            return Err(lost("the answer to a release is lost"));
        }
        if arrivals > 1 {
            // The second arrival finds nothing to release; the first answer is the one that counts.
            self.inner.release(grants).await?;
        }
        self.control.answer(answer)
    }

    async fn renew(&self, grants: &[Grant]) -> StepResult<Vec<Renewed>> {
        for _ in 1..self.control.arrivals()? {
            self.control.answer(self.inner.renew(grants).await)?;
        }
        self.control.answer(self.inner.renew(grants).await)
    }

    async fn close(&self) -> StepResult<()> {
        self.inner.close().await
    }

    fn inline(&self) -> Option<&dyn Inline> {
        None
    }

    fn abilities(&self) -> Abilities<'_> {
        self.abilities_of_inner()
    }
}
