//! Why the command did not run, or not under the lock to its end: one line and an exit code.

use std::error::Error as _;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use locks::{Busy, Error, ErrorKind, LockName, LossReason};
use nix::libc;
use nix::sys::signal::Signal;

use crate::exit;

#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) cause: Cause,
    /// One line.
    pub(crate) message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The lock is taken, not due yet, or was not had in time; why, if that is known.
    Busy(Option<Busy>),
    /// A signal came first.
    Signal(Signal),
    /// All the rest, with its exit code.
    Failure(u8),
}

impl Trouble {
    /// The exit code that tells of it, with the one for a lock that is not had.
    pub(crate) fn code(&self, conflict_exit_code: u8) -> u8 {
        match self.cause {
            Cause::Busy(_) => conflict_exit_code,
            Cause::Signal(signal) => exit::signal(signal as i32),
            Cause::Failure(code) => code,
        }
    }

    pub(crate) fn signal(signal: Signal) -> Self {
        let message = format!("{signal} came before the command was started");
        Self { cause: Cause::Signal(signal), message }
    }

    pub(crate) fn no_reactor(error: &io::Error) -> Self {
        let message = format!("can't watch signals: {error}");
        Self { cause: Cause::Failure(exit::UNAVAILABLE), message }
    }

    pub(crate) fn wait(error: &io::Error) -> Self {
        let message = format!("can't wait for the command, which may still run: {error}");
        Self { cause: Cause::Failure(exit::BUG), message }
    }

    /// The store that `source` names can't be opened.
    pub(crate) fn connect(source: &str, error: &Error) -> Self {
        let trouble = Self::store(error);
        Self { message: format!("{source}: {}", trouble.message), ..trouble }
    }

    pub(crate) fn store(error: &Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Config | ErrorKind::InvalidName => exit::USAGE,
            ErrorKind::Closed | ErrorKind::Forked | ErrorKind::WouldDeadlock => exit::BUG,
            ErrorKind::Lost => exit::LOST,
            _ => exit::UNAVAILABLE,
        };
        Self { cause: Cause::Failure(code), message: chain(error) }
    }

    /// The lock was not had.
    pub(crate) fn acquire(name: &LockName, error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Timeout => Self::busy(obstacle(name, error.busy()), error.busy()),
            _ => Self::store(error),
        }
    }

    /// The lock was not had within `limit`, because of this.
    pub(crate) fn gave_up(name: &LockName, limit: Duration, busy: Option<&Busy>) -> Self {
        let time = humantime::format_duration(limit);
        match busy {
            Some(_) => Self::busy(format!("gave up after {time}: {}", obstacle(name, busy)), busy),
            None => Self::unavailable(format!("gave up after {time}: the store did not answer")),
        }
    }

    /// Somebody else of this host runs under the lock, or waits for it.
    pub(crate) fn not_alone(name: &LockName, error: &Error) -> Self {
        match (error.kind(), error.busy().and_then(Busy::holder)) {
            (ErrorKind::Timeout, Some(holder)) => {
                Self::busy(format!("{name:?} is wanted on this host already, by {holder}"), error.busy())
            }
            (ErrorKind::Timeout, None) => {
                Self::busy(format!("{name:?} is wanted on this host already"), error.busy())
            }
            _ => Self::store(error),
        }
    }

    fn busy(message: String, busy: Option<&Busy>) -> Self {
        Self { cause: Cause::Busy(busy.cloned()), message }
    }

    pub(crate) fn usage(message: String) -> Self {
        Self { cause: Cause::Failure(exit::USAGE), message }
    }

    fn unavailable(message: String) -> Self {
        Self { cause: Cause::Failure(exit::UNAVAILABLE), message }
    }

    /// The lock could not be kept until the command was to start.
    pub(crate) fn too_early(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Lost => Self::unavailable(chain(error)),
            _ => Self::store(error),
        }
    }

    pub(crate) fn no_password(complaint: &str) -> Self {
        Self::unavailable(format!("can't get the password of the store: {complaint}"))
    }

    pub(crate) fn no_guardian(error: &io::Error) -> Self {
        Self::unavailable(format!("can't start the guardian of the command: {error}"))
    }

    pub(crate) fn start(program: &OsStr, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => exit::NOT_FOUND,
            _ => exit::NOT_EXECUTABLE,
        };
        let hint = match error.raw_os_error() {
            Some(libc::ENOEXEC) => "; a script begins with a line such as #!/bin/sh",
            _ => "",
        };
        Self { cause: Cause::Failure(code), message: format!("can't run {program:?}: {error}{hint}") }
    }

    pub(crate) fn ran_too_long(limit: Duration) -> Self {
        let message = format!("the command ran for more than {}", humantime::format_duration(limit));
        Self { cause: Cause::Failure(exit::RAN_TOO_LONG), message }
    }

    pub(crate) fn lost(name: &str, reason: LossReason) -> Self {
        let message = format!("the lock {name:?} was lost while the command ran: {reason}");
        Self { cause: Cause::Failure(exit::LOST), message }
    }
}

/// Reads as `"nightly" is held by pid 4711 on db1 (backup.sh), for 3m 2s (since 2026-01-31T03:00:00Z)`.
pub(crate) fn obstacle(name: &LockName, busy: Option<&Busy>) -> String {
    let mut text = match busy {
        Some(busy) => format!("{name:?} is {busy}"),
        None => format!("{name:?} is taken"),
    };
    if let Some(since) = plausible(busy.and_then(Busy::holder).and_then(|holder| holder.since)) {
        write!(text, " (since {})", humantime::format_rfc3339_seconds(since)).ok();
    }
    text
}

/// The time, if it can be one: what the store remembers may be garbage.
pub(crate) fn plausible(time: Option<SystemTime>) -> Option<SystemTime> {
    time.filter(|time| *time >= UNIX_EPOCH && time.elapsed().is_ok())
}

/// The error and what caused it, in one line.
pub(crate) fn chain(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some repeat what caused them.
        if !line.contains(&text) {
            write!(line, ": {text}").ok();
        }
        cause = error.source();
    }
    line
}
