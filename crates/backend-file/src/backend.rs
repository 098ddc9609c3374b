//! The backend itself: its options, its steps, and what they share with the waiting threads.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use locks_api::spi::{
    Attempt, Backend, Claim, ClaimId, Events, Expiry, Grant, Guarantees, Inline, Mode, Recovery, Released,
    Renewed, Scope,
};
use locks_api::{Error, ErrorKind, Holder, LossReason, Result};

use crate::boot::BootId;
use crate::directory::{self, Directory};
use crate::error::classify;
use crate::file_name::FileName;
use crate::line::Line;
use crate::lock_file::{LockFile, Locked, TryLock};
use crate::record::{Contents, Granting};
use crate::registry::{Registry, Standing};
use crate::url;
use crate::waiter::{self, WaitFiles};

/// Locks in one directory of this machine.
///
/// Each lock is a file in the directory, locked with flock: the kernel frees it when its holder ends, however it ends.
/// Processes that open the same directory exclude each other, and so do several `FileBackend`s of one process.
///
/// ```
/// use locks_backend_file::FileBackend;
///
/// # let temp = tempfile::tempdir()?;
/// # let dir = temp.path().join("locks");
/// let backend = FileBackend::open(&dir)?;
/// assert_eq!(backend.dir(), dir);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FileBackend {
    store: Arc<Store>,
}

/// How a [`FileBackend`] is opened.
///
/// ```
/// use locks_backend_file::FileBackend;
///
/// # let dir = tempfile::tempdir()?;
/// let backend = FileBackend::options().durable(true).open(dir.path())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "options do nothing until a directory is opened with them"]
pub struct FileOptions {
    durable: bool,
    allow_network_fs: bool,
}

impl FileOptions {
    /// Whether each grant waits until its fencing token is on the disk. Off by default.
    ///
    /// Without it, tokens increase over crashes of processes, and over crashes of the machine as long as its clock is not
    /// behind the last grant. With it they need no clock, and each grant takes as long as the disk takes to sync;
    /// it is then not taken on the caller's thread.
    pub const fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Whether the directory may lie on a network file system or on FUSE. Off by default.
    ///
    /// Many of them do not exclude holders on different machines, and some not even on one.
    pub const fn allow_network_fs(mut self, allow: bool) -> Self {
        self.allow_network_fs = allow;
        self
    }

    /// Opens `dir` with these options. See [`FileBackend::open`].
    ///
    /// # Errors
    ///
    /// As [`FileBackend::open`].
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<FileBackend> {
        let directory = Directory::open(dir.as_ref(), self.durable, self.allow_network_fs)?;
        Ok(FileBackend {
            store: Arc::new(Store {
                directory,
                durable: self.durable,
                boot: BootId::of_this_boot(),
                events: OnceLock::new(),
                registry: Mutex::default(),
            }),
        })
    }
}

impl FileBackend {
    /// Opens a directory for locks. It is made, for this user alone, if it is not there; a relative path counts from the
    /// present working directory.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Config`] if the path leads to something that is not a directory.
    /// - [`ErrorKind::PermissionDenied`] if it can't be made or opened.
    /// - [`ErrorKind::StoreFull`] if there is no room for it, or no descriptor left.
    /// - [`ErrorKind::Unsupported`] if others could replace its files (it belongs to another user, or others may write to it and it is not
    ///   sticky), or if it lies on a network file system.
    /// - [`ErrorKind::Backend`] if the disk reports an error.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::options().open(dir)
    }

    /// Options to open a directory with.
    pub fn options() -> FileOptions {
        FileOptions::default()
    }

    /// Opens the directory that a URL names.
    ///
    /// `file:` is the [default directory](Self::default_dir); `file:/dir` and `file:///dir` name one, percent-encoded. Options follow a `?`:
    /// `durable=true` and `allow_network_fs=true`, as in [`FileOptions`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a bad URL, before anything is touched; otherwise as [`FileBackend::open`] and [`FileBackend::default_dir`].
    ///
    /// ```
    /// use locks_api::ErrorKind;
    /// use locks_backend_file::FileBackend;
    ///
    /// let error = FileBackend::from_url("file:relative/path").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Config);
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        let url = url::parse(url)?;
        let dir = url.dir.map_or_else(Self::default_dir, Ok)?;
        url.options.open(dir)
    }

    /// The directory for those who name none: `.local/state/locks` in the home of the effective user. It need not be there yet.
    ///
    /// The home comes from the user database and never from the environment, so that a cron job and a terminal of one user
    /// meet. Different users, root among them, have different directories.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the user is not in the database or has no home; [`ErrorKind::PermissionDenied`] if
    /// the directory is not there and this user can't make it.
    pub fn default_dir() -> Result<PathBuf> {
        directory::default_dir()
    }

    /// The directory, as an absolute path.
    pub fn dir(&self) -> &Path {
        self.store.directory.path()
    }

    /// Another descriptor of a lock that is held, for a child process to inherit: the lock is then held until the
    /// child, and whatever it passes the descriptor on to, has ended as well, even if this process is killed.
    ///
    /// The descriptor is *not* close-on-exec: every program that any thread of this process starts inherits it until it is dropped. From now
    /// on this process only closes the lock and never unlocks it. `claim` comes from [`LockGuard::export`](locks_api::LockGuard::export).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] if the claim holds no lock here; [`ErrorKind::StoreFull`] if there is no descriptor left.
    pub fn share_descriptor(&self, claim: ClaimId) -> Result<OwnedFd> {
        self.store.registry().share(claim)
    }
}

