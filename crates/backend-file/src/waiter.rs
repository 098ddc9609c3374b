//! Waiting for a lock that another process, or another `Locks` of this one, holds.
//!
//! Waiting is done by the kernel: a thread blocks in flock and is woken when its turn comes. There is one such thread per
//! lock, whatever the number of claims, and only while somebody waits. A blocked flock can't be called off,
//! so a claim that is cancelled only takes its ticket away; a thread that then gets the lock for nobody gives it back at once.
//!
//! # Taking turns
//!
//! flock alone lets the one who releases take the lock again before the process that was woken has run; over eight busy processes
//! one of them gets nearly everything. So those who wait stand in a [line](crate::line): a waiter joins it, marks the
//! lock file ("somebody waits"), waits for its turn, then for the lock, and only then leaves the line. Whoever
//! takes the free lock without waiting sees the mark with the read that fetches the token counter, and looks
//! whether anybody is in line. If so, somebody was first: it gives the lock back and joins the line too. If not, the mark is stale
//! and is cleared with the write that records the grant.

use std::sync::Arc;
use std::thread;

use locks_api::{Error, LockName, Result};

use crate::backend::Store;
use crate::error::classify;
use crate::file_name::FileName;
use crate::line::Spot;
use crate::lock_file::{LockFile, Locked};
use crate::registry::Delivery;

/// The files that one wait needs, and the place in line: got by whoever asks, who so learns of trouble at once and comes before all
/// that ask later.
#[derive(Debug)]
pub(crate) struct WaitFiles {
    pub(crate) spot: Spot,
    pub(crate) lock: LockFile,
}

/// Starts the thread that waits for `name`.
///
/// # Errors
///
/// [`ErrorKind::StoreFull`](locks_api::ErrorKind::StoreFull) if the system has no thread left.
pub(crate) fn start(store: &Arc<Store>, name: &LockName, files: WaitFiles) -> Result<()> {
    let waiter = Waiter { store: Arc::clone(store), name: name.clone(), file_name: FileName::of(name) };
    thread::Builder::new()
        .name("locks-file-wait".to_owned())
        .spawn(move || waiter.run(files))
        .map(drop)
        .map_err(|error| classify(error, "can't start the thread that waits for the lock"))
}

struct Waiter {
    store: Arc<Store>,
    name: LockName,
    file_name: FileName,
}

/// What a waiting thread does after a wait.
enum Next {
    WaitAgain,
    End,
}

impl Waiter {
    fn run(self, files: WaitFiles) {
        let mut outcome = self.wait(files);
        while let Ok(Next::WaitAgain) = outcome {
            outcome = self.store.wait_files(&self.file_name, None).and_then(|files| self.wait(files));
        }
        if let Err(error) = outcome {
            self.fail(&error);
        }
    }

    /// Waits for the lock once and gives it to the claim that is first by then.
    fn wait(&self, files: WaitFiles) -> Result<Next> {
        let place = match files.spot {
            Spot::InLine(place) => place,
            Spot::AtTheEnd(line) => line.join(&files.lock)?,
        };
        place.wait_for_turn()?;
        if self.store.registry().first_waiting(&self.name).is_none() {
            return Ok(Next::End);
        }
        let mut locked = self.wait_at_the_lock(files.lock)?;
        loop {
            // The claim is looked up again each time: it may be cancelled while the grant is being recorded.
            let Some(claim) = self.store.registry().first_waiting(&self.name) else { return Ok(Next::End) };
            let contents = locked.contents()?;
            let grant = self.store.record_grant(&locked, &contents, &claim, &self.file_name, false)?;
            let delivery = self.store.registry().deliver(&grant, locked);
            let next = match delivery {
                Delivery::Last => Next::End,
                Delivery::More => Next::WaitAgain,
                Delivery::Cancelled(still_locked) => {
                    locked = still_locked;
                    continue;
                }
            };
            drop(place);
            if let Some(events) = self.store.events() {
                events.granted(grant, None);
            }
            return Ok(next);
        }
    }

    /// Waits for the lock as the one whose turn is next.
    fn wait_at_the_lock(&self, mut file: LockFile) -> Result<Locked> {
        let mut replaced = self.store.replacements();
        loop {
            let locked = file.lock()?;
            if locked.is_in_place()? {
                return Ok(locked);
            }
            replaced.once_more(locked.path())?;
            file = self.store.open_lock(&self.file_name)?;
            file.announce_waiting()?;
        }
    }

    /// Tells all claims that wait: each is sent again on the hint and then gets the error.
    fn fail(&self, error: &Error) {
        self.store.registry().fail(&self.name, error);
        if let Some(events) = self.store.events() {
            events.hint(self.name.clone());
        }
    }
}
