//! Clears away the files of locks that nobody uses.
//!
//! A file is removed only by who has it alone: its flock, its line closed and empty, and nobody else with the side file of an existing path. Whoever opened it before and
//! locks it afterwards sees that the path leads to it no more, and starts again. A lock without a file goes on at the clock; so a file
//! stays whose counter is not behind the clock, and one with a schedule that is in force.

use std::time::Duration;

use locks_api::{ErrorKind, Result};

use crate::file_name::FileName;
use crate::line::Line;
use crate::lock_file::{Flock, LockFile, Locked, TryLock};
use crate::schedule::clock;
use crate::seats;
use crate::sharing::NEW;
use crate::store::Store;

/// What [`FileBackend::collect_garbage`](crate::FileBackend::collect_garbage) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Locks whose files were removed.
    pub removed: u64,
    /// Locks whose files stay: used, too young, still needed, or of a user whose files this one may not remove.
    pub kept: u64,
}

impl Store {
    pub(crate) fn collect_garbage(&self, older_than: Duration) -> Result<Collected> {
        let mut collected = Collected::default();
        for file in self.files()? {
            if file.starts_with(NEW) {
                self.remove_unfinished(&file, older_than)?;
                continue;
            }
            let is_removed = match file.strip_suffix(".lock").map(FileName::from_stem) {
                Some(file_name) => self.remove_unused(&file_name, older_than)?,
                None => continue,
            };
            match is_removed {
                true => collected.removed += 1,
                false => collected.kept += 1,
            }
        }
        Ok(collected)
    }

    /// Removes the files of this lock if nobody uses them. Never waits.
    fn remove_unused(&self, file_name: &FileName, older_than: Duration) -> Result<bool> {
        let file = match LockFile::open_if_there(&self.directory, &file_name.lock()) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(false),
            // Of somebody else, or nothing of ours at all.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        if file.age()? < older_than {
            return Ok(false);
        }
        let TryLock::Locked(mut alone) = file.try_lock(Flock::Exclusive)? else { return Ok(false) };
        if !self.is_unused(&mut alone)? {
            return Ok(false);
        }
        let closed = match Line::open_if_there(&self.directory, file_name)? {
            Some(line) => match line.close_if_empty()? {
                Some(closed) => Some(closed),
                None => return Ok(false),
            },
            None => None,
        };
        // The gate first: a lock file without one is as good as any, and the other way round nobody would find it.
        let removed = match closed {
            Some(_) => self.directory.remove_file(&file_name.gate()),
            None => Ok(()),
        };
        let removed = removed.and_then(|()| self.directory.remove_file(&file_name.lock()));
        match removed {
            Ok(()) => Ok(true),
            // In a sticky directory, of somebody else.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(alone.failed("remove", error)),
        }
    }

    fn is_unused(&self, alone: &mut Locked) -> Result<bool> {
        // Who has the side file of an existing path open shares this byte. Others need the flock.
        if !alone.try_bytes(&seats::IN_USE)? || !alone.is_in_place()? {
            return Ok(false);
        }
        let contents = match alone.contents() {
            // Of a later version.
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(false),
            contents => contents?,
        };
        let now = clock();
        Ok(!contents.schedule().is_in_force(now) && contents.counter().is_none_or(|counter| counter < now))
    }

    /// Removes a file that its maker did not get to finish.
    fn remove_unfinished(&self, file: &str, older_than: Duration) -> Result<()> {
        let Ok(Some(unfinished)) = LockFile::open_if_there(&self.directory, file) else { return Ok(()) };
        if unfinished.age()? < older_than.max(Duration::from_secs(60)) {
            return Ok(());
        }
        match self.directory.remove_file(file) {
            Err(error)
                if !matches!(
                    error.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound
                ) =>
            {
                Err(unfinished.failed("remove", error))
            }
            _ => Ok(()),
        }
    }
}