/// Shows the directory.
impl fmt::Debug for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBackend").field("dir", &self.dir()).finish_non_exhaustive()
    }
}

/// Gives back what is still held; threads that wait end as soon as the kernel lets them.
impl Drop for FileBackend {
    fn drop(&mut self) {
        self.store.close();
    }
}

/// Data only: nothing here needs the directory.
static GUARANTEES: Guarantees = Guarantees::new("file", Scope::Host);

#[async_trait]
impl Backend for FileBackend {
    fn guarantees(&self) -> &Guarantees {
        &GUARANTEES
    }

    fn subscribe(&self, events: Events) {
        self.store.events.get_or_init(|| events);
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        Ok(claims.iter().map(|claim| Inline::acquire(self, claim)).collect())
    }

    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        Ok(claims.iter().map(|claim| Inline::cancel(self, claim)).collect())
    }

    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        Ok(grants.iter().map(|grant| Inline::release(self, grant)).collect())
    }

    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        let registry = self.store.registry();
        Ok(grants
            .iter()
            .map(|grant| match registry.holds(grant.claim) {
                true => Renewed::Extended(Expiry::Never),
                false => Renewed::Lost(LossReason::Taken),
            })
            .collect())
    }

    async fn close(&self) -> Result<()> {
        self.store.close();
        Ok(())
    }

    /// Not when grants wait for the disk.
    fn inline(&self) -> Option<&dyn Inline> {
        (!self.store.durable).then_some(self)
    }

    /// The kernel forgets nothing while it runs.
    fn recovery(&self) -> Option<&dyn Recovery> {
        None
    }
}

impl Inline for FileBackend {
    fn acquire(&self, claim: &Claim) -> Result<Attempt> {
        self.store.acquire(claim)
    }

    fn cancel(&self, claim: &Claim) -> Result<()> {
        let held = self.store.registry().cancel(claim);
        held.map_or(Ok(()), Locked::release)
    }

    fn release(&self, grant: &Grant) -> Result<Released> {
        let held = self.store.registry().take(grant.claim);
        let Some(locked) = held else { return Ok(Released::NotHeld) };
        locked.release()?;
        Ok(Released::Done)
    }
}

/// What the steps and the waiting threads share.
pub(crate) struct Store {
    directory: Directory,
    durable: bool,
    boot: BootId,
    events: OnceLock<Events>,
    registry: Mutex<Registry>,
}

/// What came of trying to take a lock at once.
enum Try {
    Taken(Grant, Locked),
    /// Somebody holds it, or waits for it and is first. With the open lock file, if there is one.
    Busy(Option<Holder>, Option<LockFile>),
}

