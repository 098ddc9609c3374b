//! A lock space on a real server of its own, and all that can happen to it.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use locks_api::spi::Guarantees;
use locks_backend_postgres::sqlx::postgres::PgConnection;
use locks_backend_postgres::sqlx::{self, Connection as _, query, query_scalar};
use locks_backend_postgres::{PostgresBackend, PostgresOptions};
use locks_conformance::{Fault, Harness, SetupError};
use locks_test_servers::{BaseBackup, Postgres};

/// What may be wrong with the backend.
pub(crate) trait Making: Send + Sync + 'static {
    /// The harness.
    const NAME: &'static str;

    /// The largest ttl, and the grace: short, so that cases are.
    const MAX_TTL: Duration = Duration::from_secs(4);

    /// Whether grants are on disk.
    const DURABLE: bool = false;

    /// The SQL, as this making has it.
    fn edit(sql: &str) -> String {
        sql.to_owned()
    }
}

/// As it is.
pub(crate) struct Sound;

impl Making for Sound {
    const NAME: &'static str = "postgres";
}

/// A server, or the way to one.
pub(crate) struct Space<M> {
    /// With the options, for everybody who shares the space.
    pub(crate) url: String,
    /// In the process that started it: the server that has the address now.
    server: Mutex<Option<Postgres>>,
    remembered: Mutex<Option<Remembered>>,
    making: PhantomData<M>,
}

/// The server's state at the last checkpoint.
struct Remembered {
    /// It has everything up to then, and has followed nobody since.
    standby: Postgres,
    /// Of the server itself.
    backup: BaseBackup,
}

impl<M: Making> Space<M> {
    pub(crate) fn at(url: String, server: Option<Postgres>) -> Self {
        Self { url, server: Mutex::new(server), remembered: Mutex::default(), making: PhantomData }
    }

    fn backend(url: &str) -> locks_api::Result<PostgresBackend> {
        Ok(PostgresBackend::from_url(url)?.with_sql(M::edit))
    }

    /// The same space, reached by another address.
    pub(crate) fn through(&self, address: SocketAddr) -> String {
        let (_, options) = self.url.split_once('?').unwrap_or_default();
        format!("postgres://postgres@{address}/postgres?{options}")
    }

    /// A connection as an operator has one.
    pub(crate) async fn operator(&self) -> Result<PgConnection, SetupError> {
        let (url, _) = self.url.split_once('?').unwrap_or_default();
        PgConnection::connect(url).await.map_err(client)
    }

    /// Ends these sessions, and waits until they are gone.
    async fn cut(&self, which: &str) -> Result<(), SetupError> {
        let mut operator = self.operator().await?;
        let others = "backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let which = format!("SELECT pid FROM pg_stat_activity WHERE {others} AND {which}");
        let which = query_scalar(sqlx::AssertSqlSafe(which));
        let ended: Vec<i32> = which.fetch_all(&mut operator).await.map_err(client)?;
        // In a statement of its own: conditions are tried in any order.
        let end = query("SELECT pg_terminate_backend(pid) FROM unnest($1) AS pid");
        end.bind(&ended).execute(&mut operator).await.map_err(client)?;
        let until = Instant::now() + LIMIT;
        let left = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)";
        while query_scalar::<_, i64>(left).bind(&ended).fetch_one(&mut operator).await.map_err(client)? > 0 {
            if Instant::now() > until {
                return Err(SetupError::new(format!("sessions that were ended are there after {LIMIT:?}")));
            }
            thread::park_timeout(POLL);
        }
        operator.close().await.map_err(client)
    }

    fn with_server<T>(
        &self,
        act: impl FnOnce(&mut Postgres) -> Result<T, SetupError>,
    ) -> Result<T, SetupError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        act(server.as_mut().ok_or_else(|| SetupError::new("the server belongs to another process"))?)
    }

    fn remembered(&self) -> MutexGuard<'_, Option<Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_read_only(&self, value: &str) -> Result<(), SetupError> {
        const SETTING: &str = "default_transaction_read_only";
        self.with_server(|server| {
            server.configure(SETTING, value).map_err(setup)?;
            eventually("the change of a setting", || {
                Ok(one(server, &format!("SHOW {SETTING}"))?.as_deref() == Some(value))
            })
        })
    }

    /// Lets the standby take the server's place and port, as it was at the checkpoint.
    fn promote(&self) -> Result<(), SetupError> {
        let remembered = self.remembered().take();
        let Remembered { mut standby, .. } = remembered.ok_or_else(no_checkpoint)?;
        self.with_server(|server| {
            server.kill().map_err(setup)?;
            standby.promote().map_err(setup)?;
            standby.kill().map_err(setup)?;
            standby.start_again_on(server.port()).map_err(setup)?;
            *server = standby;
            Ok(())
        })
    }

    fn restore(&self) -> Result<(), SetupError> {
        let remembered = self.remembered().take();
        let Remembered { backup, .. } = remembered.ok_or_else(no_checkpoint)?;
        self.with_server(|server| {
            server.kill().map_err(setup)?;
            server.restore(backup).map_err(setup)?;
            server.start_again().map_err(setup)
        })
    }
}

