//! The conformance kit on real directories.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use locks_api::spi::{Guarantees, Offer, Offers, Scope};
use locks_backend_file::FileBackend;
use locks_conformance::{Fault, Harness, SetupError};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;

locks_conformance::main!(Files);

struct Files {
    directory: PathBuf,
    /// Removes the directory, in the process that made it.
    _owner: Option<TempDir>,
    injected: Mutex<Option<Means>>,
}

/// How a fault was brought about.
enum Means {
    /// In a mount namespace of this process's own: a small file system, filled up.
    Ballast(PathBuf),
    /// In a mount namespace of this process's own: the directory again, read-only.
    ReadOnlyMount,
    /// Without the right to mount: this process may not write to files.
    FileSizeLimit(Rlimit),
    /// Without the right to mount: the directory's mode.
    Mode,
}

impl Files {
    fn at(directory: PathBuf, owner: Option<TempDir>) -> Self {
        Self { directory, _owner: owner, injected: Mutex::default() }
    }
}

impl Harness for Files {
    const NAME: &'static str = "file";
    type Backend = FileBackend;

    fn guarantees() -> Guarantees {
        let offers = [
            Offer::Shared,
            Offer::Permits,
            Offer::Downgrade,
            Offer::Schedule,
            Offer::Values,
            Offer::Inspection,
            Offer::Waiters,
        ];
        Guarantees::new("file", Scope::Host).with_offers(offers.into_iter().fold(Offers::NONE, Offers::with))
    }

    async fn start() -> Result<Self, SetupError> {
        let owner = TempDir::new()?;
        Ok(Self::at(owner.path().join("locks"), Some(owner)))
    }

    async fn connect(&self) -> locks_api::Result<FileBackend> {
        FileBackend::open(&self.directory)
    }

    fn worker_url(&self) -> Option<String> {
        self.directory.to_str().map(str::to_owned)
    }

    async fn attach(url: &str) -> Result<Self, SetupError> {
        Ok(Self::at(url.into(), None))
    }

    fn faults() -> &'static [Fault] {
        &[Fault::StoreFull, Fault::ReadOnly]
    }

    async fn inject(&self, fault: Fault) -> Result<(), SetupError> {
        let means = match (fault, own_mounts()?) {
            (Fault::StoreFull, true) => fill(&self.directory)?,
            (Fault::StoreFull, false) => limit_file_size()?,
            (Fault::ReadOnly, true) => mount_read_only(&self.directory)?,
            (Fault::ReadOnly, false) => set_mode(&self.directory, 0o500).map(|()| Means::Mode)?,
            (other, _) => return Err(SetupError::new(format!("no way to inject {other}"))),
        };
        *self.injected.lock().unwrap_or_else(PoisonError::into_inner) = Some(means);
        Ok(())
    }

    async fn heal(&self, _fault: Fault) -> Result<(), SetupError> {
        match self.injected.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(Means::Ballast(ballast)) => fs::remove_file(ballast)?,
            Some(Means::ReadOnlyMount) => umount(&self.directory).map_err(io::Error::from)?,
            Some(Means::FileSizeLimit(limit)) => {
                setrlimit(Resource::Fsize, limit).map_err(io::Error::from)?
            }
            Some(Means::Mode) => set_mode(&self.directory, 0o700)?,
            None => return Err(SetupError::new("nothing was injected")),
        }
        Ok(())
    }
}

/// Gives this process mounts of its own, which end with it. False without the right to.
fn own_mounts() -> io::Result<bool> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => {}
        Err(nix::Error::EPERM) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    Ok(true)
}

/// Puts a small file system in the directory's place and fills it up.
fn fill(directory: &Path) -> io::Result<Means> {
    fs::create_dir_all(directory)?;
    mount(Some("kit"), directory, Some("tmpfs"), MsFlags::empty(), Some("size=64k,mode=0700"))?;
    let path = directory.join(".ballast");
    let mut ballast = File::create(&path)?;
    loop {
        match ballast.write_all(&[0; 4096]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(Means::Ballast(path)),
            Err(error) => return Err(error),
        }
    }
}

fn mount_read_only(directory: &Path) -> io::Result<Means> {
    fs::create_dir_all(directory)?;
    set_mode(directory, 0o700)?;
    mount(Some(directory), directory, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, directory, None::<&str>, read_only, None::<&str>)?;
    Ok(Means::ReadOnlyMount)
}

/// Lets this process make files and write nothing to them.
fn limit_file_size() -> io::Result<Means> {
    // The signal that comes with the error would end the process. Threads that this one starts inherit the mask.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    signals.thread_block()?;
    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(0), maximum: before.maximum })?;
    Ok(Means::FileSizeLimit(before))
}

fn set_mode(directory: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(mode))
}
