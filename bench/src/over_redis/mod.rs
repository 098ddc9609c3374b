//! Locks on a Redis server: alone, in a crowd, between processes and inside one.

use std::path::Path;

use anyhow::{Context as _, Result};
use locks_backend_redis::RedisBackend;
use tokio::runtime::Builder;

use crate::cores::Cores;
use crate::hand_on;
use crate::rounds::Effort;
use crate::table::Table;

mod contention;
mod contest;
mod crowd;
mod drain;
mod free;
mod held;
mod server;
mod wrapped;

pub(crate) use contest::Contender;
pub(crate) use crowd::Crowd;

use server::Server;

/// Processes that contend.
const PROCESSES: usize = 8;

/// Fails if there is no server to measure with, before anything has taken its time.
pub(crate) fn check() -> Result<()> {
    Server::start().map(drop)
}

/// What is measured on one core, shared with the server, and then on two, of which the server has one.
pub(crate) fn measure(effort: Effort, cores: &Cores, tools: Option<&Path>, table: &mut Table) -> Result<()> {
    let server = Server::start()?;
    cores.use_with(server.pid()?)?;
    free::measure(effort, cores, &server, table)?;
    inside(effort, &server, table)?;
    contention::measure(effort, &server, table)?;
    drain::measure(effort, cores, &server, table)?;
    if let Some(tools) = tools {
        wrapped::measure(effort, tools, &server, table)?;
    }
    cores.use_only_these()
}

/// What does not depend on cores: memory, connections, requests and order.
pub(crate) fn footprint(effort: Effort, table: &mut Table) -> Result<()> {
    let server = Server::start()?;
    held::measure(effort, &server, table)?;
    crowd::measure(&server, table)
}

/// Many tasks of this process want the same lock.
fn inside(effort: Effort, server: &Server, table: &mut Table) -> Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("can't start a runtime")?;
    let open = || RedisBackend::from_url(server.locks());
    hand_on::compare("redis", effort, &runtime, table, open()?, open()?, &|| server.requests(OURS))
}

/// The commands that only the scripts of locks use, inside. One that is missing here would count as a request.
const OURS: &[&str] = &[
    "get",
    "hdel",
    "hget",
    "hgetall",
    "hset",
    "lindex",
    "lpos",
    "lrange",
    "lrem",
    "pexpire",
    "publish",
    "pubsub|numsub",
    "rpush",
    "set",
    "time",
    "zadd",
    "zrange",
    "zrem",
    "zscore",
];

/// The commands that only the scripts of rslock use, inside.
const RSLOCKS: &[&str] = &["get", "del"];
