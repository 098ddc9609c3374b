//! What this process holds and waits for.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use locks_api::spi::{Attempt, Claim, ClaimId, Grant, Mode};
use locks_api::{Error, ErrorKind, LockName, Result};

use crate::hold::Hold;
use crate::line::Place;
use crate::lock_file::Flock;

/// What this process holds and waits for. Behind one mutex; nothing in it is used without that mutex, so that an entry that is
/// gone is gone for everybody.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    held: HashMap<ClaimId, Hold>,
    waiting: HashMap<LockName, Entry>,
    /// Claims whose wait ended without a grant, and with what; nobody has fetched it yet.
    ended: HashMap<ClaimId, Result<Attempt>>,
    closed: bool,
}

/// Those who wait for one lock, and the threads that wait for them.
///
/// One thread serves the claims one after the other. A thread that is blocked in flock can't be called back, so if its claim is cancelled it may
/// be in the wrong queue of the kernel for the next one. Then another thread takes over, and the blocked one ends as soon as the kernel lets it.
/// There is never more than one thread in each queue, and one that moves.
#[derive(Debug, Default)]
struct Entry {
    /// First come, first served.
    claims: VecDeque<Waiting>,
    server: Option<Server>,
    /// Whether a thread is blocked in flock, for each way.
    asleep: [bool; 2],
    /// Whether something happened that a thread waits for that is not blocked in the kernel.
    nudged: bool,
}

/// A claim that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) claim: Claim,
    /// `None` if others kept the gate closed; the thread gets it.
    pub(crate) place: Option<Arc<Place>>,
}

/// Which thread serves those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// One that is not blocked in flock.
    Moving,
    /// The one that is blocked in flock in this way, for this claim or the one that comes after it.
    Asleep(Flock, ClaimId),
}

/// What becomes of a thread that is about to block in flock.
#[derive(Debug)]
pub(crate) enum Sleep {
    Now,
    /// Another one is blocked there already: it serves from now on, and the asking one must end.
    AnotherDoes,
    /// The claim is not the first one any more.
    LookAgain,
}

/// Where a claim stands.
#[derive(Debug)]
pub(crate) enum Standing {
    /// It holds its lock.
    Held(Grant),
    /// It waits.
    Queued(Option<Arc<Place>>),
    /// Others wait for its lock in this process, and it is not among them.
    Behind,
    /// It waited, and this came of it.
    Ended(Attempt),
    /// Nothing is known of it.
    New,
}

/// What became of a lock that a waiting thread got.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// The claim has it.
    Delivered,
    /// The claim was cancelled meanwhile.
    Cancelled(Hold),
}

impl Registry {
    /// Where a claim stands.
    ///
    /// # Errors
    ///
    /// What ended its wait, told once; [`ErrorKind::Closed`] after [`close`](Self::close).
    pub(crate) fn standing(&mut self, claim: &Claim) -> Result<Standing> {
        self.check_open()?;
        if let Some(end) = self.ended.remove(&claim.id) {
            return end.map(Standing::Ended);
        }
        if let Some(hold) = self.held.get(&claim.id) {
            return Ok(Standing::Held(hold.grant.clone()));
        }
        let Some(entry) = self.waiting.get(&claim.name) else { return Ok(Standing::New) };
        Ok(match entry.claims.iter().find(|waiting| waiting.claim.id == claim.id) {
            Some(waiting) => Standing::Queued(waiting.place.clone()),
            None if entry.claims.is_empty() => Standing::New,
            None => Standing::Behind,
        })
    }

    /// # Errors
    ///
    /// [`ErrorKind::Closed`] after [`close`](Self::close); what the hold had is given back.
    pub(crate) fn hold(&mut self, hold: Hold) -> Result<()> {
        self.check_open()?;
        self.held.insert(hold.grant.claim, hold);
        Ok(())
    }

