//! The backend on databases of all kinds: good ones, bad ones, and good ones that turn bad.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod grace;
mod large;
mod pooler;
mod reach;
mod session;
mod set_up;
#[cfg(feature = "rustls")]
mod tls;
mod transactions;
mod traps;
mod verify;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use locks_api::Locks;
use locks_backend_postgres::sqlx::postgres::{PgConnection, PgRow};
use locks_backend_postgres::sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, raw_sql};
use locks_backend_postgres::{PostgresBackend, set_up as make_ready};
use locks_test_servers::Postgres;

/// How long anything may take. Generous: it only ends what hangs.
const PROMPT: Duration = Duration::from_secs(20);

/// The server that all tests share that break none.
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::options().config("max_connections", "300").start().unwrap())
}

/// A schema that nobody else has.
fn fresh() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("s{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The URL of a schema of its own in the shared server, with tables.
async fn ready() -> String {
    let url = format!("{}?max_ttl=4s&schema={}", server().url(), fresh());
    make_ready(&url).await.unwrap();
    url
}

fn schema_of(url: &str) -> &str {
    url.split("schema=").nth(1).unwrap().split('&').next().unwrap()
}

fn connect(url: &str) -> Locks {
    Locks::builder(PostgresBackend::from_url(url).unwrap()).store_timeout(PROMPT).build()
}

/// A connection as a user of the same database has one.
async fn client(url: &str) -> PgConnection {
    PgConnection::connect(url.split('?').next().unwrap()).await.unwrap()
}

/// Runs what an operator would.
async fn run(url: &str, sql: impl Into<String>) {
    client(url).await.execute(raw_sql(AssertSqlSafe(sql.into()))).await.unwrap();
}

async fn row(url: &str, sql: impl Into<String>) -> PgRow {
    client(url).await.fetch_one(raw_sql(AssertSqlSafe(sql.into()))).await.unwrap()
}

/// A number that the database knows.
async fn number(url: &str, sql: impl Into<String>) -> i64 {
    row(url, sql).await.get(0)
}

/// Until so many wait for the lock.
async fn eventually_wait(locks: &Locks, name: &str, count: usize) {
    let until = Instant::now() + PROMPT;
    while locks.inspect(name).await.unwrap().waiters.is_none_or(|waiters| waiters.len() < count) {
        assert!(Instant::now() < until, "fewer than {count} wait");
        pause(Duration::from_millis(5)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "time is what is tested")]
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
