//! What this process holds and waits for.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;

use locks_api::spi::{Claim, ClaimId, Grant};
use locks_api::{Error, ErrorKind, LockName, Result};

use crate::lock_file::Locked;

/// What this process holds and waits for. Behind one mutex; nothing in it is used without that mutex, so that an entry that is
/// gone is gone for everybody.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    held: HashMap<ClaimId, Held>,
    /// The claims that wait, first come first served. A lock has an entry exactly while it has a waiting thread.
    waiting: HashMap<LockName, VecDeque<Claim>>,
    /// Claims whose wait ended in an error that nobody has fetched yet.
    failed: HashMap<ClaimId, Error>,
    closed: bool,
}

#[derive(Debug)]
struct Held {
    grant: Grant,
    locked: Locked,
}

/// Where a claim stands.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It holds its lock.
    Held(Grant),
    /// It waits.
    Queued,
    /// Others wait for its lock in this process, and it is not among them.
    Behind,
    /// A thread waits for its lock, for nobody.
    Abandoned,
    /// Nothing is known of it or its lock.
    New,
}

/// What became of a lock that a waiting thread got.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// The claim has it, and nobody else waits: the thread is done.
    Last,
    /// The claim has it, and others wait.
    More,
    /// The claim was cancelled meanwhile.
    Cancelled(Locked),
}

impl Registry {
    /// Where a claim stands.
    ///
    /// # Errors
    ///
    /// What ended its wait, told once; [`ErrorKind::Closed`] after [`close`](Self::close).
    pub(crate) fn standing(&mut self, claim: &Claim) -> Result<Standing> {
        if self.closed {
            return Err(Error::new(ErrorKind::Closed, "the lock directory was closed"));
        }
        if let Some(error) = self.failed.remove(&claim.id) {
            return Err(error);
        }
        if let Some(held) = self.held.get(&claim.id) {
            return Ok(Standing::Held(held.grant.clone()));
        }
        Ok(match self.waiting.get(&claim.name) {
            None => Standing::New,
            Some(tickets) if tickets.is_empty() => Standing::Abandoned,
            Some(tickets) if tickets.iter().any(|ticket| ticket.id == claim.id) => Standing::Queued,
            Some(_) => Standing::Behind,
        })
    }

    pub(crate) fn hold(&mut self, grant: Grant, locked: Locked) {
        self.held.insert(grant.claim, Held { grant, locked });
    }

    /// Adds a claim to those that wait for its lock, if a thread waits for it. Says whether one does.
    pub(crate) fn wait_along(&mut self, claim: &Claim) -> bool {
        self.waiting.get_mut(&claim.name).map(|tickets| tickets.push_back(claim.clone())).is_some()
    }

    /// Adds a claim to those that wait for its lock. `start` starts the waiting thread if there is none.
    pub(crate) fn wait(&mut self, claim: &Claim, start: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.wait_along(claim) {
            start()?;
            self.waiting.insert(claim.name.clone(), VecDeque::from([claim.clone()]));
        }
        Ok(())
    }

    /// The first claim that waits for the lock. If there is none, the waiting thread is taken off the books and must end.
    pub(crate) fn first_waiting(&mut self, name: &LockName) -> Option<Claim> {
        let first = self.waiting.get(name)?.front().cloned();
        if first.is_none() {
            self.waiting.remove(name);
        }
        first
    }

    /// Hands the lock that the waiting thread got, and recorded as `grant`, to its claim. After
    /// [`Delivery::Last`] the thread is off the books and must end.
    pub(crate) fn deliver(&mut self, grant: &Grant, locked: Locked) -> Delivery {
        let Some(tickets) = self.waiting.get_mut(&grant.name) else { return Delivery::Cancelled(locked) };
        if tickets.front().is_none_or(|first| first.id != grant.claim) {
            return Delivery::Cancelled(locked);
        }
        tickets.pop_front();
        let more = !tickets.is_empty();
        if !more {
            self.waiting.remove(&grant.name);
        }
        self.hold(grant.clone(), locked);
        if more { Delivery::More } else { Delivery::Last }
    }

    /// Ends the wait of all claims for the lock with an error, and takes the waiting thread off the books.
    pub(crate) fn fail(&mut self, name: &LockName, error: &Error) {
        for claim in self.waiting.remove(name).unwrap_or_default() {
            self.failed.insert(claim.id, error.clone());
        }
    }

    /// Takes back what the claim holds, if it holds anything.
    pub(crate) fn take(&mut self, claim: ClaimId) -> Option<Locked> {
        self.held.remove(&claim).map(|held| held.locked)
    }

    /// Forgets the claim; gives back what it held. A thread that waited for it goes on waiting, for nobody.
    pub(crate) fn cancel(&mut self, claim: &Claim) -> Option<Locked> {
        self.failed.remove(&claim.id);
        if let Some(tickets) = self.waiting.get_mut(&claim.name) {
            tickets.retain(|ticket| ticket.id != claim.id);
        }
        self.take(claim.id)
    }

    /// Whether the claim holds its lock.
    pub(crate) fn holds(&self, claim: ClaimId) -> bool {
        self.held.contains_key(&claim)
    }

    /// Another descriptor of the lock that the claim holds, to be inherited by programs.
    pub(crate) fn share(&mut self, claim: ClaimId) -> Result<OwnedFd> {
        match self.held.get_mut(&claim) {
            Some(held) => held.locked.share(),
            None => {
                Err(Error::new(ErrorKind::Lost, "this claim holds no lock, so there is nothing to share"))
            }
        }
    }

    /// Forgets everything, gives back what was held, and refuses all further claims.
    pub(crate) fn close(&mut self) -> Vec<Locked> {
        self.closed = true;
        self.failed.clear();
        for tickets in self.waiting.values_mut() {
            tickets.clear();
        }
        self.held.drain().map(|(_, held)| held.locked).collect()
    }
}
