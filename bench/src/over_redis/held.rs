//! Ten thousand locks that one `Locks` holds: what they cost the server.

use std::time::Duration;

use anyhow::{Context as _, Result};
use locks_api::{LockGuard, Locks};
use locks_backend_redis::RedisBackend;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::OURS;
use super::server::{Server, eventually};
use crate::rounds::{Effort, Spread};
use crate::table::{Goal, Table, Unit};

const HELD: u64 = 10_000;

/// Renewed every 1.8 s.
const TTL: Duration = Duration::from_secs(6);

pub(crate) fn measure(effort: Effort, server: &Server, table: &mut Table) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("can't start a runtime")?;
    let locks = Locks::new(RedisBackend::from_url(server.locks())?);
    let connections = server.connections()?;
    runtime.block_on(async { locks.lock("first").acquire().await?.release().await })?;
    let memory = server.memory()?;
    let guards: Vec<LockGuard> = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..HELD {
            let lock = locks.lock(format!("held-{number}")).ttl(TTL);
            tasks.spawn(async move { lock.acquire().await });
        }
        let mut guards = Vec::new();
        while let Some(guard) = tasks.join_next().await {
            guards.push(guard.context("a task panicked")??);
        }
        anyhow::Ok(guards)
    })?;
    let bytes = (server.memory()? - memory) as f64 / HELD as f64;
    let connections = (server.connections()? - connections) as f64;
    // A renewal writes each record once. The first round may come in pieces, as the locks did.
    let renewals = server.calls("set")?;
    eventually("the first renewals", || Ok(server.calls("set")? >= renewals + HELD))?;
    let (renewals, requests) = (server.calls("set")?, server.requests(OURS)?);
    let rounds = effort.rounds as u64 / 3;
    eventually("further renewals", || Ok(server.calls("set")? >= renewals + rounds * HELD))?;
    let (renewals, requests) = (server.calls("set")? - renewals, server.requests(OURS)? - requests);
    let per_round = requests as f64 * HELD as f64 / renewals as f64;
    let lost = guards.iter().filter(|guard| !guard.is_held()).count();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for guard in guards.into_iter().filter(LockGuard::is_held) {
            tasks.spawn(guard.release());
        }
        while let Some(released) = tasks.join_next().await {
            released.context("a task panicked")??;
        }
        anyhow::Ok(())
    })?;
    let what = |what: &str| format!("redis, {HELD} held locks, {what}");
    let number = |value: f64| Spread::of(&[value]);
    table.row(what("connections"), Goal::AtMost(2.0), Unit::Number, number(connections));
    table.row(what("bytes in the server for each"), Goal::AtMost(700.0), Unit::Number, number(bytes));
    table.row(what("requests per round of renewals"), Goal::AtMost(20.0), Unit::Number, number(per_round));
    table.row(what("lost"), Goal::AtMost(0.0), Unit::Number, number(lost as f64));
    Ok(())
}
