//! Ten thousand locks that one `Locks` holds: what they cost the server, also while a transaction keeps it from cleaning up.

use anyhow::Result;
use locks_api::Locks;
use locks_backend_postgres::PostgresBackend;

use super::server::Server;
use crate::between::held::{HELD, give_back, hold, row};
use crate::between::{Store as _, With, eventually, runtime};
use crate::rounds::Effort;
use crate::table::{Goal, Table};

pub(crate) fn measure(effort: Effort, server: &Server, table: &mut Table) -> Result<()> {
    let runtime = runtime()?;
    let locks = Locks::new(PostgresBackend::from_url(server.locks())?);
    let connections = server.connections()?;
    runtime.block_on(async { locks.lock("first").acquire().await?.release().await })?;
    let size = server.table_size()?;
    let guards = hold(&runtime, &locks)?;
    let bytes = (server.table_size()? - size) as f64 / HELD as f64;
    // The first round may come in pieces, as the locks did.
    wait_for_rounds(server, 1)?;
    let connections = (server.connections()? - connections) as f64;
    row("postgres", "connections", Goal::AtMost(3.0), connections, table);
    row("postgres", "bytes in the table for each", Goal::None, bytes, table);
    let (renewals, requests) = (server.renewals()?, server.requests(With::Locks)?);
    let rounds = effort.renewals;
    let growth = growth(server, rounds)?;
    let (renewals, requests) = (server.renewals()? - renewals, server.requests(With::Locks)? - requests);
    let per_round = requests as f64 * HELD as f64 / renewals as f64;
    row("postgres", "statements per round of renewals", Goal::AtMost(20.0), per_round, table);
    let what = format!("size of the table after {rounds} rounds of renewals over before");
    row("postgres", &what, Goal::None, growth, table);
    let transaction = server.old_transaction()?;
    let growth = self::growth(server, rounds)?;
    drop(transaction);
    row("postgres", &format!("{what}, beside an old transaction"), Goal::None, growth, table);
    give_back(&runtime, "postgres", guards, table)
}

/// The size of the table after so many rounds of renewals over its size before.
fn growth(server: &Server, rounds: u64) -> Result<f64> {
    let before = server.table_size()?;
    wait_for_rounds(server, rounds)?;
    Ok(server.table_size()? as f64 / before as f64)
}

fn wait_for_rounds(server: &Server, rounds: u64) -> Result<()> {
    let before = server.renewals()?;
    eventually("all locks are renewed", || Ok(server.renewals()? >= before + rounds * HELD))
}
