//! What went wrong, as the kinds that callers act on.

use locks_api::{Error, ErrorKind};
use sqlx::postgres::PgDatabaseError;

/// What a failed step, or a failed attempt to connect, means.
pub(crate) fn classify(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default().into_owned();
            refused(&code, &detailed(database.as_ref()))
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            Error::new(ErrorKind::Unavailable, format!("no connection to the server: {error}"))
                .with_source(error)
        }
        // The connection broke in the middle of something.
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Error::new(ErrorKind::Unavailable, format!("the connection to the server broke: {error}"))
                .with_source(error)
        }
        sqlx::Error::Configuration(_) => {
            Error::new(ErrorKind::Config, format!("the connection settings make no sense: {error}"))
        }
        _ => Error::new(ErrorKind::Backend, format!("the server's answer makes no sense: {error}"))
            .with_source(error),
    }
}

/// Whether nothing more can be done over the connection on which this happened.
pub(crate) fn ends_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // Class 57P: the server goes down or came up; 25006: it has become read-only; 08: the connection.
            code.starts_with("57P") || code.starts_with("08") || code == READ_ONLY
        }
        _ => true,
    }
}

/// Whether another transaction had the row for longer than a step waits.
pub(crate) fn is_locked(error: &sqlx::Error) -> bool {
    code_of(error).as_deref() == Some("55P03")
}

/// Whether a table, function or schema is not there.
pub(crate) fn is_missing(error: &sqlx::Error) -> bool {
    matches!(code_of(error).as_deref(), Some("42P01" | "42883" | "3F000"))
}

/// Whether it is a pooler, which does not know the settings that were sent with the connection.
pub(crate) fn is_from_a_pooler(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(database) if database.message().contains("unsupported startup parameter"))
}

/// An answer that makes no sense.
pub(crate) fn strange(what: impl std::fmt::Debug) -> Error {
    Error::new(ErrorKind::Backend, format!("the server's answer makes no sense: {what:?}"))
}

const READ_ONLY: &str = "25006";

fn code_of(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

fn detailed(error: &dyn sqlx::error::DatabaseError) -> String {
    let more = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::detail);
    match more {
        Some(detail) => format!("{} ({detail})", error.message()),
        None => error.message().to_owned(),
    }
}

fn refused(code: &str, said: &str) -> Error {
    let (kind, message) = match code {
        "28000" | "28P01" => (ErrorKind::PermissionDenied, format!("the server refuses this login: {said}")),
        "42501" => (ErrorKind::PermissionDenied, format!("the database refuses this role something: {said}")),
        "3D000" => (ErrorKind::Config, format!("the server has no such database: {said}")),
        READ_ONLY => (ErrorKind::Unavailable, "the database is read-only".to_owned()),
        "53100" | "53200" => (ErrorKind::StoreFull, format!("the server is full: {said}")),
        "53300" => (ErrorKind::Unavailable, format!("the server has no connection left: {said}")),
        "55P03" => (
            ErrorKind::Unavailable,
            "another transaction has the lock's row for longer than a step waits".to_owned(),
        ),
        _ if code.starts_with("57")
            || code.starts_with("08")
            || code.starts_with("40")
            || code.starts_with("53") =>
        {
            (ErrorKind::Unavailable, format!("the server can't answer now: {said}"))
        }
        _ => (ErrorKind::Backend, format!("the server answered: {said} ({code})")),
    };
    Error::new(kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kinds() {
        for (code, kind) in [
            ("28P01", ErrorKind::PermissionDenied),
            ("42501", ErrorKind::PermissionDenied),
            ("3D000", ErrorKind::Config),
            ("25006", ErrorKind::Unavailable),
            ("40001", ErrorKind::Unavailable),
            ("40P01", ErrorKind::Unavailable),
            ("57P01", ErrorKind::Unavailable),
            ("53100", ErrorKind::StoreFull),
            ("22012", ErrorKind::Backend),
        ] {
            assert_eq!(refused(code, "what it said").kind(), kind, "{code}");
        }
        assert_eq!(classify(sqlx::Error::WorkerCrashed).kind(), ErrorKind::Unavailable);
        assert_eq!(classify(sqlx::Error::RowNotFound).kind(), ErrorKind::Backend);
    }
}