    /// Adds a claim to those that wait for its lock. `join` gets it a place in the line, if it may try; `start` starts a thread. The place that it got.
    pub(crate) fn wait(
        &mut self,
        claim: &Claim,
        join: impl FnOnce() -> Result<Option<Place>>,
        start: impl FnOnce() -> Result<()>,
    ) -> Result<Option<Arc<Place>>> {
        self.check_open()?;
        let claims = self.waiting.get(&claim.name).map(|entry| &entry.claims);
        // Nobody passes one that has no place yet.
        let in_order = claims.is_none_or(|claims| claims.iter().all(|waiting| waiting.place.is_some()));
        let place = if in_order { join()?.map(Arc::new) } else { None };
        let entry = self.waiting.entry(claim.name.clone()).or_default();
        entry.claims.push_back(Waiting { claim: claim.clone(), place: place.clone() });
        let started = entry.serve(start);
        if started.is_err() {
            entry.claims.pop_back();
            self.forget_unused(&claim.name);
        }
        started.map(|()| place)
    }

    /// The first claim that waits for the lock. If there is none, the serving thread is off the books and must end.
    pub(crate) fn first_waiting(&mut self, name: &LockName) -> Option<Waiting> {
        let entry = self.waiting.get_mut(name)?;
        entry.nudged = false;
        let first = entry.claims.front().cloned();
        if first.is_none() {
            entry.server = None;
            self.forget_unused(name);
        }
        first
    }

    /// Whether this claim is the first of this process that waits.
    pub(crate) fn is_first(&self, claim: &Claim) -> bool {
        let first = self.waiting.get(&claim.name).and_then(|entry| entry.claims.front());
        first.is_some_and(|first| first.claim.id == claim.id)
    }

    /// Notes the place that a claim got. False if it was cancelled meanwhile.
    pub(crate) fn place(&mut self, claim: &Claim, place: Place) -> bool {
        let entry = self.waiting.get_mut(&claim.name);
        let waiting =
            entry.and_then(|entry| entry.claims.iter_mut().find(|waiting| waiting.claim.id == claim.id));
        waiting.map(|waiting| waiting.place = Some(Arc::new(place))).is_some()
    }

    /// The serving thread is about to block in flock, for this claim.
    pub(crate) fn falls_asleep(&mut self, claim: &Claim, how: Flock) -> Sleep {
        // Whoever was cancelled until now knew of a thread that moves, and started no other.
        if !self.is_first(claim) {
            return Sleep::LookAgain;
        }
        let Some(entry) = self.waiting.get_mut(&claim.name) else { return Sleep::LookAgain };
        entry.server = Some(Server::Asleep(how, claim.id));
        match std::mem::replace(&mut entry.asleep[how as usize], true) {
            true => Sleep::AnotherDoes,
            false => Sleep::Now,
        }
    }

    /// A thread was blocked in flock and is no more. False if another one serves by now, and it must end.
    pub(crate) fn woke(&mut self, name: &LockName, how: Flock) -> bool {
        let Some(entry) = self.waiting.get_mut(name) else { return false };
        entry.asleep[how as usize] = false;
        let serves = matches!(entry.server, Some(Server::Asleep(in_way, _)) if in_way == how);
        if serves {
            entry.server = Some(Server::Moving);
        }
        self.forget_unused(name);
        serves
    }

    /// Hands the lock that the waiting thread got to its claim.
    pub(crate) fn deliver(&mut self, hold: Hold) -> Delivery {
        let Some(entry) = self.waiting.get_mut(&hold.grant.name) else { return Delivery::Cancelled(hold) };
        if entry.claims.front().is_none_or(|first| first.claim.id != hold.grant.claim) {
            return Delivery::Cancelled(hold);
        }
        entry.claims.pop_front();
        self.held.insert(hold.grant.claim, hold);
        Delivery::Delivered
    }

    /// Ends the wait of one claim without a grant. False if it was cancelled meanwhile.
    pub(crate) fn end(&mut self, claim: &Claim, end: Result<Attempt>) -> bool {
        let Some(entry) = self.waiting.get_mut(&claim.name) else { return false };
        let before = entry.claims.len();
        entry.claims.retain(|waiting| waiting.claim.id != claim.id);
        let was_there = entry.claims.len() < before;
        if was_there {
            self.ended.insert(claim.id, end);
        }
        was_there
    }

    /// Ends the wait of all claims for the lock with an error, and takes the serving thread off the books.
    pub(crate) fn fail(&mut self, name: &LockName, error: &Error) {
        let Some(entry) = self.waiting.get_mut(name) else { return };
        for waiting in entry.claims.drain(..) {
            self.ended.insert(waiting.claim.id, Err(error.clone()));
        }
        entry.server = None;
        self.forget_unused(name);
    }

