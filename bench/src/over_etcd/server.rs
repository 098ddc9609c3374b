//! The etcd member that all sides use, and what it says of itself.

use std::cell::RefCell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Client, GetOptions, SortOrder, SortTarget};
use locks_test_servers::Etcd;
use rustix::process::Pid;
use tokio::runtime::Runtime;

use crate::between::{Store, With, runtime};
use crate::table::Goal;

/// Where the locks are.
const NAMESPACE: &str = "bench";

/// A private server, which dies with this process, and a client to look at it.
pub(crate) struct Server {
    etcd: Etcd,
    /// Its address for clients other than ours.
    url: String,
    locks: String,
    looks: RefCell<Looks>,
}

struct Looks {
    runtime: Runtime,
    client: Client,
    /// How often we looked: that is no request of those who are measured.
    looked: u64,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let etcd = Etcd::start().context("the measurements need an etcd server")?;
        let (url, locks) = (etcd.address().to_string(), format!("{}/{NAMESPACE}", etcd.url()));
        let runtime = runtime()?;
        let client = runtime.block_on(Client::connect([&url], None)).context("can't look at the server")?;
        Ok(Self { etcd, url, locks, looks: RefCell::new(Looks { runtime, client, looked: 0 }) })
    }

    pub(crate) fn pid(&self) -> Result<Pid> {
        Pid::from_raw(i32::try_from(self.etcd.pid()?)?).context("a server without a process")
    }

    /// How many messages kept a lease alive.
    pub(crate) fn kept_alive(&self) -> Result<u64> {
        self.count("grpc_server_msg_received_total{", "grpc_method=\"LeaseKeepAlive\"")
    }

    /// How many watches there are.
    pub(crate) fn watches(&self) -> Result<u64> {
        self.count("etcd_debugging_mvcc_watcher_total", "")
    }

    /// How many leases there are.
    pub(crate) fn leases(&self) -> Result<usize> {
        let Looks { runtime, client, looked } = &mut *self.looks.borrow_mut();
        *looked += 1;
        Ok(runtime.block_on(client.leases()).context("can't list leases")?.leases().len())
    }

    /// The sum of the counters whose line begins and goes on like this.
    fn count(&self, beginning: &str, with: &str) -> Result<u64> {
        let mut stream = TcpStream::connect(self.etcd.address()).context("can't reach the server")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: etcd\r\n\r\n").context("can't ask for counters")?;
        let mut page = String::new();
        stream.read_to_string(&mut page).context("can't read the counters")?;
        ensure!(page.contains(" 200 "), "no counters: {page}");
        let lines = page.lines().filter(|line| line.starts_with(beginning) && line.contains(with));
        let numbers = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(numbers.sum::<f64>() as u64)
    }
}

impl Store for Server {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn locks(&self) -> &str {
        &self.locks
    }

    /// As the kernel knows them: the server does not count them.
    fn connections(&self) -> Result<usize> {
        const ESTABLISHED: &str = "01";
        let table = fs::read_to_string("/proc/net/tcp").context("can't list connections")?;
        let local = format!(":{:04X}", self.etcd.port());
        let ours = table.lines().skip(1).filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            matches!(fields[..], [_, here, _, state, ..] if here.ends_with(&local) && state == ESTABLISHED)
        });
        // One is that of those who look.
        Ok(ours.count() - 1)
    }

    /// Messages, also those on streams.
    fn requests(&self, _: With) -> Result<u64> {
        let all = self.count("grpc_server_msg_received_total{", "")?;
        Ok(all - self.looks.borrow().looked)
    }

    /// All but the first, who holds it.
    fn queue(&self, name: &str) -> Result<Vec<u128>> {
        let Looks { runtime, client, looked } = &mut *self.looks.borrow_mut();
        *looked += 1;
        let prefix = format!("{NAMESPACE}/1/lock/{name}@c");
        let options = GetOptions::new().with_prefix().with_keys_only();
        let options = options.with_sort(SortTarget::Create, SortOrder::Ascend);
        let kept =
            runtime.block_on(client.get(prefix.as_str(), Some(options))).context("can't see who waits")?;
        let claim = |key: &[u8]| {
            let claim = std::str::from_utf8(key).ok()?.strip_prefix(prefix.as_str())?;
            u128::from_str_radix(claim, 16).ok()
        };
        kept.kvs().iter().skip(1).map(|kv| claim(kv.key()).context("a strange claim")).collect()
    }

    fn gap_goal(&self) -> Goal {
        Goal::None
    }
}
