//! Leases: one for each ttl, which carries all claims with that ttl, whatever their number.
//!
//! A lease counts from the instant before it was granted or kept alive last. Once that time has passed here it is never used again, although the cluster may know it for a
//! moment longer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use locks_api::spi::LeaseId;
use locks_api::{Boottime, Error, ErrorKind, Result};
use tokio::sync::Mutex as AsyncMutex;

use crate::keys::Keys;
use crate::link::{Link, Refusal};
use crate::messages::RangeRequest;

/// A lease of the cluster.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) id: i64,
    /// As the engine counts them.
    number: LeaseId,
    ttl: Duration,
    /// In which life of the cluster it was granted.
    life: u64,
    /// When it was surely not older than new, in nanoseconds of [`Boottime`].
    kept_at: AtomicU64,
    gone: AtomicBool,
    /// New claims go on another one.
    retired: AtomicBool,
}

impl Lease {
    pub(crate) fn kept_at(&self) -> Boottime {
        Boottime::from_nanos(self.kept_at.load(Ordering::Acquire))
    }

    /// When the cluster may end it.
    pub(crate) fn ends(&self) -> Boottime {
        self.kept_at().after(self.ttl)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// It does not exist in the cluster any more.
    pub(crate) fn mark_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// A claim on it may be under way that nobody knows of any more. What it carries goes on another lease, and it ends.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether claims may rely on it now.
    pub(crate) fn is_good(&self, link: &Link) -> bool {
        !self.is_gone() && self.life == link.resets() && Boottime::now() < self.ends()
    }

    fn is_fresh(&self) -> bool {
        Boottime::now().since(self.kept_at()) < self.ttl / 3
    }
}

/// All leases of a process.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    state: Mutex<State>,
    /// Whoever asks the cluster about leases.
    asking: AsyncMutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// By ttl, in seconds.
    current: HashMap<i64, Arc<Lease>>,
    /// Those that are to end as soon as nothing relies on them.
    retired: Vec<Arc<Lease>>,
    newest: u32,
}

impl Leases {
    /// The lease for claims with this ttl: new, or with two thirds of its life at least.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the cluster has a minimum above the ttl.
    pub(crate) async fn lease(
        &self,
        (link, keys): (&Link, &Keys),
        ttl: Duration,
        number: LeaseId,
        limit: Duration,
    ) -> Result<Arc<Lease>> {
        let seconds = whole_seconds(ttl);
        if let Some(lease) = self.find(link, seconds, number).filter(|lease| lease.is_fresh()) {
            return Ok(lease);
        }
        let _asking = self.asking.lock().await;
        if let Some(lease) = self.find(link, seconds, number) {
            if lease.is_fresh() || keep_alive((link, keys), &lease, limit).await? {
                return Ok(lease);
            }
            lease.mark_gone();
        }
        let sent = Boottime::now();
        let life = link.resets();
        let granted = link.call(limit, |caller| async move { caller.grant_lease(seconds).await }).await?;
        link.note(granted.header.as_ref(), 0)?;
        if granted.ttl > seconds {
            let id = granted.id;
            // It ends by itself if that does not arrive.
            drop(link.call(limit, |caller| async move { caller.revoke_lease(id).await }).await);
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the ttl is {ttl:?}, and {} s is the least that this cluster takes (one and a half of its election timeout)",
                    granted.ttl
                ),
            ));
        }
        let lease = Arc::new(Lease {
            id: granted.id,
            number,
            ttl: Duration::from_secs(seconds.unsigned_abs()),
            life,
            kept_at: AtomicU64::new(sent.as_nanos()),
            gone: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        });
        let mut state = self.state();
        let newest = LeaseId::get(number).max(state.newest);
        state.newest = newest;
        if let Some(old) = state.current.insert(seconds, Arc::clone(&lease)) {
            state.retired.push(old);
        }
        Ok(lease)
    }

    /// Keeps a lease alive, unless somebody did since `asked_at`. False if it is gone.
    pub(crate) async fn keep(
        &self,
        (link, keys): (&Link, &Keys),
        lease: &Lease,
        asked_at: Boottime,
        limit: Duration,
    ) -> Result<bool> {
        let _asking = self.asking.lock().await;
        if lease.kept_at() >= asked_at && lease.is_good(link) {
            return Ok(true);
        }
        keep_alive((link, keys), lease, limit).await
    }

    /// Whether new claims go on another lease.
    pub(crate) fn is_retired(&self, lease: &Lease) -> bool {
        lease.retired.load(Ordering::Acquire) || self.state().retired.iter().any(|other| other.id == lease.id)
    }

    /// The retired leases on which nothing relies: no hold, nobody who waits and no step that is under way. They are to be revoked.
    pub(crate) fn take_unused(&self) -> Vec<i64> {
        let mut state = self.state();
        // Whoever relies on one has it, and one that is retired is given to nobody any more.
        let (used, unused): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.retired).into_iter().partition(|lease| Arc::strong_count(lease) > 1);
        state.retired = used;
        unused.into_iter().filter(|lease| !lease.is_gone()).map(|lease| lease.id).collect()
    }

    /// All leases, which are to be revoked.
    pub(crate) fn take_all(&self) -> Vec<i64> {
        let State { current, retired, .. } = std::mem::take(&mut *self.state());
        current.into_values().chain(retired).filter(|lease| !lease.is_gone()).map(|lease| lease.id).collect()
    }

    /// The lease that new claims with this ttl go on. One that a later number asks for has to be another one.
    fn find(&self, link: &Link, seconds: i64, number: LeaseId) -> Option<Arc<Lease>> {
        let state = self.state();
        let lease = state.current.get(&seconds)?;
        let is_newest = lease.number.get() >= number.get().max(state.newest);
        let is_current = is_newest && !lease.retired.load(Ordering::Acquire) && lease.is_good(link);
        is_current.then(|| Arc::clone(lease))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a lease alive. False if it is gone.
///
/// A leader that was deposed and has not noticed yet would keep leases alive that its successor ends. So a key is read beside it, which only a leader with a quorum
/// allows: in the same term, it was the leader when both were sent.
async fn keep_alive((link, keys): (&Link, &Keys), lease: &Lease, limit: Duration) -> Result<bool> {
    if !lease.is_good(link) {
        return Ok(false);
    }
    let sent = Boottime::now();
    let id = lease.id;
    let look = RangeRequest { key: keys.beginning(""), count_only: true, ..RangeRequest::default() };
    let (kept, read) = tokio::join!(
        link.call(limit, |caller| async move { caller.keep_alive(id).await }),
        link.range(look, limit)
    );
    let kept = match kept {
        Ok(kept) => kept,
        Err(Refusal::LeaseGone) => {
            lease.mark_gone();
            return Ok(false);
        }
        Err(Refusal::Failed(error)) => return Err(error),
    };
    link.note(kept.header.as_ref(), 0)?;
    if kept.ttl <= 0 {
        lease.mark_gone();
        return Ok(false);
    }
    let term = |header: Option<&crate::messages::Header>| header.map(|header| header.term);
    if term(kept.header.as_ref()) != term(read?.header.as_ref()) {
        return Err(Error::new(ErrorKind::Unavailable, "the cluster changed its leader meanwhile"));
    }
    lease.kept_at.fetch_max(sent.as_nanos(), Ordering::AcqRel);
    Ok(true)
}

/// Leases have whole seconds; a claim may end before its lease.
fn whole_seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_nanos().div_ceil(1_000_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_never_shorter_than_the_ttl() {
        for (millis, seconds) in [(1_000, 1), (1_001, 2), (1_999, 2), (15_000, 15)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