    /// What the claim holds, with exactly this grant.
    pub(crate) fn held_mut(&mut self, grant: &Grant) -> Option<&mut Hold> {
        self.held.get_mut(&grant.claim).filter(|hold| hold.grant.is_same_as(grant))
    }

    /// Takes back what is held with exactly this grant.
    pub(crate) fn take(&mut self, grant: &Grant) -> Option<Hold> {
        self.held_mut(grant)?;
        self.held.remove(&grant.claim)
    }

    /// Forgets the claim; gives back what it held. A thread that is blocked for it goes on, for the next one or for nobody; `start` starts
    /// another one if it can't.
    pub(crate) fn cancel(&mut self, claim: &Claim, start: impl FnOnce() -> Result<()>) -> Option<Hold> {
        self.ended.remove(&claim.id);
        if let Some(entry) = self.waiting.get_mut(&claim.name) {
            entry.claims.retain(|waiting| {
                let stays = waiting.claim.id != claim.id;
                if let (false, Some(place)) = (stays, &waiting.place) {
                    place.leave();
                }
                stays
            });
            entry.nudged = true;
            if !entry.claims.is_empty()
                && let Err(error) = entry.serve(start)
            {
                self.fail(&claim.name, &error);
            }
        }
        self.held.remove(&claim.id)
    }

    /// Something happened that those who wait for this lock may be waiting for.
    pub(crate) fn nudge(&mut self, name: &LockName) {
        if let Some(entry) = self.waiting.get_mut(name) {
            entry.nudged = true;
        }
    }

    /// Whether something happened since the first claim was looked up.
    pub(crate) fn is_nudged(&self, name: &LockName) -> bool {
        self.waiting.get(name).is_none_or(|entry| entry.nudged)
    }

    /// The same, and it is seen to.
    pub(crate) fn take_nudge(&mut self, name: &LockName) -> bool {
        self.waiting.get_mut(name).is_none_or(|entry| std::mem::take(&mut entry.nudged))
    }

    /// Whether the claim holds its lock.
    pub(crate) fn holds(&self, grant: &Grant) -> bool {
        self.held.get(&grant.claim).is_some_and(|hold| hold.grant.is_same_as(grant))
    }

    /// Another descriptor of the lock that the claim holds, to be inherited by programs.
    pub(crate) fn share(&mut self, claim: ClaimId) -> Result<OwnedFd> {
        match self.held.get_mut(&claim) {
            Some(hold) => hold.share(),
            None => {
                Err(Error::new(ErrorKind::Lost, "this claim holds no lock, so there is nothing to share"))
            }
        }
    }

    /// Forgets everything, gives back what was held, and refuses all further claims.
    pub(crate) fn close(&mut self) -> Vec<Hold> {
        self.closed = true;
        self.ended.clear();
        for entry in self.waiting.values_mut() {
            entry.claims.clear();
            entry.nudged = true;
        }
        self.held.drain().map(|(_, hold)| hold).collect()
    }

    fn check_open(&self) -> Result<()> {
        match self.closed {
            true => Err(Error::new(ErrorKind::Closed, "the lock directory was closed")),
            false => Ok(()),
        }
    }

    fn forget_unused(&mut self, name: &LockName) {
        if self.waiting.get(name).is_some_and(Entry::is_unused) {
            self.waiting.remove(name);
        }
    }
}

impl Entry {
    fn is_unused(&self) -> bool {
        self.claims.is_empty() && self.server.is_none() && self.asleep == [false; 2]
    }

    /// Makes sure that a thread serves the first claim.
    fn serve(&mut self, start: impl FnOnce() -> Result<()>) -> Result<()> {
        let is_served = match (self.server, self.claims.front()) {
            (None, _) => false,
            // It is woken only when nobody holds at all, which others need not wait for.
            (Some(Server::Asleep(Flock::Exclusive, claim)), Some(first)) => {
                first.claim.id == claim || first.claim.mode == Mode::Exclusive
            }
            (Some(_), _) => true,
        };
        if !is_served {
            start()?;
            self.server = Some(Server::Moving);
        }
        Ok(())
    }
}