impl Store {
    fn acquire(self: &Arc<Self>, claim: &Claim) -> Result<Attempt> {
        if claim.mode != Mode::Exclusive {
            return Err(Error::new(ErrorKind::Unsupported, "the file backend has exclusive locks only"));
        }
        let file_name = FileName::of(&claim.name);
        let standing = self.registry().standing(claim)?;
        let (holder, file) = match standing {
            Standing::Held(grant) => return Ok(Attempt::Granted(grant)),
            Standing::Queued => return Ok(Attempt::queued(None, self.holder(&file_name))),
            Standing::Behind => (self.holder(&file_name), None),
            // The thread that waits for nobody has a better place than a new one would get.
            Standing::Abandoned if claim.may_wait => (self.holder(&file_name), None),
            Standing::Abandoned | Standing::New => match self.try_take(claim, &file_name)? {
                Try::Taken(grant, locked) => {
                    self.registry().hold(grant.clone(), locked);
                    return Ok(Attempt::Granted(grant));
                }
                Try::Busy(holder, file) => (holder, file),
            },
        };
        if !claim.may_wait {
            return Ok(Attempt::held(holder));
        }
        if self.registry().wait_along(claim) {
            return Ok(Attempt::queued(None, holder));
        }
        let files = self.wait_files(&file_name, file)?;
        self.registry().wait(claim, || waiter::start(self, &claim.name, files))?;
        Ok(Attempt::queued(None, holder))
    }

    /// Takes the lock if it is free and nobody waits for it.
    fn try_take(&self, claim: &Claim, file_name: &FileName) -> Result<Try> {
        let mut replaced = self.replacements();
        loop {
            let locked = match self.open_lock(file_name)?.try_lock()? {
                TryLock::Locked(locked) => locked,
                TryLock::Busy(file) => {
                    let holder = file.contents().ok().and_then(|contents| contents.holder(self.boot));
                    return Ok(Try::Busy(holder, Some(file)));
                }
            };
            if !locked.is_in_place()? {
                replaced.once_more(locked.path())?;
                continue;
            }
            let contents = locked.contents()?;
            if !contents.somebody_waits() {
                let grant = self.record_grant(&locked, &contents, claim, file_name, false)?;
                return Ok(Try::Taken(grant, locked));
            }
            let Some(_closed) = Line::open(&self.directory, file_name)?.close_if_empty()? else {
                return Ok(Try::Busy(None, None));
            };
            // Nobody can join meanwhile, so nobody who waits is overlooked.
            let grant = self.record_grant(&locked, &contents, claim, file_name, true)?;
            return Ok(Try::Taken(grant, locked));
        }
    }

    /// Writes the grant of the locked file to `claim` into it, with the tokens that follow.
    pub(crate) fn record_grant(
        &self,
        locked: &Locked,
        contents: &Contents,
        claim: &Claim,
        file_name: &FileName,
        clear_waiting: bool,
    ) -> Result<Grant> {
        if file_name.is_hashed() {
            locked.check_name(&claim.name)?;
        }
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64);
        let tokens = contents.next_tokens(self.boot, now).ok_or_else(|| {
            Error::new(ErrorKind::Backend, format!("the tokens in {} are used up", locked.path().display()))
        })?;
        let granting = Granting {
            counter: tokens.last().get(),
            boot: self.boot,
            since_micros: now,
            holder: &claim.holder,
        };
        let (offset, write) = contents.next_write(&granting, clear_waiting);
        locked.write_record(offset, &write, self.durable)?;
        if self.durable && contents.is_new() {
            self.directory.sync().map_err(|error| {
                classify(error, format_args!("can't sync lock directory {}", self.directory.path().display()))
            })?;
        }
        Ok(Grant::new(claim, tokens, Expiry::Never))
    }

    pub(crate) fn open_lock(&self, file_name: &FileName) -> Result<LockFile> {
        LockFile::open(&self.directory, &file_name.lock())
    }

    /// Joins the line, with the lock file if it is open already.
    pub(crate) fn wait_files(&self, file_name: &FileName, lock: Option<LockFile>) -> Result<WaitFiles> {
        let lock = lock.map_or_else(|| self.open_lock(file_name), Ok)?;
        let spot = Line::open(&self.directory, file_name)?.try_join(&lock)?;
        Ok(WaitFiles { spot, lock })
    }

    /// Who holds a lock that is known to be held.
    fn holder(&self, file_name: &FileName) -> Option<Holder> {
        self.open_lock(file_name).and_then(|file| file.contents()).ok()?.holder(self.boot)
    }

    pub(crate) fn replacements(&self) -> Replacements<'_> {
        Replacements { directory: &self.directory, left: 100 }
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn events(&self) -> Option<&Events> {
        self.events.get()
    }

    fn close(&self) {
        let held = self.registry().close();
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
