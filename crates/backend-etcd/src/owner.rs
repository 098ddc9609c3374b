//! Locks that a transaction of the user's can rely on.

use std::any::Any;

use locks_api::spi::TokenBlock;
use locks_api::{Error, ErrorKind, LockGuard, Result};

use crate::backend::EtcdBackend;

/// What a transaction has to compare so that it does something only while a lock is held.
///
/// ```text
/// compare: create_revision(key) == create_revision
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnerCheck {
    /// The key of the claim that holds the lock.
    pub key: Vec<u8>,
    /// The revision at which it was created.
    pub create_revision: i64,
}

/// Tells what a transaction on the same cluster has to compare.
pub trait OwnedInEtcd {
    /// The comparison that is true for as long as this guard's claim is in the cluster, and never again after that. A transaction of the cluster that has it among its
    /// comparisons can't overlap another holder's, whatever any clock says: the next holder gets the lock after the key is gone.
    ///
    /// The guard is [exported](LockGuard::export) by it. Does no I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] if the lock is not held any more; [`ErrorKind::Config`] if the guard is of another kind of store.
    fn owner_check(&self) -> Result<OwnerCheck>;
}

impl OwnedInEtcd for LockGuard {
    fn owner_check(&self) -> Result<OwnerCheck> {
        let backend: &dyn Any = self.backend();
        let Some(backend) = backend.downcast_ref::<EtcdBackend>() else {
            return Err(Error::new(
                ErrorKind::Config,
                "the lock is not kept in etcd, so no transaction of etcd can check it",
            ));
        };
        let claim = self.export();
        let gone = || Error::lost(locks_api::LossReason::Expired);
        let created = self.fencing_token().get() / u64::from(TokenBlock::MAX_LEN);
        let create_revision = i64::try_from(created).map_err(|_| gone())?;
        let hold = backend.store.known.hold_by(claim).filter(|hold| hold.created == create_revision);
        match hold.filter(|_| self.is_held()) {
            Some(hold) => Ok(OwnerCheck { key: hold.key, create_revision }),
            None => Err(gone()),
        }
    }
}
