//! Locks on a Redis server: alone, in a crowd, between processes and inside one.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use locks_backend_redis::RedisBackend;

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

const RIVAL: Rival =
    Rival { with: With::Rslock, name: "rslock", goals: &[(8, 100.0), (64, 20.0), (512, 3.0)], also: &[] };

pub(crate) const MEASURED: OnServer = OnServer { check, measure, commands, footprint };

fn check() -> Result<()> {
    Server::start().map(drop)
}

fn measure(effort: Effort, cores: &Cores, table: &mut Table) -> Result<()> {
    let server = Server::start()?;
    cores.with(server.pid()?, || {
        free::measure(effort, cores, &server, table)?;
        inside(effort, &server, table)?;
        contention::measure(effort, &server, &RIVAL, table)?;
        let mut bare = free::Bare::connect(&server)?;
        drain::measure(effort, cores, &server, &mut || bare.trip(effort.trips), table)
    })
}

/// Memory, connections, requests and order.
fn footprint(effort: Effort, table: &mut Table) -> Result<()> {
    let server = Server::start()?;
    held::measure(effort, &server, table)?;
    crowd::measure(&server, 2.0, table)
}

/// Many tasks of this process want the same lock.
fn inside(effort: Effort, server: &Server, table: &mut Table) -> Result<()> {
    let open = || RedisBackend::from_url(server.locks());
    let asked = || server.requests(With::Locks);
    hand_on::compare("redis", effort, &one_worker()?, table, open()?, open()?, &asked)
}

fn commands(effort: Effort, cores: &Cores, tools: &Path, table: &mut Table) -> Result<()> {
    let server = Server::start()?;
    let (program, address) = (wrapped::program("blocking")?, server.address());
    let blocking = || {
        let mut command = Command::new(&program);
        command.args([&address, "wrapped-bare", "true"]);
        command
    };
    let what = "`lock-block -- true` on Redis, over SET NX and compare-and-delete on a blocking socket";
    cores.with(server.pid()?, || wrapped::measure(effort, tools, &server, (what, &blocking), 1.6, table))
}
