//! What a store says on its own.

use std::fmt;
use std::sync::{Arc, Weak};

use super::{ClaimId, Grant};
use crate::clock::Boottime;
use crate::loss::LossReason;
use crate::name::LockName;
use crate::token::FencingToken;

/// Where a backend says what its store says on its own.
///
/// Calling it is cheap, never blocks for long and never calls back into the backend, so that a backend may hold its own
/// locks meanwhile. What is said about a claim that is no longer of interest is ignored or undone.
#[derive(Clone)]
pub struct Events(Weak<dyn EventSink>);

impl Events {
    pub(crate) fn new(sink: Weak<dyn EventSink>) -> Self {
        Self(sink)
    }

    /// A queued claim now holds its lock.
    ///
    /// `since` is an instant that had not passed, on this process's clock, when the store wrote the grant: the engine counts its expiry from
    /// there. A store that puts its own time into its answers and pushes knows one: the instant before a request was sent, plus what the
    /// store's clock has moved from the answer to the push. With one that leaves the grant enough time the caller gets its lock at once,
    /// and it is renewed after a third of that time. Without one the renewal comes first, since the push may have been under way for long.
    pub fn granted(&self, grant: Grant, since: Option<Boottime>) {
        self.send(Event::Granted(grant, since));
    }

    /// A grant is gone: the one whose last fencing token is `last`. A claim that expired unseen may have been sent again and granted anew, and a store
    /// that says things over one connection and answers over another says so late. `None` if that can't happen.
    pub fn lost(&self, name: LockName, claim: ClaimId, last: Option<FencingToken>, reason: LossReason) {
        self.send(Event::Lost { name, claim, last, reason });
    }

    /// Somebody asks the holder of this lock to give it back soon.
    pub fn asked(&self, name: LockName, claim: ClaimId) {
        self.send(Event::Asked { name, claim });
    }

    /// The value of this lock, its holder or the fact that there is one may have changed: whoever
    /// [watches](super::Values::watch) it reads it again.
    pub fn changed(&self, name: LockName) {
        self.send(Event::Changed(name));
    }

    /// This lock may have become free: a queued claim is sent again at once. A hint, never a grant.
    pub fn hint(&self, name: LockName) {
        self.send(Event::Hint(name));
    }

    /// Something may have been missed, such as while a listener was reconnecting: all queued claims are sent again.
    pub fn resync(&self) {
        self.send(Event::Resync);
    }

    /// The store is in a new epoch: it may have forgotten grants and may have brought back released ones.
    pub fn reset(&self) {
        self.send(Event::Reset);
    }

    fn send(&self, event: Event) {
        if let Some(sink) = self.0.upgrade() {
            sink.event(event);
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// The engine's end of [`Events`].
pub(crate) trait EventSink: Send + Sync {
    fn event(self: Arc<Self>, event: Event);
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Granted(Grant, Option<Boottime>),
    Lost { name: LockName, claim: ClaimId, last: Option<FencingToken>, reason: LossReason },
    Asked { name: LockName, claim: ClaimId },
    Changed(LockName),
    Hint(LockName),
    Resync,
    Reset,
}
