//! From the lock to the command's exit code.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use locks::{ErrorKind, Lock, LockGuard, Locks};

use crate::child::{self, Running};
use crate::command_name;
use crate::options::{Options, Patience};
use crate::reactor::Reactor;
use crate::trouble::{self, Trouble};
use crate::words::Words;

/// Takes the lock, runs the command, gives the lock back and returns the command's exit code.
///
/// # Errors
///
/// Whatever kept the command from running under the lock to its end.
pub(crate) fn run(options: &Options, words: &Words) -> Result<u8, Trouble> {
    let reactor = Reactor::new().map_err(|error| Trouble::no_reactor(&error))?;
    let locks = reactor
        .run_unless_signalled(locks::connect(&options.store.url))
        .map_err(Trouble::signal)?
        .map_err(|error| Trouble::connect(options.store.source, &error))?;
    let guard = acquire(&lock(&locks, options), options, &reactor, words)?;
    words.step(|| format!("acquired {:?}, fencing token {}", guard.name(), guard.fencing_token()));
    let outcome = run_command(&locks, &guard, options, &reactor);
    // Only now: the command is gone, or was never started.
    release(guard, outcome, &reactor, words)
}

fn lock(locks: &Locks, options: &Options) -> Lock {
    let lock = locks.lock(&options.name).label(command_name::readable(&options.program));
    match options.ttl {
        Some(ttl) => lock.ttl(ttl),
        None => lock,
    }
}

/// Waits as long as the options allow, or until a signal comes. Says who is in the way if somebody wants to hear it.
fn acquire(lock: &Lock, options: &Options, reactor: &Reactor, words: &Words) -> Result<LockGuard, Trouble> {
    let begun = Instant::now();
    let attempt = |patience| reactor.run_unless_signalled(attempt(lock, patience)).map_err(Trouble::signal);
    let limit = match options.patience {
        Patience::AtMost(limit) => Some(limit),
        Patience::TryOnce | Patience::Forever => None,
    };
    let mut outcome = None;
    if options.patience != Patience::TryOnce && words.narrates_waiting() {
        match attempt(Patience::TryOnce)? {
            Err(error) if error.kind() == ErrorKind::Timeout => {
                words.remark(&format!("waiting: {}", trouble::obstacle(&options.name, error.busy())));
            }
            decided => outcome = Some(decided),
        }
    }
    let outcome = match outcome {
        Some(decided) => decided,
        None => attempt(options.patience.less(begun.elapsed()))?,
    };
    outcome.map_err(|error| Trouble::acquire(&options.name, limit, &error))
}

async fn attempt(lock: &Lock, patience: Patience) -> locks::Result<LockGuard> {
    match patience {
        Patience::TryOnce => lock.acquire_timeout(Duration::ZERO).await,
        Patience::AtMost(limit) => lock.acquire_timeout(limit).await,
        Patience::Forever => lock.acquire().await,
    }
}

fn run_command(
    locks: &Locks,
    guard: &LockGuard,
    options: &Options,
    reactor: &Reactor,
) -> Result<u8, Trouble> {
    let descriptor = descriptor_to_inherit(locks, guard).map_err(|error| Trouble::store(&error))?;
    let environment = [
        ("LOCK_NAME", guard.name().to_owned()),
        ("LOCK_FENCING_TOKEN", guard.fencing_token().to_string()),
        ("LOCK_BACKEND", locks.guarantees().backend.to_owned()),
    ];
    if let Some(arrival) = reactor.signals().arrivals().next() {
        return Err(Trouble::signal(arrival.signal));
    }
    let running = Running::start(&options.program, &options.arguments, environment, descriptor, reactor)
        .map_err(|error| Trouble::start(&options.program, &error))?;
    let ended = running.wait(guard).map_err(|error| Trouble::wait(&error))?;
    match ended.loss {
        Some(reason) => Err(Trouble::lost(guard.name(), reason)),
        None => Ok(child::exit_code(ended.status)),
    }
}

/// The open file that carries the lock, so that it stays locked while the command lives, even if we are killed.
#[cfg(feature = "file")]
fn descriptor_to_inherit(locks: &Locks, guard: &LockGuard) -> locks::Result<Option<OwnedFd>> {
    let claim = guard.export();
    let backend: &dyn std::any::Any = locks.backend();
    backend.downcast_ref::<locks::file::FileBackend>().map(|file| file.share_descriptor(claim)).transpose()
}

/// No store of this build carries its locks in a file.
#[cfg(not(feature = "file"))]
fn descriptor_to_inherit(_: &Locks, guard: &LockGuard) -> locks::Result<Option<OwnedFd>> {
    guard.export();
    Ok(None)
}

/// The command's outcome stands whatever comes of this, unless the lock turns out to be lost.
fn release(
    guard: LockGuard,
    outcome: Result<u8, Trouble>,
    reactor: &Reactor,
    words: &Words,
) -> Result<u8, Trouble> {
    let name = guard.name().to_owned();
    match reactor.run(guard.release()) {
        Ok(()) => words.step(|| format!("released {name:?}")),
        Err(error) => match error.loss() {
            Some(reason) => return outcome.and(Err(Trouble::lost(&name, reason))),
            None => words.error(&trouble::chain(&error)),
        },
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use locks_backend_memory::emulated::{EmulatedStore, Emulation};

    use super::*;
    use crate::options::{Request, parse};
    use crate::trouble::Cause;
    use crate::{Tool, exit};

    /// No store of the command line can lose a lock yet, so this one is emulated.
    #[test]
    fn a_lost_lock_ends_the_command() {
        let arguments = ["lock-block", "--name", "n", "sleep", "600"].map(OsString::from);
        let Ok(Request::Run(options)) = parse(Tool::Block, arguments) else { panic!("a good command line") };
        let store = EmulatedStore::new(Emulation::default());
        let locks = Locks::new(store.connect().0);
        let reactor = Reactor::new().unwrap();
        let words = Words::new(Tool::Block);
        let guard = acquire(&lock(&locks, &options), &options, &reactor, &words).unwrap();
        store.revoke("n");
        let outcome = run_command(&locks, &guard, &options, &reactor);
        let trouble = release(guard, outcome, &reactor, &words).unwrap_err();
        assert_eq!(trouble.cause, Cause::Failure(exit::LOST));
        assert!(trouble.message.contains("somebody broke it"), "{}", trouble.message);
    }
}
