//! Ten thousand locks that one `Locks` holds, under one lease.

use anyhow::Result;
use locks_api::Locks;
use locks_backend_etcd::EtcdBackend;

use super::server::Server;
use crate::between::held::{HELD, give_back, hold, row};
use crate::between::{Store as _, With, eventually, runtime};
use crate::rounds::Effort;
use crate::table::{Goal, Table};

pub(crate) fn measure(effort: Effort, server: &Server, table: &mut Table) -> Result<()> {
    let runtime = runtime()?;
    let locks = Locks::new(EtcdBackend::from_url(server.locks())?);
    let connections = server.connections()?;
    runtime.block_on(async { locks.lock("first").acquire().await?.release().await })?;
    let guards = hold(&runtime, &locks)?;
    // What is held for a moment is watched from then on, which takes a request each, once.
    eventually("the holds are watched", || Ok(server.watches()? >= HELD))?;
    // The first round may come in pieces, as the locks did.
    wait_for_rounds(server, 1)?;
    let connections = (server.connections()? - connections) as f64;
    let leases = server.leases()? as f64;
    let (kept, requests) = (server.kept_alive()?, server.requests(With::Locks)?);
    wait_for_rounds(server, effort.renewals)?;
    let (kept, requests) = (server.kept_alive()? - kept, server.requests(With::Locks)? - requests);
    row("etcd", "connections", Goal::AtMost(1.0), connections, table);
    row("etcd", "leases, of both ttls that were asked for", Goal::AtMost(2.0), leases, table);
    row("etcd", "requests per round of renewals", Goal::AtMost(20.0), requests as f64 / kept as f64, table);
    give_back(&runtime, "etcd", guards, table)
}

fn wait_for_rounds(server: &Server, rounds: u64) -> Result<()> {
    let before = server.kept_alive()?;
    eventually("the lease is kept alive", || Ok(server.kept_alive()? >= before + rounds))
}
