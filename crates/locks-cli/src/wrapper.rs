//! From the lock to the command's exit code.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use locks::{Error, ErrorKind, Lock, LockGuard, Locks};

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
    let (locks, guard) = acquire(options, &reactor, words)?;
    words.step(|| format!("acquired {:?}, fencing token {}", guard.name(), guard.fencing_token()));
    let outcome = run_command(&locks, &guard, options, &reactor);
    // Only now: the command is gone, or was never started.
    release(guard, outcome, &reactor, words)
}

/// How long a store may be out of reach for somebody who wants to hear at once.
const IMPATIENT: Duration = Duration::from_secs(5);

/// And for somebody who waits anyway.
const PATIENT: Duration = Duration::from_secs(30);

/// Waits as long as the options allow, or until a signal comes. Says what is in the way if somebody wants to hear it.
fn acquire(options: &Options, reactor: &Reactor, words: &Words) -> Result<(Locks, LockGuard), Trouble> {
    let begun = Instant::now();
    let mut patience = options.patience;
    if patience != Patience::TryOnce && words.narrates_waiting() {
        let locks = open(options, patience.at_most(IMPATIENT), reactor)?;
        let obstacle = match attempt(&locks, Patience::TryOnce, options, reactor)? {
            Ok(guard) => return Ok((locks, guard)),
            Err(error) => error,
        };
        patience = patience.less(begun.elapsed());
        let line = match obstacle.kind() {
            ErrorKind::Timeout => format!("waiting: {}", trouble::obstacle(&options.name, obstacle.busy())),
            ErrorKind::Unavailable if patience != Patience::TryOnce => {
                format!("still trying: {}", trouble::chain(&obstacle))
            }
            _ => return Err(given_up(options, &obstacle)),
        };
        words.remark(&line);
    }
    let limit = if patience == Patience::TryOnce { IMPATIENT } else { PATIENT };
    let locks = open(options, limit, reactor)?;
    match attempt(&locks, patience, options, reactor)? {
        Ok(guard) => Ok((locks, guard)),
        Err(error) => Err(given_up(options, &error)),
    }
}

/// The store, which may be out of reach for so long before that is an error.
fn open(options: &Options, store_timeout: Duration, reactor: &Reactor) -> Result<Locks, Trouble> {
    let builder = reactor
        .run_unless_signalled(locks::builder(&options.store.url))
        .map_err(Trouble::signal)?
        .map_err(|error| Trouble::connect(options.store.source, &error))?;
    Ok(builder.store_timeout(store_timeout).build())
}

/// Asks for the lock once, however long that takes. A signal ends it.
fn attempt(
    locks: &Locks,
    patience: Patience,
    options: &Options,
    reactor: &Reactor,
) -> Result<locks::Result<LockGuard>, Trouble> {
    let lock = lock(locks, options);
    let asking = async {
        match patience {
            Patience::TryOnce => lock.acquire_timeout(Duration::ZERO).await,
            Patience::AtMost(limit) => lock.acquire_timeout(limit).await,
            Patience::Forever => lock.acquire().await,
        }
    };
    reactor.run_unless_signalled(asking).map_err(Trouble::signal)
}

fn lock(locks: &Locks, options: &Options) -> Lock {
    let lock = locks.lock(&options.name).label(command_name::readable(&options.program));
    match options.ttl {
        Some(ttl) => lock.ttl(ttl),
        None => lock,
    }
}

fn given_up(options: &Options, error: &Error) -> Trouble {
    let limit = match options.patience {
        Patience::AtMost(limit) => Some(limit),
        Patience::TryOnce | Patience::Forever => None,
    };
    Trouble::acquire(&options.name, limit, error)
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
        let words = Words::new(Tool::Block.name());
        let guard = attempt(&locks, options.patience, &options, &reactor).unwrap().unwrap();
        store.revoke("n");
        let outcome = run_command(&locks, &guard, &options, &reactor);
        let trouble = release(guard, outcome, &reactor, &words).unwrap_err();
        assert_eq!(trouble.cause, Cause::Failure(exit::LOST));
        assert!(trouble.message.contains("somebody broke it"), "{}", trouble.message);
    }
}
