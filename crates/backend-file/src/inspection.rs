//! Who holds and who waits, without taking anything.
//!
//! Seats, places in the line and lives are locked bytes, which anybody may ask the kernel about. The exclusive flock of a plain grant can't be asked about without trying to
//! take it, which would be in the way of others; the kernel tells it elsewhere, see [`flocks`](crate::flocks).

use std::time::Duration;

use locks_api::spi::{HeldBy, Leader, LockState, Mode, WaitingFor};
use locks_api::{Error, ErrorKind, Holder, LockName, Result};
use rustix::fs::Dir;

use crate::error::classify;
use crate::existing_path;
use crate::file_name::{FileName, Read};
use crate::flocks::Flocks;
use crate::inode::Inode;
use crate::line::Line;
use crate::lock_file::LockFile;
use crate::ofd;
use crate::record::Latest;
use crate::schedule::clock;
use crate::store::Store;
use crate::{seats, stored_name, value};

impl Store {
    /// Who leads, and with what value.
    pub(crate) fn leader(&self, name: &LockName) -> Result<Option<Leader>> {
        let Some(file) = LockFile::look(&self.directory, &self.file_name(name).lock())? else {
            return Ok(None);
        };
        let Some(Latest { mode: Mode::Exclusive, holder, claim: Some(claim), token: Some(token), .. }) =
            file.contents()?.latest(self.boot)
        else {
            return Ok(None);
        };
        if !ofd::is_locked(&file, &seats::life(token.get()))? {
            return Ok(None);
        }
        let Some(value) = value::read(&file, claim, token.get())? else { return Ok(None) };
        let mut leader = Leader::new(token, value);
        leader.holder = Some(holder);
        Ok(Some(leader))
    }

    /// What is known of one lock.
    pub(crate) fn state(&self, name: &LockName) -> Result<LockState> {
        if self.options.paths {
            existing_path::check(name)?;
        }
        self.state_by(name, &mut Flocks::read(self.options.paths)?)
    }

    /// The locks that are in use and whose names begin with `prefix`, by name.
    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<LockState>> {
        let mut flocks = Flocks::read(self.options.paths)?;
        let mut states = Vec::new();
        for name in self.names()?.iter().filter(|name| name.as_str().starts_with(prefix)) {
            match self.state_by(name, &mut flocks) {
                Ok(state) if state.is_in_use() => states.push(state),
                Ok(_) => {}
                // Of another user, or something else that ends in `.lock`.
                Err(error) if is_of_others(&error) => {}
                Err(error) => return Err(error),
            }
        }
        states.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(states)
    }

    /// The names of all locks that have a file.
    fn names(&self) -> Result<Vec<LockName>> {
        let mut names = Vec::new();
        for file in self.files()? {
            match FileName::read(&file, self.options.paths) {
                Some(Read::Name(name)) => names.push(name),
                Some(Read::Hashed) => match LockFile::look(&self.directory, &file) {
                    Ok(Some(file)) => names.extend(stored_name::read(&file)?),
                    Ok(None) => {}
                    Err(error) if is_of_others(&error) => {}
                    Err(error) => return Err(error),
                },
                None => {}
            }
        }
        Ok(names)
    }

    /// The names of all files in the directory that are text.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let path = self.directory.path();
        let failed = |error: rustix::io::Errno| {
            classify(error, format_args!("can't list lock directory {}", path.display()))
        };
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.directory).map_err(failed)? {
            if let Ok(name) = entry.map_err(failed)?.file_name().to_str() {
                files.push(name.to_owned());
            }
        }
        Ok(files)
    }

    fn state_by(&self, name: &LockName, flocks: &mut Flocks) -> Result<LockState> {
        let mut state = LockState::free(name.clone());
        let file_name = self.file_name(name);
        let file = LockFile::look(&self.directory, &file_name.lock())?;
        let path = match self.options.paths {
            true => existing_path::look(name, self.options.allow_network_fs)?.map(|anchor| anchor.inode),
            false => None,
        };
        let mut known = Vec::new();
        if let Some(file) = &file {
            let contents = file.contents()?;
            for latest in seats::holders(file, self.boot)? {
                known.extend(latest.as_ref().and_then(|latest| latest.holder.pid));
                state.holders.push(held_by(latest.unwrap_or_else(|| unknown(contents.mode()))));
            }
            let latest = contents.latest(self.boot);
            let lives = match latest.as_ref().and_then(|latest| latest.token) {
                Some(token) => ofd::is_locked(file, &seats::life(token.get()))?,
                None => false,
            };
            if state.holders.is_empty()
                && let Some(latest) = latest.filter(|latest| latest.mode == Mode::Exclusive)
            {
                let pid = latest.holder.pid.unwrap_or_default();
                if lives || (!self.options.paths && flocks.has_alone(pid, file.carrier_inode())?) {
                    known.extend(latest.holder.pid);
                    state.holders.push(held_by(latest));
                }
            }
            state.not_due_for = contents.schedule().held_back(clock()).filter(|left| *left > Duration::ZERO);
        }
        if let Some(inode) = path.or(file.as_ref().map(LockFile::carrier_inode)) {
            self.add_unknown(&mut state, flocks, inode, &known);
        }
        if let Some(line) = Line::look(&self.directory, &file_name)? {
            let waiters = line.waiters(self.boot)?;
            state.waiters = Some(waiters.into_iter().map(waiting_for).collect());
        }
        Ok(state)
    }

    /// Holders of whom only the kernel knows.
    fn add_unknown(&self, state: &mut LockState, flocks: &Flocks, inode: Inode, known: &[u32]) {
        for (mode, pid) in flocks.of(inode) {
            let is_known = known.contains(&pid) || (mode == Mode::Shared && !self.options.paths);
            if !is_known {
                let mut holder = Holder::default();
                holder.pid = Some(pid);
                let mut held_by = HeldBy::new(mode);
                held_by.holder = Some(holder);
                state.holders.push(held_by);
            }
        }
    }
}

/// Whether a file is left out of a list, since this user may not read it or it is no lock file.
fn is_of_others(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported)
}

fn unknown(mode: Mode) -> Latest {
    Latest { mode, holder: Holder::default(), claim: None, token: None, sequence: 0 }
}

fn held_by(latest: Latest) -> HeldBy {
    let mut held_by = HeldBy::new(latest.mode);
    held_by.holder = Some(latest.holder).filter(|holder| *holder != Holder::default());
    held_by.claim = latest.claim;
    held_by.token = latest.token;
    held_by
}

fn waiting_for(latest: Option<Latest>) -> WaitingFor {
    let mut waiting_for = WaitingFor::new();
    if let Some(latest) = latest {
        waiting_for.mode = Some(latest.mode);
        waiting_for.holder = Some(latest.holder);
        waiting_for.claim = latest.claim;
    }
    waiting_for
}
