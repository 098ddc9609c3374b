//! What went wrong, as the kinds that callers act on.

use locks_api::{Error, ErrorKind};
use tonic::{Code, Status};

/// What a failed call means.
pub(crate) fn classify(status: &Status) -> Error {
    let said = status.message();
    let (kind, message) = match status.code() {
        _ if said.contains("too many operations") => (
            ErrorKind::Unsupported,
            "the cluster takes fewer operations in one transaction than this needs (--max-txn-ops)".to_owned(),
        ),
        Code::ResourceExhausted if said.contains("database space exceeded") => (
            ErrorKind::StoreFull,
            "the cluster has used up its space (--quota-backend-bytes); compact, defragment and disarm the alarm"
                .to_owned(),
        ),
        Code::PermissionDenied => (
            ErrorKind::PermissionDenied,
            format!("the cluster's roles refuse this user a key, or the user may not log in: {said}"),
        ),
        Code::Unauthenticated => {
            (ErrorKind::PermissionDenied, format!("the cluster refuses this login: {said}"))
        }
        Code::InvalidArgument if said.contains("authentication failed") => {
            (ErrorKind::PermissionDenied, format!("the cluster refuses this login: {said}"))
        }
        Code::InvalidArgument if said.contains("user name is empty") => (
            ErrorKind::PermissionDenied,
            "the cluster asks for a login; write etcd://user:password@host".to_owned(),
        ),
        Code::Unimplemented => (
            ErrorKind::Unsupported,
            format!("what answers is no etcd server, or one older than 3.4: {said}"),
        ),
        // Whoever can't be reached, has no leader, is overloaded or is stopping. The call may have been done.
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::Internal
        | Code::Unknown => (ErrorKind::Unavailable, format!("the cluster can't answer now: {said}")),
        _ => (ErrorKind::Backend, format!("the cluster answered: {said}")),
    };
    Error::new(kind, message)
}

/// Whether a lease that a call named does not exist any more.
pub(crate) fn is_lease_gone(status: &Status) -> bool {
    status.code() == Code::NotFound && status.message().contains("lease")
}

/// Whether the login has to be repeated, because its token is too old or of an earlier revision of the users.
pub(crate) fn is_login_stale(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
        || (status.code() == Code::InvalidArgument
            && status.message().contains("revision of auth store is old"))
}

/// Whether the cluster has no users, so that there is nothing to log in to.
pub(crate) fn is_without_login(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition && status.message().contains("authentication is not enabled")
}

/// Whether the connection is of no more use, or leads to a member that can't serve now.
pub(crate) fn is_fatal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Internal | Code::Unknown
    )
}

/// An answer that makes no sense.
pub(crate) fn strange(what: impl std::fmt::Debug) -> Error {
    Error::new(ErrorKind::Backend, format!("the cluster's answer makes no sense: {what:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_says_has_a_kind() {
        for (code, said, kind) in [
            (Code::Unavailable, "etcdserver: no leader", ErrorKind::Unavailable),
            (Code::Unavailable, "etcdserver: request timed out", ErrorKind::Unavailable),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", ErrorKind::StoreFull),
            (Code::ResourceExhausted, "etcdserver: too many requests", ErrorKind::Unavailable),
            (Code::PermissionDenied, "etcdserver: permission denied", ErrorKind::PermissionDenied),
            (Code::InvalidArgument, "etcdserver: user name is empty", ErrorKind::PermissionDenied),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                ErrorKind::PermissionDenied,
            ),
            (Code::InvalidArgument, "etcdserver: too many operations in txn request", ErrorKind::Unsupported),
            (Code::Unimplemented, "", ErrorKind::Unsupported),
            (Code::InvalidArgument, "etcdserver: key is not provided", ErrorKind::Backend),
        ] {
            assert_eq!(classify(&Status::new(code, said)).kind(), kind, "{code:?} {said}");
        }
    }

    #[test]
    fn a_lease_that_is_gone_and_an_old_login_are_told_apart() {
        let gone = Status::new(Code::NotFound, "etcdserver: requested lease not found");
        assert!(is_lease_gone(&gone) && !is_login_stale(&gone));
        assert!(is_login_stale(&Status::new(Code::Unauthenticated, "etcdserver: invalid auth token")));
        assert!(is_without_login(&Status::new(
            Code::FailedPrecondition,
            "etcdserver: authentication is not enabled"
        )));
    }
}
