//! The server that all sides use, and what it says of itself.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use locks_test_servers::Redis;
use redis::{Cmd, Connection, FromRedisValue, cmd};
use rustix::process::Pid;
use tokio::runtime::Builder;

const NAMESPACE: &str = "bench";

/// How long anything may take that is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// A private server, which dies with this process, and a connection to look at it.
pub(crate) struct Server {
    redis: Redis,
    locks: String,
    looks: RefCell<Connection>,
    /// How often we looked: that is no request of those who are measured.
    looked: Cell<u64>,
}

impl Server {
    /// Starts one and makes it ready, so that there is no grace.
    pub(crate) fn start() -> Result<Self> {
        let redis = Redis::start().context("the measurements need a Redis server")?;
        let locks = format!("{}?namespace={NAMESPACE}", redis.url());
        let runtime = Builder::new_current_thread().enable_all().build().context("can't start a runtime")?;
        runtime.block_on(locks_backend_redis::set_up(&locks))?;
        drop(runtime);
        let client = redis::Client::open(redis.url()).context("a bad URL")?;
        let looks = client.get_connection().context("can't reach the server")?;
        let server = Self { redis, locks, looks: RefCell::new(looks), looked: Cell::new(0) };
        eventually("nobody else is connected", || Ok(server.connections()? == 0))?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> Result<Pid> {
        Pid::from_raw(i32::try_from(self.redis.pid()?)?).context("a server without a process")
    }

    /// Where it is, for peers.
    pub(crate) fn url(&self) -> &str {
        self.redis.url()
    }

    /// Where it is, as `host:port`.
    pub(crate) fn address(&self) -> String {
        self.redis.address().to_string()
    }

    /// Where it is, for locks.
    pub(crate) fn locks(&self) -> &str {
        &self.locks
    }

    /// Requests so far. Commands `inside` scripts are counted by the server like others, and are none.
    pub(crate) fn requests(&self, inside: &[&str]) -> Result<u64> {
        let own = self.looked.get();
        let mut requests = 0;
        for line in self.info("commandstats")?.lines() {
            let Some((command, stats)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(':'))
            else {
                continue;
            };
            if !inside.contains(&command) {
                requests += number(stats, "calls=", ',')?;
            }
        }
        Ok(requests - own)
    }

    /// How often this command has run, inside scripts or not.
    pub(crate) fn calls(&self, command: &str) -> Result<u64> {
        let info = self.info("commandstats")?;
        if info.contains(&format!("cmdstat_{command}:")) {
            number(&info, &format!("cmdstat_{command}:calls="), ',')
        } else {
            Ok(0)
        }
    }

    /// Bytes in use, without what connections read and write.
    pub(crate) fn memory(&self) -> Result<u64> {
        let info = self.info("memory")?;
        Ok(number(&info, "used_memory:", '\r')? - number(&info, "mem_clients_normal:", '\r')?)
    }

    /// Connections of others.
    pub(crate) fn connections(&self) -> Result<usize> {
        let mut list = cmd("CLIENT");
        list.arg("LIST");
        Ok(self.ask::<String>(&list)?.lines().count() - 1)
    }

    /// Who waits for this lock, by ticket: claims.
    pub(crate) fn queue(&self, name: &str) -> Result<Vec<String>> {
        let mut range = cmd("LRANGE");
        range.arg(format!("{{{NAMESPACE}}}:1:q:{name}")).arg(0).arg(-1);
        self.ask(&range)
    }

    /// Waits until so many wait for these locks together.
    pub(crate) fn wait_for_queue(&self, names: &[String], count: usize) -> Result<()> {
        eventually("all wait", || {
            let mut waiting = 0;
            for name in names {
                waiting += self.queue(name)?.len();
            }
            Ok(waiting >= count)
        })
    }

    fn info(&self, section: &str) -> Result<String> {
        let mut info = cmd("INFO");
        info.arg(section);
        self.ask(&info)
    }

    fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        self.looked.set(self.looked.get() + 1);
        command.query(&mut *self.looks.borrow_mut()).context("can't look at the server")
    }
}

/// Polls until it is so: nothing tells us when what the server says of itself changes.
#[expect(clippy::disallowed_methods, reason = "a poll with a limit, which leaves the server time for others")]
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let limit = Instant::now() + LIMIT;
    while !is_so()? {
        if Instant::now() > limit {
            bail!("not within {LIMIT:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The number between `before` and `after`.
fn number(text: &str, before: &str, after: char) -> Result<u64> {
    let number = text.split_once(before).and_then(|(_, rest)| rest.split(after).next());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("no number behind {before:?}"))
}
