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

/// A guard is made.
pub(crate) fn granted(
    backend: &'static str,
    name: &LockName,
    token: FencingToken,
    waited: Duration,
    handed_on: bool,
) {
    #[cfg(feature = "tracing")]
    {
        tracing::debug!(lock = name.as_str(), backend, token = token.get(), ?waited, handed_on, "granted");
    }
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("locks_grants_total", "backend" => backend).increment(1);
        metrics::histogram!("locks_wait_seconds", "backend" => backend).record(waited.as_secs_f64());
    }
    ignore((backend, name, token, waited, handed_on));
}

/// A grant goes back to the store.
pub(crate) fn released(backend: &'static str, name: &LockName) {
    #[cfg(feature = "tracing")]
    {
        tracing::debug!(lock = name.as_str(), backend, "released");
    }
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("locks_releases_total", "backend" => backend).increment(1);
    }
    ignore((backend, name));
}

/// A grant lives on.
pub(crate) fn renewed(backend: &'static str, name: &LockName) {
    #[cfg(feature = "tracing")]
    {
        tracing::trace!(lock = name.as_str(), backend, "renewed");
    }
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("locks_renewals_total", "backend" => backend).increment(1);
    }
    ignore((backend, name));
}

/// The store did not confirm a renewal.
pub(crate) fn renewal_failed(backend: &'static str, name: &LockName, error: &Error) {
    #[cfg(feature = "tracing")]
    {
        tracing::warn!(lock = name.as_str(), backend, %error, "renewal failed");
    }
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("locks_renewal_failures_total", "backend" => backend).increment(1);
    }
    ignore((backend, name, error));
}

/// The first renewal is overdue.
pub(crate) fn at_risk(backend: &'static str, name: &LockName) {
    #[cfg(feature = "tracing")]
    {
        tracing::warn!(lock = name.as_str(), backend, "at risk");
    }
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("locks_at_risk_total", "backend" => backend).increment(1);
    }
    ignore((backend, name));
}

/// A lock is gone.
pub(crate) fn lost(backend: &'static str, name: &LockName, reason: LossReason) {
    #[cfg(feature = "tracing")]
    {
        tracing::error!(lock = name.as_str(), backend, ?reason, "lost");
    }
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("locks_losses_total", "backend" => backend).increment(1);
    }
    ignore((backend, name, reason));
}

/// A release could not be delivered.
pub(crate) fn owed(backend: &'static str, name: &LockName) {
    #[cfg(feature = "tracing")]
    {
        tracing::warn!(lock = name.as_str(), backend, "owed");
    }
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("locks_debts_total", "backend" => backend).increment(1);
    }
    ignore((backend, name));
}

/// Makes what only a feature reads count as read.
fn ignore<T>(_: T) {}
