//! The step that grants: one decision under the lock, and one record of it.
//!
//! The exclusive lock is the flock of the file. Whoever has it is alone, and writes. Those who hold the lock together each have the shared flock, which keeps
//! the exclusive one away, and a seat; what they hold it as (readers, or permits of some number) is the mode of the last record, which counts as
//! long as any seat is taken. They decide and write behind the gate of the file, one after the other. So every record is written by one who is
//! alone with it, and takes tokens above those of the last one.

use std::time::Duration;

use locks_api::spi::{Claim, Expiry, Grant, Mode};
use locks_api::{Error, ErrorKind, Result};

use crate::error::classify;
use crate::file_name::FileName;
use crate::hold::Hold;
use crate::line::{Line, Place};
use crate::lock_file::{Flock, LockFile, Locked, TryLock};
use crate::record::{self, Contents, Entry};
use crate::schedule::clock;
use crate::seats::{self, Fit};
use crate::store::Store;
use crate::value;

/// What came of trying to take a lock.
pub(crate) enum Tried {
    Taken(Hold),
    Busy(Obstacle),
}

/// Why a lock could not be taken.
pub(crate) enum Obstacle {
    /// Somebody holds it in a way that excludes this one. To wait, block in flock in this way.
    Holder(Flock, LockFile),
    /// There are too few permits.
    Permits,
    /// Somebody waits and is first, or keeps the gate closed.
    Line,
    /// Others hold it together, and nobody joins them for so long.
    HeldBack(Duration),
    /// Nobody holds it, and it is not due for so long.
    NotDue(Duration),
}

/// What came of a lock that was locked.
pub(crate) enum Step {
    Tried(Tried),
    /// The file was replaced meanwhile.
    Replaced,
}

impl Store {
    /// Takes the lock if it can be had. Whoever has no `place` in the line takes it only if nobody else has, and does not wait for long.
    pub(crate) fn try_take(
        &self,
        claim: &Claim,
        file_name: &FileName,
        place: Option<&Place>,
    ) -> Result<Tried> {
        let how = if claim.mode == Mode::Exclusive { Flock::Exclusive } else { Flock::Shared };
        let mut replaced = self.replacements();
        loop {
            let locked = match self.open_lock(&claim.name, file_name)?.try_lock(how)? {
                TryLock::Locked(locked) => locked,
                TryLock::Busy(file) => return Ok(Tried::Busy(Obstacle::Holder(how, file))),
            };
            match self.take_locked(claim, file_name, locked, how, place)? {
                Step::Tried(tried) => return Ok(tried),
                Step::Replaced => replaced.once_more(&self.directory.path_of(&file_name.lock()))?,
            }
        }
    }

    /// Goes on once the file is locked, in this way.
    pub(crate) fn take_locked(
        &self,
        claim: &Claim,
        file_name: &FileName,
        locked: Locked,
        how: Flock,
        place: Option<&Place>,
    ) -> Result<Step> {
        match (claim.mode, how) {
            (Mode::Exclusive, Flock::Exclusive) => self.take_alone(claim, file_name, locked, place),
            // Woken for another claim, which was cancelled.
            (Mode::Exclusive, Flock::Shared) => {
                drop(locked);
                self.try_take(claim, file_name, place).map(Step::Tried)
            }
            _ => self.join_in(claim, file_name, locked, how, place),
        }
    }

    fn take_alone(
        &self,
        claim: &Claim,
        file_name: &FileName,
        mut locked: Locked,
        place: Option<&Place>,
    ) -> Result<Step> {
        // Somebody may have moved the existing path, and another one may lock what is there now.
        let gated = locked.is_anchored();
        if gated && !seats::enter(&mut locked, place.is_some())? {
            return Ok(Step::Tried(Tried::Busy(Obstacle::Line)));
        }
        if !locked.is_in_place()? {
            return Ok(Step::Replaced);
        }
        let contents = locked.contents()?;
        let closed = match self.close_line(file_name, &contents, place)? {
            Some(closed) => closed,
            None => return Ok(Step::Tried(Tried::Busy(Obstacle::Line))),
        };
        let now = clock();
        let schedule = contents.schedule();
        if let Some(left) = schedule.interval_left(claim, now).or_else(|| schedule.held_back(now)) {
            return Ok(Step::Tried(Tried::Busy(Obstacle::NotDue(left))));
        }
        let hold = self.record(claim, file_name, locked, (&contents, now), closed.is_some())?;
        if gated {
            seats::leave(&hold.locked)?;
        }
        Ok(Step::Tried(Tried::Taken(hold)))
    }

