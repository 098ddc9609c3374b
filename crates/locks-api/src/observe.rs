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
//! Metrics carry the label `backend`; the names of locks would be too many labels.
//!
//! Nothing is told while the engine's mutex is held: a subscriber may use locks itself. The engine takes [`Note`]s and
//! they are told afterwards.

use std::time::Duration;

use crate::error::Error;
use crate::loss::LossReason;
use crate::name::LockName;
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
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "only a feature reads it"))]
pub(crate) enum What {
    /// A guard was made.
    Granted { token: FencingToken, waited: Duration, handed_on: bool },
    /// A grant goes back to the store.
    Released,
    /// A grant lives on.
    Renewed,
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
    pub(crate) fn tell(&self, backend: &'static str) {
        #[cfg(feature = "tracing")]
        self.trace(backend);
        #[cfg(feature = "metrics")]
        self.count(backend);
        #[cfg(not(any(feature = "tracing", feature = "metrics")))]
        let _nobody_listens = backend;
    }

    #[cfg(feature = "tracing")]
    fn trace(&self, backend: &'static str) {
        let lock = self.name.as_str();
        match &self.what {
            What::Granted { token, waited, handed_on } => {
                tracing::debug!(lock, backend, token = token.get(), ?waited, handed_on, "granted");
            }
            What::Released => tracing::debug!(lock, backend, "released"),
            What::Renewed => tracing::trace!(lock, backend, "renewed"),
            What::RenewalFailed(error) => tracing::warn!(lock, backend, %error, "renewal failed"),
            What::AtRisk => tracing::warn!(lock, backend, "at risk"),
            What::Lost(reason) => tracing::error!(lock, backend, ?reason, "lost"),
            What::Owed => tracing::warn!(lock, backend, "owed"),
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
            What::Renewed => "locks_renewals_total",
            What::RenewalFailed(_) => "locks_renewal_failures_total",
            What::AtRisk => "locks_at_risk_total",
            What::Lost(_) => "locks_losses_total",
            What::Owed => "locks_debts_total",
        };
        metrics::counter!(counter, "backend" => backend).increment(1);
    }
}
