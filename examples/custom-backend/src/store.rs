//! Compare-and-swap with rename(2).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use locks_api::spi::{Boottime, Result};
use locks_api::{Error, ErrorKind, LockName};

use crate::state::State;

/// How often a step may find that another was faster before the store counts as out of reach. Every time somebody has got
/// ahead, so this is far more than happens.
const PATIENCE: u32 = 100_000;

/// A directory with a directory for each lock.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    boot: String,
    /// Numbers the directories that this process prepares.
    prepared: AtomicU64,
}

impl Store {
    pub(crate) fn open(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).map_err(trouble)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(trouble)?;
        Ok(Self { directory, boot: boot.trim().to_owned(), prepared: AtomicU64::new(0) })
    }

    /// Names the time since the machine was booted.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// One atomic step: shows the state and the present instant to `decide`, which says what the state shall be, or `None`
    /// if it is to stay, and what to answer. It is asked again if another step came between.
    pub(crate) fn update<T>(
        &self,
        name: &LockName,
        decide: impl Fn(&State, Boottime) -> (Option<State>, T),
    ) -> Result<T> {
        let lock = self.path(name);
        for _ in 0..PATIENCE {
            let Some((version, state)) = self.read(&lock)? else { continue };
            let (next, answer) = decide(&state, Boottime::now());
            let Some(next) = next else { return Ok(answer) };
            let from = lock.join(state.to_file_name(version));
            match fs::rename(from, lock.join(next.to_file_name(version + 1))) {
                Ok(()) => return Ok(answer),
                // Another step has changed it. No version comes twice, so this one can't have come back.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(trouble(error)),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "others were faster every time"))
    }

    /// The version and the state; `None` if they were just being changed.
    fn read(&self, lock: &Path) -> Result<Option<(u64, State)>> {
        let entries = match fs::read_dir(lock) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create(lock).map_err(trouble)?;
                return Ok(None);
            }
            Err(error) => return Err(trouble(error)),
        };
        let mut found = None;
        for entry in entries {
            let name = entry.map_err(trouble)?.file_name();
            let Some(state) = name.to_str().and_then(State::from_file_name) else {
                let message = format!("{} has no business in {}", name.display(), lock.display());
                return Err(Error::new(ErrorKind::Backend, message));
            };
            // While it is renamed, a file may be listed under both names, or under none.
            if found.replace(state).is_some() {
                return Ok(None);
            }
        }
        Ok(found)
    }

    /// Puts a finished directory in its place. A directory that is not empty can't be replaced, so the first to come wins.
    fn create(&self, lock: &Path) -> io::Result<()> {
        let number = self.prepared.fetch_add(1, Ordering::Relaxed);
        // No other connection uses this address while this one is there.
        let draft = format!("draft_{}_{:p}_{number}", std::process::id(), &raw const self.prepared);
        let draft = self.directory.join(draft);
        fs::create_dir(&draft)?;
        File::create(draft.join(State::new().to_file_name(1)))?;
        if let Some(parent) = lock.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::rename(&draft, lock) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&draft),
            Err(error) => Err(error),
        }
    }

    /// Injective, whatever the name: its bytes in hexadecimal, in pieces that are no longer than a file name may be.
    fn path(&self, name: &LockName) -> PathBuf {
        let mut hex = String::new();
        for byte in name.as_str().bytes() {
            write!(hex, "{byte:02x}").expect("writing to a string can't fail");
        }
        let mut path = self.directory.clone();
        let mut rest = hex.as_str();
        while let Some((piece, more)) = rest.split_at_checked(200).filter(|(_, more)| !more.is_empty()) {
            path.push(format!("part_{piece}"));
            rest = more;
        }
        path.join(format!("lock_{rest}"))
    }
}

fn trouble(error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StoreFull,
        // Out of descriptors: on no platform has it a kind of its own.
        _ if matches!(error.raw_os_error(), Some(23 | 24)) => ErrorKind::StoreFull,
        _ => ErrorKind::Backend,
    };
    let message = error.to_string();
    Error::new(kind, message).with_source(error)
}
