//! Ten thousand locks that one `Locks` holds: what they cost the server.

use anyhow::Result;
use locks_api::Locks;
use locks_backend_redis::RedisBackend;

use super::server::Server;
use crate::between::held::{HELD, give_back, hold, row};
use crate::between::{Store as _, With, eventually, runtime};
use crate::rounds::Effort;
use crate::table::{Goal, Table};

pub(crate) fn measure(effort: Effort, server: &Server, table: &mut Table) -> Result<()> {
    let runtime = runtime()?;
    let locks = Locks::new(RedisBackend::from_url(server.locks())?);
    let connections = server.connections()?;
    runtime.block_on(async { locks.lock("first").acquire().await?.release().await })?;
    let memory = server.memory()?;
    let guards = hold(&runtime, &locks)?;
    let bytes = (server.memory()? - memory) as f64 / HELD as f64;
    let connections = (server.connections()? - connections) as f64;
    // A renewal writes each record once. The first round may come in pieces, as the locks did.
    let renewals = server.calls("set")?;
    eventually("the first renewals", || Ok(server.calls("set")? >= renewals + HELD))?;
    let (renewals, requests) = (server.calls("set")?, server.requests(With::Locks)?);
    let rounds = effort.rounds as u64 / 3;
    eventually("further renewals", || Ok(server.calls("set")? >= renewals + rounds * HELD))?;
    let (renewals, requests) = (server.calls("set")? - renewals, server.requests(With::Locks)? - requests);
    let per_round = requests as f64 * HELD as f64 / renewals as f64;
    row("redis", "connections", Goal::AtMost(2.0), connections, table);
    row("redis", "bytes in the server for each", Goal::AtMost(700.0), bytes, table);
    row("redis", "requests per round of renewals", Goal::AtMost(20.0), per_round, table);
    give_back(&runtime, "redis", guards, table)
}
