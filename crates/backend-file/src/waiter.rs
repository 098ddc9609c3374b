//! Waiting for a lock that another process, or another `Locks` of this one, holds.
//!
//! Waiting is done by the kernel: a thread blocks in flock and is woken when its turn comes. There is one such thread per
//! lock, whatever the number of claims, and only while somebody waits. A blocked flock can't be called off,
//! so a claim that is cancelled only takes its ticket away; a thread that then gets the lock for nobody gives it back at once.
//!
//! # Taking turns
//!
//! flock alone lets the one who releases take the lock again before the process that was woken has run; over eight busy processes
//! one of them gets nearly everything. So those who wait stand in a [line](crate::line), each claim with a place of its own: it joins, marks the
//! lock file ("somebody waits"), and a thread waits for its turn, then for the lock, and only then leaves the line. Whoever
//! takes the free lock without waiting sees the mark with the read that fetches the token counter, and looks
//! whether anybody is in line. If so, somebody was first: it gives the lock back and joins the line too. If not, the mark is stale
//! and is cleared with the write that records the grant.
//!
//! One for whom there are too few permits can't be woken by the kernel when there are enough. It is told by inotify when somebody closes the file, and looks again
//! now and then in any case.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use locks_api::spi::{Attempt, Claim, Mode};
use locks_api::{Busy, Error, ErrorKind, LockName, Result};

use crate::error::classify;
use crate::file_name::FileName;
use crate::hold::Hold;
use crate::line::Place;
use crate::lock_file::{Flock, LockFile};
use crate::registry::{Delivery, Sleep, Waiting};
use crate::seats;
use crate::store::Store;
use crate::taking::{Obstacle, Step, Tried};

/// How long after something happened permits are looked for again: a dying process closes its files a moment before the kernel frees their locks.
const SOON: Duration = Duration::from_millis(1);
/// How often they are looked for at least.
const LATE: Duration = Duration::from_millis(500);

/// Starts a thread that waits for `name`.
///
/// # Errors
///
/// [`ErrorKind::StoreFull`](locks_api::ErrorKind::StoreFull) if the system has no thread left.
pub(crate) fn start(store: &Arc<Store>, name: &LockName) -> Result<()> {
    let waiter = Waiter { store: Arc::clone(store), name: name.clone(), file_name: store.file_name(name) };
    thread::Builder::new()
        .name("locks-file-wait".to_owned())
        .spawn(move || waiter.run())
        .map(drop)
        .map_err(|error| classify(error, "can't start the thread that waits for the lock"))
}

struct Waiter {
    store: Arc<Store>,
    name: LockName,
    file_name: FileName,
}

/// What comes after one attempt.
enum Next {
    /// The first claim, whichever that is by then.
    First,
    /// Another thread serves from now on.
    End,
}

impl Waiter {
    fn run(self) {
        loop {
            // In a step of its own: the registry is not to be locked while the claim is served.
            let first = self.store.registry().first_waiting(&self.name);
            let Some(first) = first else { return };
            match self.serve(&first) {
                Ok(Next::First) => {}
                Ok(Next::End) => return,
                // The claim alone is at fault.
                Err(error) if error.kind() == ErrorKind::LimitMismatch => self.end(&first.claim, Err(error)),
                Err(error) => return self.fail(&error),
            }
        }
    }

    /// Serves one claim, unless it is cancelled meanwhile.
    fn serve(&self, first: &Waiting) -> Result<Next> {
        let claim = &first.claim;
        let Some(place) = &first.place else {
            let place = self.store.join(claim)?;
            self.store.registry().place(claim, place);
            return Ok(Next::First);
        };
        place.wait_for_turn()?;
        if !self.store.registry().is_first(claim) {
            return Ok(Next::First);
        }
        match self.store.try_take(claim, &self.file_name, Some(place))? {
            Tried::Busy(Obstacle::Holder(how, file)) => self.sleep(claim, how, file, place),
            other => self.tried(claim, other, place),
        }
    }

