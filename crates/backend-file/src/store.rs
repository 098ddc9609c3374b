//! What the steps and the waiting threads share: the open directory, and what this process holds and waits for.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use locks_api::spi::{Attempt, Claim, Events, Grant, Mode, Released};
use locks_api::{Busy, Error, ErrorKind, Holder, LockName, Result};

use crate::bell::Bell;
use crate::boot::BootId;
use crate::directory::Directory;
use crate::existing_path;
use crate::file_name::FileName;
use crate::hold::Hold;
use crate::line::{self, Line, Place};
use crate::lock_file::LockFile;
use crate::ofd;
use crate::options::FileOptions;
use crate::record::Contents;
use crate::registry::{Registry, Standing};
use crate::seats;
use crate::taking::{Obstacle, Tried};
use crate::waiter;

/// What the steps and the waiting threads share.
pub(crate) struct Store {
    pub(crate) directory: Directory,
    pub(crate) options: FileOptions,
    pub(crate) boot: BootId,
    pub(crate) events: OnceLock<Events>,
    pub(crate) bell: Bell,
    registry: Mutex<Registry>,
    /// Rung when something happened that a thread waits for that is not blocked in the kernel.
    nudged: Condvar,
}

impl Store {
    pub(crate) fn open(dir: &Path, options: &FileOptions) -> Result<Arc<Self>> {
        if options.paths && !ofd::SUPPORTED {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "existing paths are locked on Linux only: other systems have no locks of the open file",
            ));
        }
        let directory = Directory::open(dir, options)?;
        Ok(Arc::new_cyclic(|store| Self {
            directory,
            options: options.clone(),
            boot: BootId::of_this_boot(),
            events: OnceLock::new(),
            bell: Bell::new(store.clone()),
            registry: Mutex::default(),
            nudged: Condvar::new(),
        }))
    }

    pub(crate) fn acquire(self: &Arc<Self>, claim: &Claim) -> Result<Attempt> {
        self.check(claim)?;
        let file_name = self.file_name(&claim.name);
        let standing = self.registry().standing(claim)?;
        let (by, file) = match standing {
            Standing::Held(grant) => return Ok(Attempt::Granted(grant)),
            Standing::Ended(attempt) => return Ok(attempt),
            Standing::Queued(place) => {
                let position = place.map(|place| place.ahead()).transpose()?;
                return Ok(Attempt::queued(position, self.holder(&claim.name)));
            }
            Standing::Behind => {
                self.check_limit(claim)?;
                (self.holder(&claim.name), None)
            }
            Standing::New => match self.try_take(claim, &file_name, None)? {
                Tried::Taken(hold) => {
                    let grant = hold.grant.clone();
                    self.registry().hold(hold)?;
                    return Ok(Attempt::Granted(grant));
                }
                Tried::Busy(Obstacle::NotDue(remaining)) => {
                    return Ok(Attempt::Busy(Busy::NotDue { remaining }));
                }
                Tried::Busy(Obstacle::Holder(_, file)) => {
                    self.check_limit(claim)?;
                    (self.holder_in(&file), Some(file))
                }
                Tried::Busy(Obstacle::Permits | Obstacle::HeldBack(_) | Obstacle::Line) => {
                    self.check_limit(claim)?;
                    (self.holder(&claim.name), None)
                }
            },
        };
        if !claim.may_wait {
            return Ok(Attempt::held(by));
        }
        let file = file.map_or_else(|| self.open_lock(&claim.name, &file_name), Ok)?;
        let place = self.registry().wait(
            claim,
            || {
                line::try_join(&self.directory, &file_name, claim, self.boot, || {
                    self.mark(file, &claim.name, &file_name)
                })
            },
            || waiter::start(self, &claim.name),
        )?;
        Ok(Attempt::queued(place.map(|place| place.ahead()).transpose()?, by))
    }

    /// Refuses what can't be, before any I/O.
    fn check(&self, claim: &Claim) -> Result<()> {
        if self.options.paths {
            existing_path::check(&claim.name)?;
            if let Mode::Permits { .. } = claim.mode {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "an existing path has no permits, since flock(1) knows nothing of them; use a lock with a name",
                ));
            }
        }
        match claim.mode {
            Mode::Exclusive => Ok(()),
            Mode::Shared | Mode::Permits { .. } if ofd::SUPPORTED => Ok(()),
            _ => Err(Error::new(ErrorKind::Unsupported, "the file backend has only exclusive locks here")),
        }
    }

    /// Refuses a claim for permits if others have or want permits of another number.
    fn check_limit(&self, claim: &Claim) -> Result<()> {
        if claim.mode.limit().is_none() {
            return Ok(());
        }
        let file_name = self.file_name(&claim.name);
        if let Some(file) = LockFile::look(&self.directory, &file_name.lock())?
            && let seats::Fit::OtherLimit(limit) = seats::fits(&file, file.contents()?.mode(), claim.mode)?
        {
            return Err(seats::mismatch(limit, claim.mode));
        }
        match Line::look(&self.directory, &file_name)? {
            Some(line) => line.check_limit(claim, self.boot),
            None => Ok(()),
        }
    }

    /// Gets a place in the line; waits while others join.
    pub(crate) fn join(&self, claim: &Claim) -> Result<Place> {
        let file_name = self.file_name(&claim.name);
        let file = self.open_lock(&claim.name, &file_name)?;
        line::join(&self.directory, &file_name, claim, self.boot, || self.mark(file, &claim.name, &file_name))
    }

    /// Marks the lock file: somebody waits.
    fn mark(&self, mut file: LockFile, name: &LockName, file_name: &FileName) -> Result<()> {
        let mut replaced = self.replacements();
        loop {
            file.announce_waiting()?;
            if file.is_in_place()? {
                return Ok(());
            }
            replaced.once_more(file.path())?;
            file = self.open_lock(name, file_name)?;
        }
    }

    pub(crate) fn cancel(self: &Arc<Self>, claim: &Claim) -> Result<()> {
        let hold = self.registry().cancel(claim, || waiter::start(self, &claim.name));
        self.nudged.notify_all();
        let Some(mut hold) = hold else { return Ok(()) };
        match hold.undo() {
            Ok(()) => hold.release(),
            Err(error) => {
                // It is cancelled again until this is done.
                self.registry().hold(hold)?;
                Err(error)
            }
        }
    }

    pub(crate) fn release(&self, grant: &Grant) -> Result<Released> {
        let hold = self.registry().take(grant);
        let Some(hold) = hold else { return Ok(Released::NotHeld) };
        hold.release()?;
        Ok(Released::Done)
    }

    /// Does something to what is held with exactly this grant.
    pub(crate) fn with_hold(
        &self,
        grant: &Grant,
        act: impl FnOnce(&mut Hold) -> Result<()>,
    ) -> Result<Released> {
        match self.registry().held_mut(grant) {
            Some(hold) => act(hold).map(|()| Released::Done),
            None => Ok(Released::NotHeld),
        }
    }

    pub(crate) fn file_name(&self, name: &LockName) -> FileName {
        match self.options.paths {
            true => FileName::of_path(name),
            false => FileName::of(name),
        }
    }

    pub(crate) fn open_lock(&self, name: &LockName, file_name: &FileName) -> Result<LockFile> {
        let file_name = file_name.lock();
        if !self.options.paths {
            return LockFile::open(&self.directory, &file_name);
        }
        let anchor = existing_path::open(name, self.options.allow_network_fs)?;
        let start = Instant::now();
        while start.elapsed() < seats::MOMENTS {
            let file = LockFile::open(&self.directory, &file_name)?;
            // Whoever clears files away has it alone, for moments.
            if ofd::try_share(&file, &seats::IN_USE)? {
                return Ok(file.anchored(anchor));
            }
            thread::yield_now();
        }
        Err(Error::new(
            ErrorKind::Backend,
            format!("another process keeps {file_name} closed in {}", self.directory.path().display()),
        ))
    }

    /// Opens the file in the lock directory, whatever carries the lock; makes it if it is not there.
    pub(crate) fn open_side_file(&self, name: &LockName) -> Result<LockFile> {
        LockFile::open(&self.directory, &self.file_name(name).lock())
    }

    /// Who holds a lock that is known to be held.
    fn holder(&self, name: &LockName) -> Option<Holder> {
        let file_name = self.file_name(name);
        self.holder_in(&LockFile::look(&self.directory, &file_name.lock()).ok()??)
    }

    fn holder_in(&self, file: &LockFile) -> Option<Holder> {
        let contents = file.contents().ok()?;
        self.holder_by(file, &contents)
    }

    fn holder_by(&self, file: &LockFile, contents: &Contents) -> Option<Holder> {
        let latest = contents.latest(self.boot)?;
        if latest.mode == Mode::Exclusive {
            // Of an existing path, anybody may hold it.
            let known = match latest.token {
                Some(token) if self.options.paths => {
                    ofd::is_locked(file, &seats::life(token.get())).unwrap_or(false)
                }
                _ => true,
            };
            return known.then_some(latest.holder);
        }
        // The latest of them may have gone before the others.
        let holders = seats::holders(file, self.boot).ok()?;
        holders.into_iter().flatten().next().map(|first| first.holder)
    }

    pub(crate) fn replacements(&self) -> Replacements<'_> {
        Replacements { directory: &self.directory, left: 100 }
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something happens to this lock, or the time is up. Whether something did.
    pub(crate) fn wait_for_nudge(&self, name: &LockName, at_most: Duration) -> bool {
        let registry = self.registry();
        let waited = self.nudged.wait_timeout_while(registry, at_most, |registry| !registry.is_nudged(name));
        let (mut registry, _) = waited.unwrap_or_else(PoisonError::into_inner);
        registry.take_nudge(name)
    }

    /// Something happened to this lock.
    pub(crate) fn nudge(&self, name: &LockName) {
        self.registry().nudge(name);
        self.nudged.notify_all();
    }

    pub(crate) fn events(&self) -> Option<&Events> {
        self.events.get()
    }

    pub(crate) fn close(&self) {
        let held = self.registry().close();
        self.nudged.notify_all();
        self.bell.stop();
        drop(held);
    }
}

/// How often a lock file may be replaced under one's hands before that is an error.
pub(crate) struct Replacements<'a> {
    directory: &'a Directory,
    left: u32,
}

impl Replacements<'_> {
    /// Counts one replacement of the file at `path`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Backend`] if there were too many, or the whole directory was replaced.
    pub(crate) fn once_more(&mut self, path: &Path) -> Result<()> {
        if !self.directory.is_in_place() {
            return Err(Error::new(
                ErrorKind::Backend,
                format!(
                    "lock directory {} was deleted or replaced; open it again",
                    self.directory.path().display()
                ),
            ));
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::new(
                ErrorKind::Backend,
                format!("somebody keeps deleting lock file {}; lock files must stay", path.display()),
            )),
        }
    }
}
