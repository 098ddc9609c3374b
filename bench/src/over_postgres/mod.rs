//! Locks in a PostgreSQL database: alone, in a crowd, between processes and inside one.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use locks_backend_postgres::PostgresBackend;

use crate::between::contention::Rival;
use crate::between::{OnServer, Store as _, With, contention, crowd, drain, one_worker, wrapped};
use crate::cores::Cores;
use crate::hand_on;
use crate::rounds::Effort;
use crate::table::Table;

mod free;
mod held;
mod server;

use server::Server;

const RIVAL: Rival = Rival {
    with: With::DistributedLockPostgres,
    name: "distributed-lock-postgres",
    goals: &[(8, 3.0), (64, 4.0), (512, 5.0)],
    also: &[(With::SharedLocks, "with a `Locks` each"), (With::Sessions, "in session mode")],
};

pub(crate) const MEASURED: OnServer = OnServer { check, measure, commands, footprint };

fn check() -> Result<()> {
    Server::that_counts().map(drop)
}

fn measure(effort: Effort, cores: &Cores, table: &mut Table) -> Result<()> {
    let server = Server::start()?;
    cores.with(server.pid()?, || {
        free::measure(effort, cores, &server, table)?;
        let mut bare = free::Bare::connect(&server)?;
        drain::measure(effort, cores, &server, &mut || bare.trip(effort.trips), table)
    })?;
    drop(server);
    // What counts statements adds to each of them, so nothing that is timed beside a bare round trip is timed here.
    let server = Server::that_counts()?;
    cores.with(server.pid()?, || {
        inside(effort, &server, table)?;
        contention::measure(effort, &server, &RIVAL, table)
    })
}

/// Size, connections, statements and order.
fn footprint(effort: Effort, table: &mut Table) -> Result<()> {
    let server = Server::that_counts()?;
    held::measure(effort, &server, table)?;
    crowd::measure(&server, 3.0, table)
}

/// Many tasks of this process want the same lock.
fn inside(effort: Effort, server: &Server, table: &mut Table) -> Result<()> {
    let open = || PostgresBackend::from_url(server.locks());
    let asked = || server.requests(With::Locks);
    hand_on::compare("postgres", effort, &one_worker()?, table, open()?, open()?, &asked)
}

fn commands(effort: Effort, cores: &Cores, tools: &Path, table: &mut Table) -> Result<()> {
    let server = Server::start()?;
    let program = wrapped::program("advisory")?;
    let advisory = || {
        let mut command = Command::new(&program);
        command.args([server.url(), "true"]);
        command
    };
    let what = "`lock-block -- true` on PostgreSQL, over an advisory lock of a bare client";
    cores.with(server.pid()?, || wrapped::measure(effort, tools, &server, (what, &advisory), 1.3, table))
}
