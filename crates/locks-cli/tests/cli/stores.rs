//! Stores whose locks expire, on real servers: the same tests run on each of them.

#[cfg(feature = "redis")]
use std::io::{BufRead, BufReader, Write};
#[cfg(feature = "redis")]
use std::net::TcpStream;
use std::process::{Command, Output};

#[cfg(feature = "postgres")]
use locks_test_servers::Postgres;
#[cfg(feature = "redis")]
use locks_test_servers::Redis;
use locks_test_servers::Server;
#[cfg(feature = "etcd")]
use locks_test_servers::{Etcd, gateway};

use crate::support::{by_hand, output};

pub(crate) const ABORT: &str = env!("CARGO_BIN_EXE_lock-abort");
pub(crate) const BLOCK: &str = env!("CARGO_BIN_EXE_lock-block");
pub(crate) const LOCKS: &str = env!("CARGO_BIN_EXE_locks");

/// Makes a test of each function for each store, which it is called with.
macro_rules! on_each_store {
    ($($test:ident,)*) => {
        #[cfg(feature = "etcd")]
        mod on_etcd {
            $(#[test] fn $test() { super::$test($crate::stores::Kind::Etcd); })*
        }
        #[cfg(feature = "postgres")]
        mod on_postgres {
            $(#[test] fn $test() { super::$test($crate::stores::Kind::Postgres); })*
        }
        #[cfg(feature = "redis")]
        mod on_redis {
            $(#[test] fn $test() { super::$test($crate::stores::Kind::Redis); })*
        }
    };
}
pub(crate) use on_each_store;

/// The stores with a ttl.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    #[cfg(feature = "etcd")]
    Etcd,
    #[cfg(feature = "postgres")]
    Postgres,
    /// `mode=session`
    #[cfg(feature = "postgres")]
    PostgresSession,
    #[cfg(feature = "redis")]
    Redis,
}

impl Kind {
    /// What the commands call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd => "etcd",
            #[cfg(feature = "postgres")]
            Self::Postgres | Self::PostgresSession => "postgres",
            #[cfg(feature = "redis")]
            Self::Redis => "redis",
        }
    }

    /// From the shortest ttl to the longest, as the commands say it.
    pub(crate) fn ttls(self) -> &'static str {
        match self {
            #[cfg(feature = "etcd")]
            Self::Etcd => "2s to 3600s",
            #[cfg(feature = "postgres")]
            Self::Postgres | Self::PostgresSession => "1s to 15s",
            #[cfg(feature = "redis")]
            Self::Redis => "1s to 15s",
        }
    }
}

/// A namespace of its own on a server that others may use too.
pub(crate) struct Store {
    kind: Kind,
    server: AnyServer,
    namespace: String,
}

enum AnyServer {
    #[cfg(feature = "etcd")]
    Etcd(Etcd),
    #[cfg(feature = "postgres")]
    Postgres(Postgres),
    #[cfg(feature = "redis")]
    Redis(Redis),
}

impl Store {
    /// Nobody has set it up.
    pub(crate) fn new(kind: Kind) -> Self {
        let server = match kind {
            #[cfg(feature = "etcd")]
            Kind::Etcd => AnyServer::Etcd(Etcd::shared().unwrap()),
            #[cfg(feature = "postgres")]
            Kind::Postgres | Kind::PostgresSession => AnyServer::Postgres(Postgres::shared().unwrap()),
            #[cfg(feature = "redis")]
            Kind::Redis => AnyServer::Redis(Redis::shared().unwrap()),
        };
        Self { kind, server, namespace: format!("cli_{:016x}", fastrand::u64(..)) }
    }

    pub(crate) fn ready(kind: Kind) -> Self {
        Self::new(kind).set_up()
    }