    fn join_in(
        &self,
        claim: &Claim,
        file_name: &FileName,
        mut locked: Locked,
        how: Flock,
        place: Option<&Place>,
    ) -> Result<Step> {
        if !seats::enter(&mut locked, place.is_some())? {
            return Ok(Step::Tried(Tried::Busy(Obstacle::Line)));
        }
        if !locked.is_in_place()? {
            return Ok(Step::Replaced);
        }
        let contents = locked.contents()?;
        let fit = seats::fits(&locked, contents.mode(), claim.mode)?;
        if let Fit::OtherLimit(limit) = fit {
            return Err(seats::mismatch(limit, claim.mode));
        }
        let Some(closed) = self.close_line(file_name, &contents, place)? else {
            return Ok(Step::Tried(Tried::Busy(Obstacle::Line)));
        };
        let now = clock();
        let schedule = contents.schedule();
        let obstacle = if let Some(left) = schedule.interval_left(claim, now) {
            Obstacle::NotDue(left)
        } else if fit == Fit::OtherMode {
            drop(locked);
            Obstacle::Holder(Flock::Exclusive, self.open_lock(&claim.name, file_name)?)
        } else if let Some(left) = schedule.held_back(now) {
            match seats::is_anybody_there(&locked)? {
                true => Obstacle::HeldBack(left),
                false => Obstacle::NotDue(left),
            }
        } else if let Mode::Permits { count, limit } = claim.mode
            && !seats::take_permits(&mut locked, count, limit)?
        {
            Obstacle::Permits
        } else {
            let hold = self.record(claim, file_name, locked, (&contents, now), closed.is_some())?;
            if how == Flock::Exclusive {
                hold.locked.share_lock()?;
            }
            seats::leave(&hold.locked)?;
            return Ok(Step::Tried(Tried::Taken(hold)));
        };
        Ok(Step::Tried(Tried::Busy(obstacle)))
    }

    /// Makes sure that nobody is passed. `None` if somebody would be; otherwise the closed gate, if the file says that somebody waits and nobody does.
    fn close_line(
        &self,
        file_name: &FileName,
        contents: &Contents,
        place: Option<&Place>,
    ) -> Result<Option<Option<Locked>>> {
        match place {
            // A waiter that was blocked for another claim may come too early for this one.
            Some(place) => Ok(place.is_first()?.then_some(None)),
            None if contents.somebody_waits() => {
                // Nobody can join while it is closed, so nobody who waits is overlooked.
                Ok(Line::open(&self.directory, file_name)?.close_if_empty()?.map(Some))
            }
            None => Ok(Some(None)),
        }
    }

    /// Writes the grant to `claim` into the file, with the tokens that follow.
    fn record(
        &self,
        claim: &Claim,
        file_name: &FileName,
        mut locked: Locked,
        (contents, now): (&Contents, u64),
        clear_waiting: bool,
    ) -> Result<Hold> {
        let together = claim.mode != Mode::Exclusive;
        if file_name.is_hashed() {
            locked.check_name(&claim.name)?;
        }
        let tokens = contents.next_tokens(self.boot, now).ok_or_else(|| {
            Error::new(ErrorKind::Backend, format!("the tokens in {} are used up", locked.path().display()))
        })?;
        let first_token = tokens.first().get();
        let entry = Entry {
            counter: tokens.last().get(),
            first_token,
            boot: self.boot,
            since_micros: now,
            claim,
            schedule: contents.schedule().after_grant(claim, now),
        };
        let shows_life = !together && (claim.value().is_some() || self.options.paths);
        if together {
            seats::take(&mut locked, first_token, &record::encode_alone(0, &entry))?;
        } else if shows_life {
            seats::show_life(&mut locked, &tokens)?;
            if let Some(value) = claim.value() {
                value::write(&locked, claim.id, first_token, value)?;
            }
        }
        let (offset, write) = contents.next_write(&entry, clear_waiting);
        locked.write_record(offset, &write, self.options.durable)?;
        if self.options.durable && contents.is_new() {
            self.directory.sync().map_err(|error| {
                classify(error, format_args!("can't sync lock directory {}", self.directory.path().display()))
            })?;
        }
        Ok(Hold {
            grant: Grant::new(claim, tokens, Expiry::Never),
            mode: claim.mode,
            since_micros: now,
            holds_back: claim.min_hold().is_some(),
            shows_life,
            durable: self.options.durable,
            locked,
        })
    }
}
