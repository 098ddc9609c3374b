//! The backend on servers of all kinds: good ones, bad ones, and good ones that turn bad.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod formats;
mod grace;
mod inspection;
mod kinds;
mod model;
mod reach;
mod refusals;
mod schedule;
#[cfg(feature = "rustls")]
mod tls;
mod tokens;
mod values;

use std::time::{Duration, Instant};

use locks_api::spi::{Attempt, Backend as _, Claim, Grant, InstanceId, Released};
use locks_api::{Busy, LockName, Locks, Result};
use locks_backend_redis::redis::{Client, Cmd, ConnectionLike as _, Value};
use locks_backend_redis::{RedisBackend, set_up};
use locks_test_servers::Redis;

/// How long anything may take. Generous: it only ends what hangs.
const PROMPT: Duration = Duration::from_secs(20);

/// A server and the URL of a namespace in it that is ready.
async fn ready() -> (Redis, String) {
    let server = Redis::start().unwrap();
    let url = format!("{}?max_ttl=4s", server.url());
    set_up(&url).await.unwrap();
    (server, url)
}

fn connect(url: &str) -> Locks {
    Locks::builder(RedisBackend::from_url(url).unwrap()).store_timeout(Duration::from_secs(3)).build()
}

/// A process that takes steps by itself. What the server says to it is heard, and nobody acts on it.
struct Process {
    backend: RedisBackend,
    instance: InstanceId,
}

impl Process {
    fn new(url: &str) -> Self {
        Self { backend: RedisBackend::from_url(url).unwrap(), instance: InstanceId::random() }
    }

    fn claim(&self, name: &str) -> Claim {
        Claim::new(LockName::new(name).unwrap(), self.instance).with_ttl(Duration::from_secs(4))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Attempt> {
        self.backend.acquire(std::slice::from_ref(claim)).await.unwrap().remove(0)
    }

    async fn granted(&self, claim: &Claim) -> Grant {
        match self.acquire(claim).await.unwrap() {
            Attempt::Granted(grant) => grant,
            other => panic!("not granted: {other:?}"),
        }
    }

    /// Asks, and is told who is in the way.
    async fn is_held(&self, claim: &Claim) -> bool {
        matches!(self.acquire(claim).await.unwrap(), Attempt::Busy(Busy::Held { by: Some(_) }))
    }

    /// Asks, and waits behind so many.
    async fn waits_behind(&self, claim: &Claim) -> u64 {
        match self.acquire(claim).await.unwrap() {
            Attempt::Queued { position: Some(position), .. } => position,
            other => panic!("not queued: {other:?}"),
        }
    }

    async fn release(&self, grant: &Grant) -> Released {
        self.backend.release(std::slice::from_ref(grant)).await.unwrap().remove(0).unwrap()
    }

    async fn cancel(&self, claim: &Claim) {
        self.backend.cancel(std::slice::from_ref(claim)).await.unwrap().remove(0).unwrap();
    }
}

/// Until so many wait for the lock.
async fn eventually_wait(locks: &Locks, name: &str, count: usize) {
    let until = Instant::now() + PROMPT;
    while locks.inspect(name).await.unwrap().waiters.is_none_or(|waiters| waiters.len() < count) {
        assert!(Instant::now() < until, "fewer than {count} wait");
        pause(Duration::from_millis(5)).await;
    }
}

/// One command, as an operator would give it.
fn ask(server: &Redis, command: &Cmd) -> Value {
    let mut connection = Client::open(server.url()).unwrap().get_connection().unwrap();
    connection.req_command(command).unwrap()
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