impl<M: Making> Harness for Space<M> {
    const NAME: &'static str = M::NAME;
    type Backend = PostgresBackend;

    fn guarantees() -> Guarantees {
        PostgresBackend::promises(&PostgresOptions::default().max_ttl(M::MAX_TTL))
    }

    async fn start() -> Result<Self, SetupError> {
        let server = Postgres::options().config("max_connections", "300").start().map_err(setup)?;
        let durable = if M::DURABLE { "on" } else { "off" };
        let url = format!("{}?max_ttl={}ms&durable={durable}", server.url(), M::MAX_TTL.as_millis());
        Self::backend(&url)?.set_up().await?;
        Ok(Self::at(url, Some(server)))
    }

    async fn connect(&self) -> locks_api::Result<PostgresBackend> {
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
        self.url.split(['@', '/']).nth(3)?.parse().ok()
    }

    async fn connect_through(&self, address: SocketAddr) -> locks_api::Result<PostgresBackend> {
        Self::backend(&self.through(address))
    }

    fn worker_url_through(&self, address: SocketAddr) -> Option<String> {
        Some(self.through(address))
    }

    fn faults() -> &'static [Fault] {
        &[
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
        let remembered = self.with_server(|server| {
            let mut standby = server.standby().map_err(setup)?;
            let backup = server.base_backup().map_err(setup)?;
            standby.catch_up_with(server).map_err(setup)?;
            standby.stop_following().map_err(setup)?;
            Ok(Remembered { standby, backup })
        })?;
        *self.remembered() = Some(remembered);
        Ok(())
    }

    async fn inject(&self, fault: Fault) -> Result<(), SetupError> {
        match fault {
            Fault::ReadOnly => self.set_read_only("on"),
            Fault::Restart => self.with_server(|server| {
                server.kill().map_err(setup)?;
                server.start_again().map_err(setup)
            }),
            // One process is enough, and the server seems to have been up all the time.
            Fault::DataLoss => self.with_server(|server| {
                let writer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'";
                let writer = one(server, writer)?.and_then(|pid| pid.parse().ok());
                let writer = writer.ok_or_else(|| SetupError::new("there is no background writer"))?;
                server.kill_one_backend(writer).map_err(setup)
            }),
            Fault::Restore => self.restore(),
            Fault::Promotion => self.promote(),
            Fault::Pause => self.with_server(|server| server.pause().map_err(setup)),
            Fault::SessionsCut => self.cut("true").await,
            Fault::ListenersCut => self.cut("application_name = 'locks listener'").await,
            other => Err(SetupError::new(format!("no way to inject {other}"))),
        }
    }

    async fn revoke(&self, lock: &str) -> Result<(), SetupError> {
        let mut operator = self.operator().await?;
        for table in ["hold", "lock"] {
            let delete = sqlx::AssertSqlSafe(format!("DELETE FROM locks.{table} WHERE name = $1"));
            query(delete).bind(lock).execute(&mut operator).await.map_err(client)?;
        }
        operator.close().await.map_err(client)
    }

    async fn heal(&self, fault: Fault) -> Result<(), SetupError> {
        match fault {
            Fault::ReadOnly => self.set_read_only("off"),
            Fault::Pause => self.with_server(|server| server.resume().map_err(setup)),
            other => Err(SetupError::new(format!("no way to heal {other}"))),
        }
    }
}

/// How long anything may take. Generous: it only ends what hangs.
const LIMIT: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(5);

/// The only value of an answer.
pub(crate) fn one(server: &Postgres, question: &str) -> Result<Option<String>, SetupError> {
    let rows = server.ask(question).map_err(setup)?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
}

/// Looks until it is so.
pub(crate) fn eventually(
    what: &str,
    mut is_so: impl FnMut() -> Result<bool, SetupError>,
) -> Result<(), SetupError> {
    let until = Instant::now() + LIMIT;
    while !is_so()? {
        if Instant::now() > until {
            return Err(SetupError::new(format!("{what} took longer than {LIMIT:?}")));
        }
        thread::park_timeout(POLL);
    }
    Ok(())
}

fn no_checkpoint() -> SetupError {
    SetupError::new("no checkpoint was made")
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn setup(error: locks_test_servers::Error) -> SetupError {
    SetupError::new(error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn client(error: sqlx::Error) -> SetupError {
    SetupError::new(format!("what an operator would do: {error}"))
}
