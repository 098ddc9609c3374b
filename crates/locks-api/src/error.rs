//! The one error type.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::busy::Busy;
use crate::loss::LossReason;
use crate::name::LockName;

/// What kind of trouble an [`Error`] is. Act on this, not on the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store answered something that its backend could not make sense of.
    Backend,
    /// This `Locks` was closed.
    Closed,
    /// A bad URL, option or duration, or a backend whose Cargo feature is off.
    Config,
    /// The process was forked after its `Locks` was made; make a new one in the child.
    Forked,
    /// The name of the lock is empty, too long or holds a NUL.
    InvalidName,
    /// The semaphore is in use with another limit.
    LimitMismatch,
    /// The lock was held and is lost.
    Lost,
    /// The store refuses this user.
    PermissionDenied,
    /// The store has no room: disk, memory or descriptors are used up.
    StoreFull,
    /// The lock was not had within the given time.
    Timeout,
    /// The store can't be reached or does not answer. Trying again later may help.
    Unavailable,
    /// The store can't do this, or its set-up is refused as unsafe.
    Unsupported,
    /// Whoever asks would wait for itself: it runs under the very lock, or blocks the thread on which the holder has to get on
    /// ([`blocking`](crate::blocking#inside-a-runtime)).
    WouldDeadlock,
}

/// Why an operation on a lock failed.
///
/// One opaque type for all backends: [`kind`](Self::kind) says what to do about it, `Display` says in one line which backend, which
/// lock, which operation and what to do, and [`source`](StdError::source) is the client's own error, if there is one.
/// That somebody else holds a lock is not an error but an answer ([`Busy`]), except where the caller
/// insisted and time ran out ([`ErrorKind::Timeout`]).
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    backend: Option<&'static str>,
    operation: Option<&'static str>,
    name: Option<LockName>,
    busy: Option<Busy>,
    loss: Option<LossReason>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind. The message is a lower-case fragment without a full stop; it names the thing
    /// and says what to do. Backends call this; the engine adds backend, lock and operation.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            backend: None,
            operation: None,
            name: None,
            busy: None,
            loss: None,
            source: None,
        }))
    }

    /// The same error with the one that caused it.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.edit(|inner| inner.source = Some(Arc::from(source.into())))
    }

    /// Says where it happened, once: what is already known stays.
    #[must_use]
    pub(crate) fn at(self, backend: &'static str, operation: &'static str, name: &LockName) -> Self {
        self.edit(|inner| {
            inner.backend.get_or_insert(backend);
            inner.operation.get_or_insert(operation);
            inner.name.get_or_insert_with(|| name.clone());
        })
    }

    pub(crate) fn with_busy(self, busy: Busy) -> Self {
        self.edit(|inner| inner.busy = Some(busy))
    }

    /// That a lock was lost, and why: for what backends offer on guards, such as a check inside a database's transaction.
    pub fn lost(reason: LossReason) -> Self {
        Self::new(ErrorKind::Lost, format!("the lock was lost: {reason}"))
            .edit(|inner| inner.loss = Some(reason))
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "this Locks was closed")
    }

    pub(crate) fn forked() -> Self {
        Self::new(
            ErrorKind::Forked,
            "the process was forked since this Locks was made; make a new one in the child",
        )
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// What kind of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether trying the same again later may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::StoreFull)
    }

    /// The lock it is about, if it is about one.
    pub fn lock_name(&self) -> Option<&str> {
        self.0.name.as_ref().map(LockName::as_str)
    }

    /// The backend it comes from, such as `"redis"`.
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// What was in the way last, if this is a [`ErrorKind::Timeout`].
    pub fn busy(&self) -> Option<&Busy> {
        self.0.busy.as_ref()
    }

    /// Why the lock was lost, if this is a [`ErrorKind::Lost`].
    pub fn loss(&self) -> Option<LossReason> {
        self.0.loss
    }
}

/// One line, without the source.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(backend) = inner.backend {
            write!(f, "{backend}: ")?;
        }
        match (inner.operation, &inner.name) {
            (Some(operation), Some(name)) => write!(f, "{operation} {name:?}: ")?,
            (None, Some(name)) => write!(f, "lock {name:?}: ")?,
            (Some(operation), None) => write!(f, "{operation}: ")?,
            (None, None) => {}
        }
        f.write_str(&inner.message)?;
        if let Some(busy) = &inner.busy {
            write!(f, "; {busy}")?;
        }
        Ok(())
    }
}

/// The line, the kind, and the chain of causes below it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.kind())?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// For functions that return an [`io::Result`]. The error stays inside.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Config | ErrorKind::InvalidName => io::ErrorKind::InvalidInput,
            ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::WouldDeadlock => io::ErrorKind::Deadlock,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_has_it_inside() {
        let error = io::Error::from(Error::new(ErrorKind::Timeout, "late"));
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let inside = error.get_ref().and_then(|inside| inside.downcast_ref::<Error>()).unwrap();
        assert_eq!(inside.kind(), ErrorKind::Timeout);
    }

    #[test]
    fn display_names_the_thing_once_and_leaves_the_cause_to_source() {
        let name = LockName::new("a b").unwrap();
        let error = Error::new(ErrorKind::Unavailable, "no answer within 5 s")
            .with_source(io::Error::other("connection refused"))
            .at("redis", "acquire", &name)
            .at("other", "release", &name);
        assert_eq!(error.to_string(), r#"redis: acquire "a b": no answer within 5 s"#);
        assert_eq!(error.source().unwrap().to_string(), "connection refused");
        assert!(format!("{error:?}").ends_with("(Unavailable)\n  caused by: connection refused"));
        assert_eq!(error.lock_name(), Some("a b"));
    }
}
