//! The backend on members and clusters of all kinds: good ones, bad ones, and good ones that turn bad.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod cluster;
mod large;
mod lease;
mod owner;
mod reach;
mod restored;
#[cfg(feature = "rustls")]
mod tls;
mod watch;
mod workloads;

use std::time::{Duration, Instant};

use locks_api::{ErrorKind, LockGuard, Locks};
use locks_backend_etcd::EtcdBackend;
use tokio::task::JoinHandle;

/// How long anything may take. Generous: it only ends what hangs.
const PROMPT: Duration = Duration::from_secs(20);

/// Short, so that tests are.
const TTL: Duration = Duration::from_secs(2);

fn connect(url: &str) -> Locks {
    Locks::builder(EtcdBackend::from_url(url).unwrap()).store_timeout(Duration::from_secs(3)).build()
}

/// A task that waits for the lock, and does so already.
async fn wait_for(locks: &Locks, name: &str) -> JoinHandle<locks_api::Result<LockGuard>> {
    let before = waiters(locks, name).await;
    let lock = locks.lock(name).ttl(TTL);
    let waiter = tokio::spawn(async move { lock.acquire().await });
    let until = Instant::now() + PROMPT;
    while waiters(locks, name).await <= before {
        assert!(Instant::now() < until, "nobody waits");
        pause(Duration::from_millis(5)).await;
    }
    waiter
}

/// How many wait. A cluster that elects its leader just now is asked again.
async fn waiters(locks: &Locks, name: &str) -> usize {
    let until = Instant::now() + PROMPT;
    loop {
        match locks.inspect(name).await {
            Ok(seen) => return seen.waiters.map_or(0, |waiters| waiters.len()),
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < until => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PROMPT, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what} took longer than {PROMPT:?}"),
    }
}

/// Polls until it is so.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PROMPT;
    while !is_so() {
        assert!(Instant::now() < until, "{what} took longer than {PROMPT:?}");
        pause(Duration::from_millis(5)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "time is what is tested")]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
