//! PgBouncer, which stands before a PostgreSQL server.

use std::ffi::OsString;
use std::fmt;
use std::ops::Deref;
use std::path::Path;

use crate::account::Account;
use crate::error::Error;
use crate::place::Place;
use crate::port;
use crate::postgres::Postgres;
use crate::process::Process;
use crate::program::Program;
use crate::server::Server;
use crate::technology::Technology;

/// The name of its configuration file.
const FILE: &str = "pgbouncer.ini";

/// A pooler before a [`Postgres`]. All else that can be done to it is in [`Server`].
///
/// Whoever comes is the user `postgres`, of the server's databases and of the pooler's own, `pgbouncer`.
#[derive(Debug)]
pub struct PgBouncer {
    server: Server,
}

impl PgBouncer {
    /// Starts a private pooler before this server, on a free port of this machine.
    ///
    /// Where this process is root's, it runs as `postgres`, or as `nobody`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`](crate::ErrorKind::Missing) if there is no program for it or none may be started,
    /// [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it did not come up.
    pub fn start(postgres: &Postgres, pool_mode: PoolMode) -> Result<Self, Error> {
        Self::options().start(postgres, pool_mode)
    }

    /// A pooler that is not like all others.
    #[must_use]
    pub fn options() -> PgBouncerOptions {
        PgBouncerOptions::default()
    }
}

impl Deref for PgBouncer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// When a server's session goes back to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PoolMode {
    /// When the client leaves.
    Session,
    /// After each transaction.
    Transaction,
    /// After each statement.
    Statement,
}

/// Reads as in the configuration file: "session".
impl fmt::Display for PoolMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        })
    }
}

/// How a private pooler is to be.
#[derive(Clone, Debug, Default)]
pub struct PgBouncerOptions {
    settings: Vec<(String, String)>,
}

impl PgBouncerOptions {
    /// A line of its section `[pgbouncer]`, such as `config("default_pool_size", "2")`. Where it runs, listens and logs is not for it to
    /// say.
    #[must_use]
    pub fn config(mut self, setting: &str, value: &str) -> Self {
        self.settings.push((setting.to_owned(), value.to_owned()));
        self
    }

    /// Starts it before this server.
    ///
    /// # Errors
    ///
    /// As [`PgBouncer::start`].
    pub fn start(self, postgres: &Postgres, pool_mode: PoolMode) -> Result<PgBouncer, Error> {
        let program = Program::of_own(Technology::PgBouncer)?;
        let command = |directory: &Path| -> Vec<OsString> {
            vec![program.command(), directory.join(FILE).into_os_string()]
        };
        let place = Place::of(program.image(), Account::of_servers()?);
        let process = Process::prepare(Technology::PgBouncer.name(), place, command)?;
        let behind = postgres.address();
        let configure = |process: &Process, port: u16| {
            let (host, behind) = (behind.ip(), behind.port());
            let mut config = format!(
                "[databases]\n* = host={host} port={behind} user=postgres\n[pgbouncer]\n\
                 auth_type = any\nadmin_users = postgres\n"
            );
            for (setting, value) in &self.settings {
                config.push_str(&format!("{setting} = {value}\n"));
            }
            config.push_str(&format!(
                "pool_mode = {pool_mode}\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            ));
            process.write(FILE, &config)
        };
        let server = Server::start(Technology::PgBouncer, process, None, port::free, configure)?;
        Ok(PgBouncer { server })
    }
}
