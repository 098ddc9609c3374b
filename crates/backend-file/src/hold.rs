//! What a claim holds, and the ways in which that ends or changes.

use std::os::fd::OwnedFd;

use locks_api::spi::{Grant, Mode};
use locks_api::{Error, ErrorKind, Result};

use crate::lock_file::Locked;
use crate::schedule::Schedule;
use crate::{seats, value};

/// A granted lock.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) grant: Grant,
    pub(crate) mode: Mode,
    pub(crate) since_micros: u64,
    /// Whether the grant wrote until when nobody else gets the lock.
    pub(crate) holds_back: bool,
    /// Whether the exclusive holder is marked as alive.
    pub(crate) shows_life: bool,
    /// Whether each write waits for the disk.
    pub(crate) durable: bool,
    pub(crate) locked: Locked,
}

impl Hold {
    /// Gives the lock back.
    pub(crate) fn release(self) -> Result<()> {
        self.locked.release()
    }

    /// Writes down that what the lock was taken for was done.
    pub(crate) fn complete(&mut self) -> Result<()> {
        let since = self.since_micros;
        self.change(|schedule| schedule.last_completed = schedule.last_completed.max(since))
    }

    /// Takes back what the grant wrote about when the lock is due: nobody got it.
    pub(crate) fn undo(&mut self) -> Result<()> {
        if !self.holds_back {
            return Ok(());
        }
        let claim = self.grant.claim.to_bits();
        self.change(|schedule| {
            if schedule.by == claim {
                (schedule.not_before, schedule.by) = (0, 0);
            }
        })
    }

    /// Turns an exclusive hold into a shared one.
    pub(crate) fn downgrade(&mut self) -> Result<()> {
        if self.mode == Mode::Shared {
            return Ok(());
        }
        self.behind_the_gate(|hold| {
            let contents = hold.locked.contents()?;
            let (offset, write) = contents.next_change(&contents.schedule(), true);
            let first_token = hold.grant.tokens.first().get();
            seats::take(&mut hold.locked, first_token, write.as_bytes())?;
            hold.locked.write_record(offset, &write, hold.durable)?;
            hold.locked.share_lock()
        })?;
        self.mode = Mode::Shared;
        Ok(())
    }

    /// Publishes a value.
    pub(crate) fn publish(&mut self, value: &str) -> Result<()> {
        let first_token = self.grant.tokens.first().get();
        if !self.shows_life && self.mode == Mode::Exclusive {
            seats::show_life(&mut self.locked, &self.grant.tokens)?;
            self.shows_life = true;
        }
        value::write(&self.locked, self.grant.claim, first_token, value)
    }

    /// Another descriptor of the lock, to be inherited by programs.
    pub(crate) fn share(&mut self) -> Result<OwnedFd> {
        if !self.shows_life && self.mode == Mode::Exclusive {
            // The kernel's list of flocks leaves out those whose process has ended.
            seats::show_life(&mut self.locked, &self.grant.tokens)?;
            self.shows_life = true;
        }
        self.locked.share()
    }

    fn change(&mut self, change: impl FnOnce(&mut Schedule)) -> Result<()> {
        if self.mode == Mode::Exclusive {
            return self.write_schedule(change);
        }
        self.behind_the_gate(|hold| hold.write_schedule(change))
    }

    fn write_schedule(&mut self, change: impl FnOnce(&mut Schedule)) -> Result<()> {
        let contents = self.locked.contents()?;
        let mut schedule = contents.schedule();
        change(&mut schedule);
        let (offset, write) = contents.next_change(&schedule, false);
        self.locked.write_record(offset, &write, self.durable)
    }

    fn behind_the_gate<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if !seats::enter(&mut self.locked, false)? {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("another process keeps the gate of {} closed", self.locked.path().display()),
            ));
        }
        let done = act(self);
        let left = seats::leave(&self.locked);
        done.and_then(|done| left.map(|()| done))
    }
}
