//! Locked files in a directory, without a queue, and, if wanted, with a defect.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, Events, Expiry, Fairness, Grant, Guarantees, Inline, Released,
    Renewed, Result, Scope, TokenBlock,
};
use locks_api::{Error, ErrorKind, LockName};

use super::Defect;

/// A directory of lock files. The one that made it removes it.
#[derive(Debug)]
pub struct FlockSpace {
    directory: PathBuf,
    defect: Option<Defect>,
    is_owner: bool,
}

impl FlockSpace {
    /// A new directory.
    ///
    /// # Errors
    ///
    /// If it can't be made.
    pub fn new(defect: Option<Defect>) -> io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("locks-kit-{:032x}", fastrand::u128(..)));
        fs::create_dir(&directory)?;
        Ok(Self { directory, defect, is_owner: true })
    }

    /// The directory of another process.
    pub fn attach(url: &str, defect: Option<Defect>) -> Self {
        Self { directory: url.into(), defect, is_owner: false }
    }

    /// What [`FlockSpace::attach`] takes.
    pub fn url(&self) -> String {
        self.directory.display().to_string()
    }

    /// What such locks promise.
    pub fn guarantees() -> Guarantees {
        Guarantees::new("flock", Scope::Host).with_fairness(Fairness::None)
    }

    /// A new connection.
    pub fn connect(&self) -> FlockBackend {
        FlockBackend {
            directory: self.directory.clone(),
            defect: self.defect,
            guarantees: Self::guarantees(),
            files: Mutex::default(),
        }
    }
}

impl Drop for FlockSpace {
    fn drop(&mut self) {
        if self.is_owner {
            // What can't be removed is left to the cleaner of the temporary directory.
            fs::remove_dir_all(&self.directory).unwrap_or_default();
        }
    }
}

/// A connection to a [`FlockSpace`].
#[derive(Debug)]
pub struct FlockBackend {
    directory: PathBuf,
    defect: Option<Defect>,
    guarantees: Guarantees,
    files: Mutex<HashMap<LockName, Open>>,
}

/// A lock file, kept open from the first try on.
#[derive(Debug)]
struct Open {
    file: File,
    held: Option<Grant>,
}

impl FlockBackend {
    fn files(&self) -> MutexGuard<'_, HashMap<LockName, Open>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Directories and a file named after the name's bytes, in pieces as long as a file name may be.
    fn path(&self, name: &LockName) -> PathBuf {
        let hex = name.as_str().bytes().fold(String::new(), |mut hex, byte| {
            // Writing to a string can't fail.
            write!(hex, "{byte:02x}").expect("room in a string");
            hex
        });
        let mut path = self.directory.clone();
        let mut rest = hex.as_str();
        while rest.len() > 200 {
            let (piece, more) = rest.split_at(200);
            path.push(format!("d{piece}"));
            rest = more;
        }
        path.join(format!("f{rest}"))
    }

    fn open(&self, name: &LockName) -> io::Result<Open> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Open { file, held: None })
    }

    fn give_up(&self, name: &LockName, open: &mut Open) -> Result<()> {
        open.held = None;
        if self.defect == Some(Defect::UnlinkOnRelease) {
            fs::remove_file(self.path(name)).map_err(|error| trouble(&error))?;
        }
        open.file.unlock().map_err(|error| trouble(&error))
    }
}

/// The counter at the beginning of the file; zero if there is none yet.
fn next_tokens(file: &File) -> io::Result<Option<TokenBlock>> {
    let mut record = [0; 8];
    let counter = match file.read_exact_at(&mut record, 0) {
        Ok(()) => Some(u64::from_le_bytes(record)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        Err(error) => return Err(error),
    };
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let clock = u64::try_from(clock.as_micros()).unwrap_or(u64::MAX);
    let tokens = match counter {
        Some(counter) => TokenBlock::after(counter, clock),
        None => TokenBlock::without_counter(None, clock),
    };
    if let Some(tokens) = &tokens {
        file.write_all_at(&tokens.last().get().to_le_bytes(), 0)?;
    }
    Ok(tokens)
}

fn trouble(error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull => ErrorKind::StoreFull,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => ErrorKind::StoreFull,
        _ => ErrorKind::Backend,
    };
    Error::new(kind, error.to_string())
}

impl Inline for FlockBackend {
    fn acquire(&self, claim: &Claim) -> Result<Attempt> {
        let mut files = self.files();
        if !files.contains_key(&claim.name) {
            let open = self.open(&claim.name).map_err(|error| trouble(&error))?;
            files.insert(claim.name.clone(), open);
        }
        let Some(open) = files.get_mut(&claim.name) else { return Ok(Attempt::held(None)) };
        match &open.held {
            Some(grant) if grant.claim == claim.id => return Ok(Attempt::Granted(grant.clone())),
            Some(_) => return Ok(Attempt::held(None)),
            None => {}
        }
        match open.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Attempt::held(None)),
            Err(TryLockError::Error(error)) => return Err(trouble(&error)),
        }
        let tokens =
            next_tokens(&open.file).and_then(|tokens| tokens.ok_or(io::ErrorKind::StorageFull.into()));
        match tokens {
            Ok(tokens) => {
                let grant = Grant::new(claim, tokens, Expiry::Never);
                open.held = Some(grant.clone());
                Ok(Attempt::Granted(grant))
            }
            Err(error) => {
                open.file.unlock().map_err(|error| trouble(&error))?;
                Err(trouble(&error))
            }
        }
    }

    fn cancel(&self, claim: &Claim) -> Result<()> {
        let mut files = self.files();
        match files.get_mut(&claim.name) {
            Some(open) if open.held.as_ref().is_some_and(|grant| grant.claim == claim.id) => {
                self.give_up(&claim.name, open)
            }
            _ => Ok(()),
        }
    }

    fn release(&self, grant: &Grant) -> Result<Released> {
        let mut files = self.files();
        match files.get_mut(&grant.name) {
            Some(open) if open.held.as_ref().is_some_and(|held| held.claim == grant.claim) => {
                self.give_up(&grant.name, open)?;
                Ok(Released::Done)
            }
            _ => Ok(Released::NotHeld),
        }
    }
}

#[async_trait]
impl Backend for FlockBackend {
    fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    fn subscribe(&self, _events: Events) {}

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
        Ok(grants.iter().map(|grant| Renewed::Extended(grant.expiry)).collect())
    }

    async fn close(&self) -> Result<()> {
        self.files().clear();
        Ok(())
    }

    fn inline(&self) -> Option<&dyn Inline> {
        Some(self)
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
    }
}
