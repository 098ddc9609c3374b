//! Why the command did not run, or not under the lock to its end: one line and an exit code.

use std::error::Error as _;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The lock is taken, or was not had in time.
    Busy,
    /// A signal came first.
    Signal(Signal),
    /// All the rest, with its exit code.
    Failure(u8),
}

impl Trouble {
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

    /// The lock was not had, after a wait of `limit` if there was one.
    pub(crate) fn acquire(name: &LockName, limit: Option<Duration>, error: &Error) -> Self {
        if error.kind() != ErrorKind::Timeout {
            return Self::store(error);
        }
        let obstacle = obstacle(name, error.busy());
        let message = match limit {
            Some(limit) => format!("gave up after {}: {obstacle}", humantime::format_duration(limit)),
            None => obstacle,
        };
        Self { cause: Cause::Busy, message }
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
    let since = busy.and_then(Busy::holder).and_then(|holder| holder.since);
    // What the store remembers may be garbage: only a time that can be one is written out.
    if let Some(since) = since.filter(|since| *since >= UNIX_EPOCH && since.elapsed().is_ok()) {
        write!(text, " (since {})", humantime::format_rfc3339_seconds(since)).ok();
    }
    text
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
