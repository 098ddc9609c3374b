//! A lock space on a real server of its own, and all that can happen to it.

use std::fs;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use locks_api::spi::Guarantees;
use locks_backend_redis::redis::{Client, Cmd, ConnectionLike as _, RedisError, Value, cmd};
use locks_backend_redis::{RedisBackend, RedisOptions};
use locks_conformance::{Fault, Harness, SetupError};
use locks_test_servers::{Options, Redis};

/// What may be wrong with the backend.
pub(crate) trait Making: Send + Sync + 'static {
    /// The harness.
    const NAME: &'static str;

    /// The largest ttl, and the grace: short, so that cases are.
    const MAX_TTL: Duration = Duration::from_secs(4);

    /// Whether the data are lost by a flush, on a server that has been up for longer than any ttl, and not with the server.
    const FLUSHED: bool = false;

    /// The scripts, as this making has them.
    fn edit(script: &str) -> String {
        script.to_owned()
    }
}

/// As it is.
pub(crate) struct Sound;

impl Making for Sound {
    const NAME: &'static str = "redis";
}

/// A server, or the way to one.
pub(crate) struct Space<M> {
    /// With the options, for everybody who shares the space.
    url: String,
    /// In the process that started it: the server that has the address now.
    server: Mutex<Option<Server>>,
    remembered: Mutex<Option<Remembered>>,
    making: PhantomData<M>,
}

struct Server {
    redis: Redis,
    /// It took another one's port, so that it can't be started again there by itself.
    moved: bool,
}

/// The server's state at the last checkpoint.
struct Remembered {
    /// A replica that has everything up to then, and has followed nobody since.
    standby: Redis,
    /// A copy of the files, in the standby's directory.
    files: PathBuf,
}

impl<M: Making> Space<M> {
    fn at(url: String, server: Option<Redis>) -> Self {
        let server = Mutex::new(server.map(|redis| Server { redis, moved: false }));
        Self { url, server, remembered: Mutex::default(), making: PhantomData }
    }

    fn backend(url: &str) -> locks_api::Result<RedisBackend> {
        Ok(RedisBackend::from_url(url)?.with_scripts(M::edit))
    }

    /// The same space, reached by another address.
    fn through(&self, address: SocketAddr) -> String {
        let (_, options) = self.url.split_once('?').unwrap_or_default();
        format!("redis://{address}?{options}")
    }

    fn ask(&self, command: &Cmd) -> Result<Value, SetupError> {
        ask(&self.url, command)
    }

    fn set(&self, setting: &str, value: &str) -> Result<(), SetupError> {
        self.ask(cmd("CONFIG").arg("SET").arg(setting).arg(value)).map(drop)
    }

