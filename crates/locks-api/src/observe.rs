//! What the engine tells `tracing` and `metrics`, for those who turned these features on.
//!
//! | event or metric | when |
//! |---|---|
//! | span `locks.acquire` | from the request to the answer, with `lock` and `backend` |
//! | `granted` (debug), `locks_grants_total`, `locks_wait_seconds` | a guard is made |
//! | `released` (debug), `locks_releases_total` | a grant goes back to the store |
//! | `renewed` (trace), `locks_renewals_total` | a grant lives on |
//! | `renewal failed` (warn), `locks_renewal_failures_total` | the store did not confirm a renewal |
//! | `at risk` (warn), `locks_at_risk_total` | the first renewal is overdue |
//! | `lost` (error), `locks_losses_total` | a lock is gone, with the reason |
//! | `owed` (warn), `locks_debts_total` | a release could not be delivered and will be tried again |
//!
//! An event also has `instance`, which tells the `Locks` of one process apart, and the fencing `token` of the hold that it is about, if there was one.
//! `granted` and `renewed` say for how long the hold is `valid_for` from now, where grants expire.
//!
//! Metrics carry the label `backend`; the names of locks would be too many labels.
//!
//! Nothing is told while the engine's mutex is held: a subscriber may use locks itself. The engine takes [`Note`]s and
//! they are told afterwards.

use std::time::Duration;

use crate::error::Error;
use crate::loss::LossReason;
use crate::name::LockName;
use crate::spi::{InstanceId, Mode};
use crate::token::FencingToken;

/// The span of one acquisition; nothing without the feature `tracing`.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Span {
    #[cfg(feature = "tracing")]
    pub(crate) fn acquire(backend: &'static str, name: &LockName) -> Self {
        Self { span: tracing::debug_span!("locks.acquire", lock = name.as_str(), backend) }
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn acquire(_backend: &'static str, _name: &LockName) -> Self {
        Self {}
    }

    /// Runs `step` inside the span.
    pub(crate) fn within<T>(&self, step: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.span.enter();
        step()
    }
}

/// Whether anybody may listen. Without it no note is ever made.
pub(crate) const ENABLED: bool = cfg!(any(feature = "tracing", feature = "metrics"));

/// Something worth telling about one lock.
#[derive(Debug)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "only a feature reads it"))]
pub(crate) struct Note {
    pub(crate) name: LockName,
    /// That of the hold; none if the grant was never handed to a caller.
    pub(crate) token: Option<FencingToken>,
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "only a feature reads it"))]
pub(crate) enum What {
    /// A guard was made.
    Granted { waited: Duration, handed_on: bool, mode: Mode, valid_for: Option<Duration> },
    /// A grant goes back to the store.
    Released,
    /// A grant lives on.
    Renewed { valid_for: Duration },
    /// The store did not confirm a renewal.
    RenewalFailed(Error),
    /// The first renewal is overdue.
    AtRisk,
    /// A lock is gone.
    Lost(LossReason),
    /// A release could not be delivered.
    Owed,
}

impl Note {
    /// Tells it.
    pub(crate) fn tell(&self, backend: &'static str, instance: InstanceId) {
        #[cfg(feature = "tracing")]
        self.trace(backend, instance);
        #[cfg(feature = "metrics")]
        self.count(backend);
        let _not_all_of_them_listen = (backend, instance);
    }

    #[cfg(feature = "tracing")]
    fn trace(&self, backend: &'static str, instance: InstanceId) {
        let lock = self.name.as_str();
        let instance = tracing::field::display(instance);
        let token = self.token.map(FencingToken::get);
        match &self.what {
            What::Granted { waited, handed_on, mode, valid_for } => {
                let valid_for = valid_for.map(tracing::field::debug);
                let mode = tracing::field::display(mode);
                tracing::debug!(
                    lock,
                    backend,
                    instance,
                    token,
                    ?waited,
                    handed_on,
                    mode,
                    valid_for,
                    "granted"
                );
            }
            What::Released => tracing::debug!(lock, backend, instance, token, "released"),
            What::Renewed { valid_for } => {
                tracing::trace!(lock, backend, instance, token, ?valid_for, "renewed");
            }
            What::RenewalFailed(error) => {
                tracing::warn!(lock, backend, instance, token, %error, "renewal failed");
            }
            What::AtRisk => tracing::warn!(lock, backend, instance, token, "at risk"),
            What::Lost(reason) => tracing::error!(lock, backend, instance, token, ?reason, "lost"),
            What::Owed => tracing::warn!(lock, backend, instance, token, "owed"),
        }
    }

    #[cfg(feature = "metrics")]
    fn count(&self, backend: &'static str) {
        let counter = match &self.what {
            What::Granted { waited, .. } => {
                metrics::histogram!("locks_wait_seconds", "backend" => backend).record(waited.as_secs_f64());
                "locks_grants_total"
            }
            What::Released => "locks_releases_total",
            What::Renewed { .. } => "locks_renewals_total",
            What::RenewalFailed(_) => "locks_renewal_failures_total",
            What::AtRisk => "locks_at_risk_total",
            What::Lost(_) => "locks_losses_total",
            What::Owed => "locks_debts_total",
        };
        metrics::counter!(counter, "backend" => backend).increment(1);
    }
}
