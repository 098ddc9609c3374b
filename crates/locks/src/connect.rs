//! From a URL to a [`Locks`]: a match over the schemes, nothing registers itself.

use locks_api::{Locks, LocksBuilder, Result};

use crate::scheme;

/// Opens the store that `url` names.
///
/// | URL | feature | where the locks live |
/// |---|---|---|
/// | `file:` | `file` | a directory of the effective user on this machine |
/// | `file:/a/directory` | `file` | that directory |
/// | `etcd://host,host` | `etcd` | an etcd cluster |
/// | `etcds://host` | `etcd-rustls` | the same, over TLS |
/// | `memory:` | `memory` | this `Locks` alone |
/// | `postgres://host/database`, `postgresql://…` | `postgres`; `postgres-rustls` for TLS | a PostgreSQL database |
/// | `redis://host`, `redis+unix:/path` | `redis` | a Redis or Valkey server |
/// | `rediss://host` | `redis-rustls` | the same, over TLS |
///
/// Each backend's module says what else its URLs can hold.
///
/// A store that is reached over a network is contacted when the first lock is asked for, not here.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) if the URL has no scheme or one that does not exist, if the scheme's feature is off (the message
/// names the feature and the command that adds it) or if the rest of the URL makes no sense. Whatever the backend
/// says about its store, such as [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) for a directory that can't be used.
///
/// # Cancel safety
///
/// Nothing is left behind if the future is dropped.
///
/// # Examples
///
/// ```
/// # #[tokio::main] async fn main() -> locks::Result<()> {
/// # #[cfg(feature = "memory")] {
/// let locks = locks::connect("memory:").await?;
/// let guard = locks.lock("reports/nightly").acquire().await?;
/// assert!(locks.lock("reports/nightly").try_acquire().await?.is_none());
/// guard.release().await?;
/// # }
/// # Ok(())
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Locks> {
    Ok(builder(url).await?.build())
}

/// The same as [`connect`], for a `Locks` with other options: a label, a store timeout.
///
/// # Errors
///
/// As [`connect`].
///
/// # Cancel safety
///
/// Nothing is left behind if the future is dropped.
///
/// # Examples
///
/// ```
/// # #[tokio::main] async fn main() -> locks::Result<()> {
/// # #[cfg(feature = "memory")] {
/// use std::time::Duration;
///
/// let locks = locks::builder("memory:").await?.label("billing").store_timeout(Duration::from_secs(5)).build();
/// # drop(locks);
/// # }
/// # Ok(())
/// # }
/// ```
pub async fn builder(url: &str) -> Result<LocksBuilder> {
    open(url)
}

/// [`builder`] for those who can't await. Nothing is contacted here.
pub(crate) fn open(url: &str) -> Result<LocksBuilder> {
    match scheme::of(url)?.as_str() {
        #[cfg(feature = "file")]
        "file" => Ok(Locks::builder(locks_backend_file::FileBackend::from_url(url)?)),
        #[cfg(feature = "etcd")]
        "etcd" => Ok(Locks::builder(locks_backend_etcd::EtcdBackend::from_url(url)?)),
        #[cfg(feature = "etcd-rustls")]
        "etcds" => Ok(Locks::builder(locks_backend_etcd::EtcdBackend::from_url(url)?)),
        #[cfg(feature = "memory")]
        "memory" => Ok(Locks::builder(locks_backend_memory::MemoryBackend::from_url(url)?)),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => locks_backend_postgres::builder(url),
        #[cfg(feature = "redis")]
        "redis" | "redis+unix" => Ok(Locks::builder(locks_backend_redis::RedisBackend::from_url(url)?)),
        #[cfg(feature = "redis-rustls")]
        "rediss" => Ok(Locks::builder(locks_backend_redis::RedisBackend::from_url(url)?)),
        other => Err(scheme::refused(other)),
    }
}