    fn with_server<T>(
        &self,
        act: impl FnOnce(&mut Server) -> Result<T, SetupError>,
    ) -> Result<T, SetupError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        act(server.as_mut().ok_or_else(|| SetupError::new("the server belongs to another process"))?)
    }

    fn remembered(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the server and starts it again, with the files that `files` leaves in its directory.
    fn crash(&self, files: impl FnOnce(&Path) -> Result<(), SetupError>) -> Result<(), SetupError> {
        let port = self.address().map_or(0, |address| address.port());
        self.with_server(|server| {
            server.redis.kill().map_err(setup)?;
            files(&data(&server.redis)?)?;
            if server.moved {
                let redis = options().port(port).start().map_err(setup)?;
                redis.kill().map_err(setup)?;
                copy(&data(&server.redis)?, &data(&redis)?)?;
                *server = Server { redis, moved: false };
            }
            server.redis.start_again().map_err(setup)
        })
    }

    /// Lets the standby take the server's place and port, as it was at the checkpoint.
    fn promote(&self) -> Result<(), SetupError> {
        let port = self.address().map_or(0, |address| address.port());
        let remembered = self.remembered().take();
        let Remembered { standby, .. } = remembered.ok_or_else(no_checkpoint)?;
        self.with_server(|server| {
            server.redis.kill().map_err(setup)?;
            ask(standby.url(), cmd("REPLICAOF").arg("NO").arg("ONE"))?;
            eventually("taking the primary's port", || {
                // The answer comes over a connection to the old one, if it comes.
                drop(ask(standby.url(), cmd("CONFIG").arg("SET").arg("port").arg(port)));
                ask(&self.url, &cmd("PING")).is_ok()
            })?;
            *server = Server { redis: standby, moved: true };
            Ok(())
        })
    }

    fn cut(&self, kind: &str) -> Result<(), SetupError> {
        self.ask(cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes")).map(drop)
    }
}

impl<M: Making> Harness for Space<M> {
    const NAME: &'static str = M::NAME;
    type Backend = RedisBackend;

    fn guarantees() -> Guarantees {
        RedisBackend::promises(&RedisOptions::default().max_ttl(M::MAX_TTL))
    }

    async fn start() -> Result<Self, SetupError> {
        let server = options().start().map_err(setup)?;
        let url = format!("{}?max_ttl={}ms", server.url(), M::MAX_TTL.as_millis());
        Self::backend(&url)?.set_up().await?;
        Ok(Self::at(url, Some(server)))
    }

    async fn connect(&self) -> locks_api::Result<RedisBackend> {
        Self::backend(&self.url)
    }

    fn worker_url(&self) -> Option<String> {
        Some(self.url.clone())
    }

    async fn attach(url: &str) -> Result<Self, SetupError> {
        Ok(Self::at(url.to_owned(), None))
    }

    fn over_tcp() -> bool {
        true
    }

    fn address(&self) -> Option<SocketAddr> {
        let address = self.url.strip_prefix("redis://")?;
        address.split('?').next()?.parse().ok()
    }

    async fn connect_through(&self, address: SocketAddr) -> locks_api::Result<RedisBackend> {
        Self::backend(&self.through(address))
    }

    fn worker_url_through(&self, address: SocketAddr) -> Option<String> {
        Some(self.through(address))
    }

    fn faults() -> &'static [Fault] {
        &[
            Fault::StoreFull,
            Fault::ReadOnly,
            Fault::Restart,
            Fault::DataLoss,
            Fault::Revocation,
            Fault::Pause,
            Fault::Promotion,
            Fault::Restore,
            Fault::SessionsCut,
            Fault::ListenersCut,
        ]
    }

    async fn checkpoint(&self) -> Result<(), SetupError> {
        let port = self.address().map_or(0, |address| address.port());
        let standby = options().config("replicaof", &format!("127.0.0.1 {port}")).start().map_err(setup)?;
        eventually("the standby catching up", || {
            let (primary, standby) = (info(&self.url, "replication"), info(standby.url(), "replication"));
            let offset = field(&primary, "master_repl_offset");
            field(&standby, "master_link_status") == Some("up")
                && offset.is_some()
                && offset == field(&standby, "master_repl_offset")
        })?;
        // Nobody is there: it keeps what it has.
        ask(standby.url(), cmd("REPLICAOF").arg("127.0.0.1").arg(1))?;
        let files = standby.directory().map_err(setup)?.join("copy");
        self.with_server(|server| copy(&data(&server.redis)?, &files))?;
        *self.remembered() = Some(Remembered { standby, files });
        Ok(())
    }

    async fn inject(&self, fault: Fault) -> Result<(), SetupError> {
        match fault {
            Fault::StoreFull => self.set("maxmemory", "1"),
            Fault::ReadOnly => self.ask(cmd("REPLICAOF").arg("127.0.0.1").arg(1)).map(drop),
            Fault::Restart => self.crash(|_| Ok(())),
            Fault::DataLoss if M::FLUSHED => {
                eventually("growing old", || uptime(&self.url) > M::MAX_TTL.as_secs())?;
                self.ask(&cmd("FLUSHALL")).map(drop)
            }
            Fault::DataLoss => self.crash(empty),
            Fault::Restore => {
                let Remembered { files, .. } = &self.remembered().take().ok_or_else(no_checkpoint)?;
                self.crash(|data| empty(data).and_then(|()| copy(files, data)))
            }
            Fault::Promotion => self.promote(),
            Fault::Pause => self.with_server(|server| server.redis.pause().map_err(setup)),
            Fault::SessionsCut => self.cut("normal").and_then(|()| self.cut("pubsub")),
            Fault::ListenersCut => self.cut("pubsub"),
            other => Err(SetupError::new(format!("no way to inject {other}"))),
        }
    }

    async fn revoke(&self, lock: &str) -> Result<(), SetupError> {
        self.ask(cmd("DEL").arg(format!("{{locks}}:1:l:{lock}"))).map(drop)
    }

    async fn heal(&self, fault: Fault) -> Result<(), SetupError> {
        match fault {
            Fault::StoreFull => self.set("maxmemory", "0"),
            Fault::ReadOnly => self.ask(cmd("REPLICAOF").arg("NO").arg("ONE")).map(drop),
            Fault::Pause => self.with_server(|server| server.redis.resume().map_err(setup)),
            other => Err(SetupError::new(format!("no way to heal {other}"))),
        }
    }
}

fn options() -> Options {
    Redis::options().config("appendonly", "yes").config("repl-diskless-sync-delay", "0")
}

fn data(server: &Redis) -> Result<PathBuf, SetupError> {
    Ok(server.directory().map_err(setup)?.join("data"))
}

/// One command over a connection of its own.
fn ask(url: &str, command: &Cmd) -> Result<Value, SetupError> {
    let url = url.split('?').next().unwrap_or(url);
    let ask = || Client::open(url)?.get_connection_with_timeout(Duration::from_secs(5))?.req_command(command);
    ask().map_err(|error: RedisError| SetupError::new(format!("{url}: {error}")))
}

/// A section of what the server says of itself, or nothing if it says nothing.
fn info(url: &str, section: &str) -> String {
    match ask(url, cmd("INFO").arg(section)) {
        Ok(Value::BulkString(info)) => String::from_utf8_lossy(&info).into_owned(),
        _ => String::new(),
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// In seconds.
fn uptime(url: &str) -> u64 {
    field(&info(url, "server"), "uptime_in_seconds").and_then(|uptime| uptime.parse().ok()).unwrap_or(0)
}

fn empty(directory: &Path) -> Result<(), SetupError> {
    fs::remove_dir_all(directory)?;
    Ok(fs::create_dir(directory)?)
}

/// Copies a directory and all that is in it.
fn copy(from: &Path, to: &Path) -> Result<(), SetupError> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = (entry?, to);
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Looks until it is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), SetupError> {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        if Instant::now() > until {
            return Err(SetupError::new(format!("{what} took longer than 30 s")));
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}

fn no_checkpoint() -> SetupError {
    SetupError::new("no checkpoint was made")
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn setup(error: locks_test_servers::Error) -> SetupError {
    SetupError::new(error.to_string())
}
