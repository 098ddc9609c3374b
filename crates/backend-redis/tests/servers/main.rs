//! The backend on servers of all kinds: good ones, bad ones, and good ones that turn bad.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod grace;
mod reach;
mod refusals;
#[cfg(feature = "rustls")]
mod tls;
mod tokens;

use std::time::{Duration, Instant};

use locks_api::Locks;
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
