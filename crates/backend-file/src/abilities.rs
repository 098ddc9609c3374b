//! What the file backend can do beyond the exclusive lock.

use async_trait::async_trait;
use locks_api::spi::{ClaimId, Downgrade, Grant, Inspect, Leader, LockState, Released, Schedule, Values};
use locks_api::{Error, ErrorKind, LockName, Result};

use crate::backend::FileBackend;
use crate::hold::Hold;

#[async_trait]
impl Downgrade for FileBackend {
    async fn downgrade(&self, grant: &Grant) -> Result<Released> {
        self.store.with_hold(grant, Hold::downgrade)
    }
}

#[async_trait]
impl Schedule for FileBackend {
    async fn complete(&self, grant: &Grant) -> Result<Released> {
        match self.store.with_hold(grant, Hold::complete)? {
            Released::Done => self.store.release(grant),
            other => Ok(other),
        }
    }
}

#[async_trait]
impl Values for FileBackend {
    async fn publish(&self, grant: &Grant, value: &str) -> Result<Released> {
        self.store.with_hold(grant, |hold| hold.publish(value))
    }

    async fn leader(&self, name: &LockName) -> Result<Option<Leader>> {
        self.store.leader(name)
    }

    async fn watch(&self, name: &LockName) -> Result<()> {
        self.store.bell.watch(name)
    }

    async fn unwatch(&self, name: &LockName) -> Result<()> {
        self.store.bell.unwatch(name);
        Ok(())
    }
}

#[async_trait]
impl Inspect for FileBackend {
    async fn state(&self, name: &LockName) -> Result<LockState> {
        self.store.state(name)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>> {
        self.store.list(prefix)
    }

    async fn break_lock(&self, _name: &LockName, _claim: Option<ClaimId>) -> Result<u32> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "breaking a lock is not possible with files: the kernel keeps it for its process; end that process, whose pid the inspection tells",
        ))
    }

    async fn revoke(&self, _name: &LockName, _claim: Option<ClaimId>) -> Result<u32> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "asking a holder to give up is not possible with files: nothing reaches its process; send that process a signal, its pid is in the inspection",
        ))
    }
}