    /// On a server that nobody else uses and that may be paused or killed.
    pub(crate) fn of_its_own(kind: Kind) -> Self {
        let server = match kind {
            #[cfg(feature = "etcd")]
            Kind::Etcd => AnyServer::Etcd(Etcd::start().unwrap()),
            #[cfg(feature = "postgres")]
            Kind::Postgres | Kind::PostgresSession => AnyServer::Postgres(Postgres::start().unwrap()),
            #[cfg(feature = "redis")]
            Kind::Redis => AnyServer::Redis(Redis::start().unwrap()),
        };
        Self { kind, server, namespace: "cli_".to_owned() }.set_up()
    }

    fn set_up(self) -> Self {
        let set_up = self.locks(["setup"]);
        assert_eq!(set_up.status.code(), Some(0), "{set_up:?}");
        self
    }

    pub(crate) fn server(&self) -> &Server {
        match &self.server {
            #[cfg(feature = "etcd")]
            AnyServer::Etcd(server) => server,
            #[cfg(feature = "postgres")]
            AnyServer::Postgres(server) => server,
            #[cfg(feature = "redis")]
            AnyServer::Redis(server) => server,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.url_of(self.server().url())
    }

    /// The same for another user.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn url_for(&self, login: &str) -> String {
        let (scheme, rest) = self.server().url().split_once("://").unwrap();
        let server = rest.rsplit('@').next().unwrap();
        self.url_of(&format!("{scheme}://{login}@{server}"))
    }

    fn url_of(&self, server: &str) -> String {
        let option = match self.kind {
            #[cfg(feature = "etcd")]
            Kind::Etcd => "namespace",
            #[cfg(feature = "postgres")]
            Kind::Postgres => "prefix",
            // There is no set-up to spare it the grace after the server's start.
            #[cfg(feature = "postgres")]
            Kind::PostgresSession => "mode=session&restart_grace=off&prefix",
            #[cfg(feature = "redis")]
            Kind::Redis => "namespace",
        };
        format!("{server}?{option}={}", self.namespace)
    }

    pub(crate) fn tool(&self, program: &str) -> Command {
        by_hand();
        let mut command = Command::new(program);
        command.env("LOCKS_URL", self.url());
        command
    }

    pub(crate) fn locks<const N: usize>(&self, arguments: [&str; N]) -> Output {
        output(self.tool(LOCKS).args(arguments))
    }

    /// Runs a command under the lock "n".
    pub(crate) fn under(&self, tool: &str, options: &[&str], command: &[&str]) -> Command {
        let mut wrapper = self.tool(tool);
        wrapper.args(["--name", "n"]).args(options).arg("--").args(command);
        wrapper
    }

    /// Takes the lock "n", which is held, out of the store.
    pub(crate) fn take_away(&self) {
        match &self.server {
            #[cfg(feature = "etcd")]
            AnyServer::Etcd(server) => {
                let beginning = format!("{}/1/lock/n@c", self.namespace);
                let keys = gateway::keys(server.address(), &beginning).unwrap();
                gateway::delete(server.address(), &keys[0]).unwrap();
            }
            #[cfg(feature = "postgres")]
            AnyServer::Postgres(server) => {
                let namespace = &self.namespace;
                let gone = match self.kind {
                    Kind::PostgresSession => format!(
                        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid::bigint = \
                         ('x' || encode(substr(sha256(E'locks\\n{namespace}\\nn'), 5, 4), 'hex'))::bit(32)::bigint"
                    ),
                    _ => format!("DELETE FROM locks.{namespace}lock WHERE name = 'n' RETURNING name"),
                };
                assert_eq!(server.ask(&gone).unwrap().len(), 1);
            }
            #[cfg(feature = "redis")]
            AnyServer::Redis(_) => {
                assert_eq!(self.say(&format!("DEL {{{}}}:1:l:n", self.namespace)), ":1");
            }
        }
    }

    /// Says something to a Redis server itself.
    #[cfg(feature = "redis")]
    pub(crate) fn say(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.server().address()).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}