    /// Blocks in flock, for this claim or whichever is first by then.
    fn sleep(&self, claim: &Claim, how: Flock, file: LockFile, place: &Place) -> Result<Next> {
        let sleep = self.store.registry().falls_asleep(claim, how);
        match sleep {
            Sleep::Now => {}
            Sleep::AnotherDoes => return Ok(Next::End),
            Sleep::LookAgain => return Ok(Next::First),
        }
        let locked = file.lock(how);
        let (serves, is_first) = {
            let mut registry = self.store.registry();
            (registry.woke(&self.name, how), registry.is_first(claim))
        };
        if !serves {
            // What was locked is given back.
            return locked.map(|_| Next::End);
        }
        let locked = locked?;
        if !is_first {
            return Ok(Next::First);
        }
        match self.store.take_locked(claim, &self.file_name, locked, how, Some(place))? {
            Step::Tried(tried) => self.tried(claim, tried, place),
            Step::Replaced => Ok(Next::First),
        }
    }

    fn tried(&self, claim: &Claim, tried: Tried, place: &Place) -> Result<Next> {
        match tried {
            Tried::Taken(hold) => self.deliver(hold, place)?,
            Tried::Busy(Obstacle::NotDue(remaining)) if claim.once_per().is_some() => {
                // Somebody else has done it meanwhile. Who asks again is told for how long.
                place.leave();
                self.end(claim, Ok(Attempt::Busy(Busy::NotDue { remaining })));
            }
            Tried::Busy(Obstacle::NotDue(left) | Obstacle::HeldBack(left)) => {
                // Those who hold it meanwhile may also be done before.
                self.store.wait_for_nudge(&self.name, left);
            }
            Tried::Busy(Obstacle::Permits) => return self.wait_for_permits(claim, place),
            Tried::Busy(Obstacle::Holder(..) | Obstacle::Line) => {}
        }
        Ok(Next::First)
    }

    /// Looks for permits whenever something happened, without touching the file: closing it after an attempt would itself be heard.
    fn wait_for_permits(&self, claim: &Claim, place: &Place) -> Result<Next> {
        let Mode::Permits { count, limit } = claim.mode else { return Ok(Next::First) };
        let _listening = self.store.bell.listen(&self.name);
        let mut pause = SOON;
        while self.store.registry().is_first(claim) {
            let Some(file) = LockFile::look(&self.store.directory, &self.file_name.lock())? else { break };
            if seats::are_free(&file, count, limit)? {
                match self.store.try_take(claim, &self.file_name, Some(place))? {
                    Tried::Busy(Obstacle::Permits) => {}
                    Tried::Busy(Obstacle::Holder(how, file)) => return self.sleep(claim, how, file, place),
                    other => return self.tried(claim, other, place),
                }
            }
            let was_nudged = self.store.wait_for_nudge(&self.name, pause);
            pause = if was_nudged { SOON } else { (pause * 4).min(LATE) };
        }
        Ok(Next::First)
    }

    /// Gives the claim what it waited for. If it was cancelled meanwhile, nobody got it.
    fn deliver(&self, hold: Hold, place: &Place) -> Result<()> {
        let grant = hold.grant.clone();
        let delivery = self.store.registry().deliver(hold);
        if let Delivery::Cancelled(mut hold) = delivery {
            let undone = hold.undo();
            return hold.release().and(undone);
        }
        place.leave();
        if let Some(events) = self.store.events() {
            events.granted(grant, None);
        }
        Ok(())
    }

    /// The claim's wait is over. It is sent again on the hint and then gets the answer.
    fn end(&self, claim: &Claim, end: Result<Attempt>) {
        self.store.registry().end(claim, end);
        self.hint();
    }

    /// Tells all claims that wait: each is sent again on the hint and then gets the error.
    fn fail(&self, error: &Error) {
        self.store.registry().fail(&self.name, error);
        self.hint();
    }

    fn hint(&self) {
        if let Some(events) = self.store.events() {
            events.hint(self.name.clone());
        }
    }
}
