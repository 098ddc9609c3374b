//! What went wrong, as the kinds that callers act on.

use locks_api::{Error, ErrorKind};
use redis::RedisError;

/// What a failed step, or a failed attempt to connect, means.
pub(crate) fn classify(error: RedisError) -> Error {
    let code = error.code().unwrap_or_default().to_owned();
    let (kind, message) = match code.as_str() {
        "OOM" => (ErrorKind::StoreFull, "the server has used up its memory (maxmemory)".into()),
        "NOPERM" => (
            ErrorKind::PermissionDenied,
            format!("the server's ACL refuses this user a command, key or channel: {}", detail(&error)),
        ),
        "NOAUTH" | "WRONGPASS" => {
            (ErrorKind::PermissionDenied, format!("the server refuses this login: {}", detail(&error)))
        }
        "READONLY" => (ErrorKind::Unavailable, "the server has become a read-only replica".into()),
        "NOREPLICAS" => (
            ErrorKind::Unavailable,
            "the server has too few replicas to write (min-replicas-to-write)".into(),
        ),
        "MISCONF" => (
            ErrorKind::StoreFull,
            format!("the server can't save its data and refuses writes: {}", detail(&error)),
        ),
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" => {
            (ErrorKind::Unavailable, format!("the server can't answer now: {}", detail(&error)))
        }
        "MOVED" | "ASK" | "CROSSSLOT" => (ErrorKind::Unsupported, CLUSTER.to_owned()),
        // From inside a script there is no code for it.
        "ERR"
            if detail(&error).contains("The user executing the script")
                || detail(&error).contains("No permissions") =>
        {
            (
                ErrorKind::PermissionDenied,
                format!("the server's ACL refuses this user a command, key or channel: {}", detail(&error)),
            )
        }
        "ERR" if detail(&error).contains("max number of clients") => {
            (ErrorKind::Unavailable, "the server has no connection left (maxclients)".into())
        }
        "" if error.is_io_error() || error.is_connection_dropped() || error.is_timeout() => {
            (ErrorKind::Unavailable, format!("no connection to the server: {error}"))
        }
        "" if error.kind() == redis::ErrorKind::AuthenticationFailed => {
            (ErrorKind::PermissionDenied, format!("the server refuses this login: {}", detail(&error)))
        }
        _ if error.is_unrecoverable_error() => {
            (ErrorKind::Unavailable, format!("the connection to the server broke: {error}"))
        }
        _ => (ErrorKind::Backend, format!("the server answered: {error}")),
    };
    let told = Error::new(kind, message);
    // What the server said is in the message already.
    if code.is_empty() { told.with_source(error) } else { told }
}

pub(crate) const CLUSTER: &str = "the server is a node of a Redis Cluster, which this backend can't use; take a server that is not clustered";

/// An answer that makes no sense.
pub(crate) fn strange(what: impl std::fmt::Debug) -> Error {
    Error::new(ErrorKind::Backend, format!("the server's answer makes no sense: {what:?}"))
}

fn detail(error: &RedisError) -> &str {
    error.detail().unwrap_or_else(|| error.category())
}
