//! The Redis server that all sides use, and what it says of itself.

use std::cell::{Cell, RefCell};

use anyhow::{Context as _, Result};
use locks_test_servers::Redis;
use redis::{Cmd, Connection, FromRedisValue, cmd};
use rustix::process::Pid;

use crate::between::{Store, With, eventually, runtime};
use crate::table::Goal;

const NAMESPACE: &str = "bench";

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
        runtime()?.block_on(locks_backend_redis::set_up(&locks))?;
        let client = redis::Client::open(redis.url()).context("a bad URL")?;
        let looks = client.get_connection().context("can't reach the server")?;
        let server = Self { redis, locks, looks: RefCell::new(looks), looked: Cell::new(0) };
        eventually("nobody else is connected", || Ok(server.connections()? == 0))?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> Result<Pid> {
        Pid::from_raw(i32::try_from(self.redis.pid()?)?).context("a server without a process")
    }

    /// Where it is, as `host:port`.
    pub(crate) fn address(&self) -> String {
        self.redis.address().to_string()
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

impl Store for Server {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn url(&self) -> &str {
        self.redis.url()
    }

    fn locks(&self) -> &str {
        &self.locks
    }

    fn connections(&self) -> Result<usize> {
        let mut list = cmd("CLIENT");
        list.arg("LIST");
        Ok(self.ask::<String>(&list)?.lines().count() - 1)
    }

    /// Commands inside scripts are counted by the server like others, and are no requests.
    fn requests(&self, with: With) -> Result<u64> {
        let inside = if with == With::Rslock { RSLOCKS } else { OURS };
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

    fn queue(&self, name: &str) -> Result<Vec<u128>> {
        let mut range = cmd("LRANGE");
        range.arg(format!("{{{NAMESPACE}}}:1:q:{name}")).arg(0).arg(-1);
        let claims: Vec<String> = self.ask(&range)?;
        claims.iter().map(|claim| u128::from_str_radix(claim, 16).context("a strange claim")).collect()
    }

    fn gap_goal(&self) -> Goal {
        Goal::AtMost(1.5)
    }
}

/// The number between `before` and `after`.
fn number(text: &str, before: &str, after: char) -> Result<u64> {
    let number = text.split_once(before).and_then(|(_, rest)| rest.split(after).next());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("no number behind {before:?}"))
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
