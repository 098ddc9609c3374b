//! What the server says on its own, over the same connection as its answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use locks_api::spi::{Claim, ClaimId, Events, StoreClock};
use locks_api::{Boottime, LockName};
use redis::{PushInfo, PushKind, Value};

use crate::record::{self, Message};

/// Hands on to the engine what the server says.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    /// Whether a pushed grant counts only once its renewal was answered, since that asks the replicas.
    confirms_first: bool,
    events: OnceLock<Events>,
    /// The claims that may be granted by a push: a message names no more than the claim.
    waiting: Mutex<HashMap<ClaimId, Claim>>,
    /// The server's latest time that is known.
    clock: Mutex<Option<StoreClock>>,
}

impl Listener {
    pub(crate) fn new(confirms_first: bool) -> Self {
        Self { confirms_first, ..Self::default() }
    }

    pub(crate) fn subscribe(&self, events: Events) {
        self.events.get_or_init(|| events);
    }

    /// The claims that may wait are about to be sent.
    pub(crate) fn expect<'a>(&self, claims: impl Iterator<Item = &'a Claim>) {
        self.waiting().extend(claims.filter(|claim| claim.may_wait).map(|claim| (claim.id, claim.clone())));
    }

    /// These claims wait no more.
    pub(crate) fn forget(&self, claims: impl Iterator<Item = ClaimId>) {
        let mut waiting = self.waiting();
        for claim in claims {
            waiting.remove(&claim);
        }
    }

    /// The server showed `time` in the answer to what was sent at `sent`.
    pub(crate) fn set_clock(&self, sent: Boottime, time: Duration) {
        *self.clock() = Some(StoreClock::new(sent, time));
    }

    /// The store is in a new epoch, and may be another server with another clock.
    pub(crate) fn reset(&self) {
        *self.clock() = None;
        if let Some(events) = self.events.get() {
            events.reset();
        }
    }

    /// What to do with what comes over a connection. Says `broken` once it is gone.
    pub(crate) fn ear(
        self: &Arc<Self>,
        broken: Arc<AtomicBool>,
    ) -> impl Fn(PushInfo) -> Result<(), Deaf> + use<> {
        let listener = Arc::clone(self);
        move |push| {
            match push.kind {
                PushKind::Message => listener.hear(&push.data),
                PushKind::Disconnection => {
                    broken.store(true, Ordering::Release);
                    // Whoever waits asks again, over a new connection.
                    if let Some(events) = listener.events.get() {
                        events.resync();
                    }
                }
                _ => {}
            }
            Ok(())
        }
    }

    fn hear(&self, data: &[Value]) {
        let (Some(Value::BulkString(payload)), Some(events)) = (data.get(1), self.events.get()) else {
            return;
        };
        let Some(message) = std::str::from_utf8(payload).ok().and_then(Message::parse) else { return };
        match message {
            Message::Granted(claim, rest) => {
                // A claim that was cancelled meanwhile is undone by its cancellation.
                let Some(claim) = self.waiting().remove(&claim) else { return };
                if let Some(grant) = record::granted(&claim, rest) {
                    events.granted(
                        grant,
                        record::written_at(rest)
                            .filter(|_| !self.confirms_first)
                            .and_then(|time| self.since(time)),
                    );
                }
            }
            Message::Lost(claim, reason, name) => about(name, |name| events.lost(name, claim, None, reason)),
            Message::Asked(claim, name) => about(name, |name| events.asked(name, claim)),
            Message::Hint(name) => about(name, |name| events.hint(name)),
            Message::Changed(name) => about(name, |name| events.changed(name)),
        }
    }

    /// An instant that had not passed when the server's clock showed `time`, if both clocks run at the same rate.
    fn since(&self, time: Duration) -> Option<Boottime> {
        self.clock().map(|clock| clock.instant_of(time))
    }

    fn clock(&self) -> MutexGuard<'_, Option<StoreClock>> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<ClaimId, Claim>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is no name is said about nothing.
fn about(name: &str, say: impl FnOnce(LockName)) {
    if let Ok(name) = LockName::new(name) {
        say(name);
    }
}

/// Nobody listens any more. Never happens: the listener lives as long as its connections.
#[derive(Debug)]
pub(crate) enum Deaf {}
