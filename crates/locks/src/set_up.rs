//! What an operator does once with a store that is new.

use locks_api::Result;

use crate::scheme;

/// What [`set_up`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetUp {
    /// The store grants locks from now on. A grace that ran was ended.
    Ready,
    /// A store of this kind is ready by itself. It can be opened, and nothing was done to it.
    NotNeeded,
}

/// Makes the store that `url` names ready, as `locks setup URL` does. Only for a store that is known to be new.
///
/// A server that knows nothing may be one that has forgotten everything, so the first lock on it waits for as long as a forgotten lock could
/// last. This ends that wait. Whoever calls it says that nobody relies on a lock of that store: called on one that just came
/// back from a crash, it can give a lock a second holder.
///
/// Takes a few seconds at most, also if the store can't be reached. Any executor will do.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) as from [`connect`](crate::connect), and if the store was set up with other options.
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if it can't be reached,
/// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) if it refuses us,
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if locks can't rely on it.
///
/// # Cancel safety
///
/// If the future is dropped, it may happen all the same.
///
/// # Examples
///
/// ```
/// # #[tokio::main] async fn main() -> locks::Result<()> {
/// # #[cfg(feature = "memory")]
/// assert_eq!(locks::set_up("memory:").await?, locks::SetUp::NotNeeded);
/// # Ok(())
/// # }
/// ```
pub async fn set_up(url: &str) -> Result<SetUp> {
    match scheme::of(url)?.as_str() {
        #[cfg(feature = "file")]
        "file" => locks_backend_file::FileBackend::from_url(url).map(|_| SetUp::NotNeeded),
        #[cfg(feature = "etcd")]
        "etcd" => {
            let url = url.to_owned();
            elsewhere(async move { locks_backend_etcd::set_up(&url).await }).await
        }
        #[cfg(feature = "etcd-rustls")]
        "etcds" => {
            let url = url.to_owned();
            elsewhere(async move { locks_backend_etcd::set_up(&url).await }).await
        }
        #[cfg(feature = "memory")]
        "memory" => locks_backend_memory::MemoryBackend::from_url(url).map(|_| SetUp::NotNeeded),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            if locks_backend_postgres::set_up_script(url)?.is_none() {
                return Ok(SetUp::NotNeeded);
            }
            let url = url.to_owned();
            elsewhere(async move { locks_backend_postgres::set_up(&url).await }).await
        }
        #[cfg(feature = "redis")]
        "redis" | "redis+unix" => {
            let url = url.to_owned();
            elsewhere(async move { locks_backend_redis::set_up(&url).await }).await
        }
        #[cfg(feature = "redis-rustls")]
        "rediss" => {
            let url = url.to_owned();
            elsewhere(async move { locks_backend_redis::set_up(&url).await }).await
        }
        other => Err(scheme::refused(other)),
    }
}

/// What `locks setup --print URL` shows: the script that makes a store ready, for those who would rather run it themselves; `None` if a store of this kind
/// needs none. Contacts nothing.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) as from [`connect`](crate::connect).
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "memory")]
/// assert_eq!(locks::set_up_script("memory:")?, None);
/// # Ok::<(), locks::Error>(())
/// ```
pub fn set_up_script(url: &str) -> Result<Option<String>> {
    match scheme::of(url)?.as_str() {
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => locks_backend_postgres::set_up_script(url),
        _ => crate::connect::open(url).map(|_| None),
    }
}

/// On a thread and a runtime of its own, as all that goes over a network.
#[cfg(any(feature = "etcd", feature = "postgres", feature = "redis"))]
async fn elsewhere(work: impl Future<Output = Result<()>> + Send + 'static) -> Result<SetUp> {
    use locks_api::{Error, ErrorKind};
    use tokio::runtime::Builder;
    use tokio::sync::oneshot;

    let no_thread = |error: std::io::Error| {
        Error::new(ErrorKind::StoreFull, "the library's thread can't be started").with_source(error)
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
    let (answer, answered) = oneshot::channel();
    let run = move || {
        // Whoever asked may have gone.
        drop(answer.send(runtime.block_on(work)));
    };
    std::thread::Builder::new().name("locks".to_owned()).spawn(run).map_err(no_thread)?;
    let gone = |_| Err(Error::new(ErrorKind::Backend, "the library's thread ended without an answer"));
    answered.await.unwrap_or_else(gone).map(|()| SetUp::Ready)
}
