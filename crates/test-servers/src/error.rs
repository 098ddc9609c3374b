//! Why there is no server, or why it can't be treated so.

use std::fmt;
use std::io;

/// Why there is no server, or why it can't be treated so, in words that say what to do.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// What to make of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such server here. The message says how to get one.
    Missing,
    /// The server is somebody else's: it was named by a URL and can't be stopped, killed or looked into.
    NotOurs,
    /// This way of running servers can't do it. The message says which can.
    Unsupported,
    /// The server was started and did not come up, or did not do as it was told. The message quotes its log.
    Failed,
}

impl Error {
    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Missing, message: message.into() }
    }

    pub(crate) fn not_ours(url: &str) -> Self {
        let message = format!("{url} is not a server of this process: it can be used, and nothing else");
        Self { kind: ErrorKind::NotOurs, message }
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unsupported, message: message.into() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Failed, message: message.into() }
    }

    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What was being done, put before what went wrong.
    pub(crate) fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::failed(error.to_string())
    }
}
