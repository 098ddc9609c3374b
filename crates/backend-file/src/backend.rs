//! The backend itself, and its steps.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, ClaimId, Events, Expiry, Grant, Guarantees, Inline, Offer, Offers,
    Released, Renewed, Scope,
};
use locks_api::{LossReason, Result};

use crate::garbage::Collected;
use crate::options::FileOptions;
use crate::store::Store;
use crate::{directory, ofd, url};

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
    pub(crate) store: Arc<Store>,
    guarantees: Guarantees,
}

impl FileBackend {
    pub(crate) fn with_options(dir: &Path, options: &FileOptions) -> Result<Self> {
        let guarantees = Guarantees::new("file", Scope::Host).with_offers(offers(options.paths));
        Ok(Self { store: Store::open(dir, options)?, guarantees })
    }

    /// Opens a directory for locks. It is made, for this user alone, if it is not there; a relative path counts from the
    /// present working directory.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Config`](locks_api::ErrorKind::Config) if the path leads to something that is not a directory.
    /// - [`ErrorKind::PermissionDenied`](locks_api::ErrorKind::PermissionDenied) if it can't be made or opened.
    /// - [`ErrorKind::StoreFull`](locks_api::ErrorKind::StoreFull) if there is no room for it, or no descriptor left.
    /// - [`ErrorKind::Unsupported`](locks_api::ErrorKind::Unsupported) if others could replace its files (it belongs to another user, or others may write to it and it is not
    ///   sticky), or if it lies on a network file system.
    /// - [`ErrorKind::Backend`](locks_api::ErrorKind::Backend) if the disk reports an error.
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
    /// `durable=on`, `allow_network_fs=on`, `names=paths`, `share=group` and `share=all`, as in [`FileOptions`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](locks_api::ErrorKind::Config) for a bad URL, before anything is touched; otherwise as [`FileBackend::open`] and [`FileBackend::default_dir`].
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
    /// [`ErrorKind::Config`](locks_api::ErrorKind::Config) if the user is not in the database or has no home; [`ErrorKind::PermissionDenied`](locks_api::ErrorKind::PermissionDenied) if
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
    /// [`ErrorKind::Lost`](locks_api::ErrorKind::Lost) if the claim holds no lock here; [`ErrorKind::StoreFull`](locks_api::ErrorKind::StoreFull) if there is no descriptor left.
    pub fn share_descriptor(&self, claim: ClaimId) -> Result<OwnedFd> {
        self.store.registry().share(claim)
    }

    /// Removes the files of locks that nobody holds or waits for and that were granted last at least `older_than` ago.
    ///
    /// Any number of programs may take any of the locks meanwhile: exclusion holds, tokens go on rising, and schedules that are in force stay. For
    /// a moment each lock that is looked at is busy. Files of locks whose counter is not behind the clock are kept, as are those that this user may
    /// not remove. Takes some microseconds for each file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Backend`](locks_api::ErrorKind::Backend) and others if the directory can't be read or a file can't be removed; what was removed by then stays
    /// removed.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use locks_backend_file::FileBackend;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let backend = FileBackend::open(dir.path())?;
    /// let collected = backend.collect_garbage(Duration::from_secs(30 * 24 * 3600))?;
    /// println!("{} removed, {} kept", collected.removed, collected.kept);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn collect_garbage(&self, older_than: Duration) -> Result<Collected> {
        self.store.collect_garbage(older_than)
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

/// What there is beyond the exclusive lock. Without locks of the open file, there is nothing.
const fn offers(paths: bool) -> Offers {
    if !ofd::SUPPORTED {
        return Offers::NONE;
    }
    let offers = Offers::NONE
        .with(Offer::Shared)
        .with(Offer::Downgrade)
        .with(Offer::Schedule)
        .with(Offer::Values)
        .with(Offer::Inspection)
        .with(Offer::Waiters);
    if paths { offers } else { offers.with(Offer::Permits) }
}

#[async_trait]
impl Backend for FileBackend {
    fn guarantees(&self) -> &Guarantees {
        &self.guarantees
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
            .map(|grant| match registry.holds(grant) {
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
        (!self.store.options.durable).then_some(self)
    }

    /// No recovery: the kernel forgets nothing while it runs. Not several locks in one step either: each is a file of its own.
    fn abilities(&self) -> Abilities<'_> {
        if !ofd::SUPPORTED {
            return Abilities::none();
        }
        Abilities::none().with_downgrade(self).with_schedule(self).with_values(self).with_inspect(self)
    }
}

impl Inline for FileBackend {
    fn acquire(&self, claim: &Claim) -> Result<Attempt> {
        self.store.acquire(claim)
    }

    fn cancel(&self, claim: &Claim) -> Result<()> {
        self.store.cancel(claim)
    }

    fn release(&self, grant: &Grant) -> Result<Released> {
        self.store.release(grant)
    }
}
