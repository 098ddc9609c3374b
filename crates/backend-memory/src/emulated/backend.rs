//! The emulated store as a backend.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, CrashRelease, Events, Fairness, Grant, Guarantees, Inline,
    InstanceId, LossDetection, Offer, Offers, Released, Renewed, Restart, Result, Scope, async_trait,
};

use super::{EmulatedStore, Line};

/// An [`EmulatedStore`] as a backend: its steps travel over a [`Line`].
#[derive(Debug)]
pub struct EmulatedBackend {
    pub(super) store: EmulatedStore,
    /// Tells it from the others over the same store.
    pub(super) number: u64,
    pub(super) line: Line,
    guarantees: Guarantees,
    pub(super) events: OnceLock<Events>,
    pub(super) instance: OnceLock<InstanceId>,
    epoch: AtomicU64,
}

impl EmulatedBackend {
    pub(super) fn new(store: EmulatedStore, number: u64) -> (Self, Line) {
        let line = Line::new();
        let (fairness, offers) = match store.emulation.queue {
            true => (Fairness::Fifo, Offers::ALL),
            // Nobody waits in the store, so it knows nothing of those who do.
            false => (Fairness::None, Offers::ALL.without(Offer::Waiters)),
        };
        let guarantees = Guarantees::new("emulated", Scope::Process)
            .with_ttl(store.emulation.ttl)
            .with_crash_release(CrashRelease::AfterTtl)
            .with_fairness(fairness)
            .with_loss(LossDetection::Pushed)
            .with_restart(Restart::Grace)
            .with_offers(offers);
        let epoch = AtomicU64::new(store.epoch());
        let backend = Self {
            store,
            number,
            line: line.clone(),
            guarantees,
            events: OnceLock::new(),
            instance: OnceLock::new(),
            epoch,
        };
        (backend, line)
    }

    /// Listens to the store under the engine's id, which its first claim tells.
    pub(super) fn listen(&self, claims: &[Claim]) {
        if let (Some(claim), Some(events)) = (claims.first(), self.events.get()) {
            let instance = *self.instance.get_or_init(|| claim.instance);
            self.store.listen(instance, events, &self.line);
        }
    }

    /// Tells the engine if the store has entered a new epoch since the last step.
    pub(super) fn compare_epoch(&self) {
        let epoch = self.store.epoch();
        if self.epoch.swap(epoch, Ordering::SeqCst) != epoch
            && let Some(events) = self.events.get()
        {
            events.reset();
        }
    }
}

#[async_trait]
impl Backend for EmulatedBackend {
    fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    fn subscribe(&self, events: Events) {
        self.line.attach(events.clone());
        self.events.get_or_init(|| events);
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        self.listen(claims);
        let replies =
            self.line.carry(|| claims.iter().map(|claim| self.store.acquire(claim)).collect()).await?;
        self.compare_epoch();
        Ok(replies)
    }

    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        self.line.carry_release(|| claims.iter().for_each(|claim| self.store.cancel(claim))).await?;
        Ok(claims.iter().map(|_| Ok(())).collect())
    }

    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        let give_back = || grants.iter().map(|grant| Ok(self.store.release(grant, false))).collect();
        self.line.carry_release(give_back).await
    }

    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        let replies =
            self.line.carry(|| grants.iter().map(|grant| self.store.renew(grant)).collect()).await?;
        self.compare_epoch();
        Ok(replies)
    }

    async fn close(&self) -> Result<()> {
        self.store.leave(self.number);
        if let Some(instance) = self.instance.get() {
            self.store.stop_listening(*instance);
        }
        Ok(())
    }

    fn inline(&self) -> Option<&dyn Inline> {
        None
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
            .with_recovery(self)
            .with_downgrade(self)
            .with_together(self)
            .with_schedule(self)
            .with_values(self)
            .with_inspect(self)
    }
}
