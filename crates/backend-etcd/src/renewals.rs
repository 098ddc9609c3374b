//! What is known of grants that are to be renewed, thousands at a time.

use std::sync::Arc;
use std::time::Duration;

use locks_api::spi::{Expiry, Grant, Renewed};
use locks_api::{Boottime, LossReason};

use crate::known::{Known, created};
use crate::leases::Lease;

/// What is told of a grant that is not known any more: whoever asks may ask again.
pub(crate) const UNKNOWN: Renewed = Renewed::Lost(LossReason::Expired);

/// Some grants, by the leases that carry them.
#[derive(Debug)]
pub(crate) struct Renewals {
    pub(crate) leases: Vec<Carried>,
    /// What is clear already: those that have ended, or are not known.
    pub(crate) answers: Vec<Option<Renewed>>,
}

/// A lease, and which of some grants it carries.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) lease: Arc<Lease>,
    /// The shortest of theirs.
    pub(crate) ttl: Duration,
    pub(crate) grants: Vec<usize>,
}

impl Known {
    /// Which leases have to be kept alive for these grants.
    pub(crate) fn renewals(&self, grants: &[Grant]) -> Renewals {
        let now = Boottime::now();
        let state = self.state();
        let mut leases: Vec<Carried> = Vec::new();
        let mut answers = Vec::with_capacity(grants.len());
        for (at, grant) in grants.iter().enumerate() {
            let hold =
                state.holds.get(&grant.claim).filter(|hold| hold.created == created(grant) && !hold.leaves);
            answers.push(match hold {
                None => Some(UNKNOWN),
                Some(hold) if hold.ends <= now => Some(Renewed::Lost(LossReason::Expired)),
                Some(hold) => {
                    match leases.iter_mut().find(|carried| carried.lease.id == hold.lease.id) {
                        Some(carried) => {
                            carried.ttl = carried.ttl.min(hold.ttl);
                            carried.grants.push(at);
                        }
                        None => {
                            let lease = Arc::clone(&hold.lease);
                            leases.push(Carried { lease, ttl: hold.ttl, grants: vec![at] });
                        }
                    }
                    None
                }
            });
        }
        Renewals { leases, answers }
    }

    /// Their lease was kept alive, and they last a whole ttl again. One that has ended meanwhile is over for good.
    pub(crate) fn extend(
        &self,
        grants: &[Grant],
        carried: &[usize],
        lease: &Lease,
        answers: &mut [Option<Renewed>],
    ) {
        let now = Boottime::now();
        let mut state = self.state();
        for at in carried {
            let Some(grant) = grants.get(*at) else { continue };
            let ttl = state.change(grant, |hold| {
                if hold.ends <= now {
                    return None;
                }
                hold.ends = lease.ends().min(lease.kept_at().after(hold.ttl));
                Some(hold.ttl)
            });
            answers[*at] = Some(match ttl.flatten() {
                Some(ttl) => Renewed::Extended(Expiry::In(ttl)),
                None => UNKNOWN,
            });
        }
    }
}
