//! The connections to the database: made when they are needed, looked at before anything is granted over them, given up at the first doubt.
//!
//! Two carry the steps of a `Locks`, renewals apart from the rest, so that nothing is in their way; a third one [listens](crate::listener). None is from a
//! pool. What an epoch record can tell is looked at in every step itself, since a pooler replaces connections unseen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use locks_api::{Boottime, Error, ErrorKind, Result};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

use crate::address::Address;
use crate::error::{classify, ends_connection, is_from_a_pooler, is_missing};
use crate::listener::Listener;
use crate::options::PostgresOptions;
use crate::schema::{self, Sql, fresh_epoch};

/// How long it may take to connect, on a line on which a single answer takes longer than a step may.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// For so long nobody tries again what has just failed: the rest of a long list need not fail piece by piece.
const JUST_NOW: Duration = Duration::from_millis(20);

/// The oldest server whose behaviour the tests know.
const OLDEST: i32 = 140_000;

/// Sent with a connection, or through a pooler with every step.
const SETTINGS: [(&str, &str); 11] = [
    // Another transaction that has a lock's row costs a step that long, and nobody else anything.
    ("lock_timeout", "200ms"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("default_transaction_isolation", "read committed"),
    ("synchronous_commit", "on"),
    ("search_path", "pg_catalog"),
    ("plan_cache_mode", "force_generic_plan"),
    // A plan made while a table is small serves it for long. And only a plain scan of an index leaves marks at the rows of those who waited
    // once, so that the next one passes over them.
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("jit", "off"),
    ("tcp_keepalives_idle", "15"),
    ("tcp_keepalives_interval", "5"),
];

/// The same for one transaction.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '200ms'; SET LOCAL synchronous_commit = on; \
                     SET LOCAL search_path = pg_catalog; SET LOCAL jit = off; SET LOCAL enable_seqscan = off; \
                     SET LOCAL enable_bitmapscan = off";

/// Where the database is and how it is reached.
#[derive(Debug)]
pub(crate) struct Link {
    client: PgConnectOptions,
    options: PostgresOptions,
    sql: Sql,
    listener: Arc<Listener>,
    steps: AsyncMutex<Lane>,
    renewals: AsyncMutex<Lane>,
    /// Whether a pooler is between us and the server.
    pooled: AtomicBool,
    epoch: Mutex<Option<i64>>,
    closed: AtomicBool,
}

/// One connection, or none yet.
#[derive(Debug, Default)]
struct Lane {
    connection: Option<PgConnection>,
    /// Whoever waited meanwhile need not fail for itself.
    failed: Option<(Boottime, Error)>,
    /// Whether there has been one: from then on a replica is a fail-over and no mistake.
    succeeded: bool,
}

/// What goes which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Steps,
    Renewals,
}

/// How a new epoch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// As the options say.
    Cautious,
    /// An operator says that the store is new: it needs no grace.
    New,
}

impl Link {
    pub(crate) fn new(address: Address, edit: impl Fn(&str) -> String) -> Self {
        let Address { steps, listen, options, .. } = address;
        let client = steps.application_name("locks").extra_float_digits(None).disable_statement_logging();
        let listen = listen.map(|listen| listen.extra_float_digits(None).disable_statement_logging());
        let is_direct = listen.is_some();
        let listener = Arc::new(Listener::new(listen.unwrap_or_else(|| client.clone()), is_direct));
        Self {
            sql: Sql::new(&options, edit),
            client,
            options,
            listener,
            steps: AsyncMutex::default(),
            renewals: AsyncMutex::default(),
            pooled: AtomicBool::new(false),
            epoch: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn edit_sql(&mut self, edit: impl Fn(&str) -> String) {
        self.sql = Sql::new(&self.options, edit);
    }

    pub(crate) fn sql(&self) -> &Sql {
        &self.sql
    }

    pub(crate) fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    /// The epoch that this process knows; 0, in which nothing is granted, before it knows one.
    pub(crate) fn epoch(&self) -> i64 {
        self.known_epoch().unwrap_or(0)
    }

    /// Runs one statement and returns its rows. `arguments` is asked again when the statement is sent again, with the epoch that is known then.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if it may have run and no answer came. Whatever the server refused it with. `Err(Ok(error))` is the client's own error
    /// of a statement that the server refused.
    pub(crate) async fn run(
        &self,
        way: Way,
        statement: &Arc<str>,
        arguments: impl Fn(i64) -> sqlx::Result<PgArguments> + Send,
        limit: Duration,
    ) -> std::result::Result<Vec<PgRow>, Refusal> {
        let asked_at = Boottime::now();
        let mut lane = match way {
            Way::Steps => self.steps.lock().await,
            Way::Renewals => {
                let mut lane = self.renewals.lock().await;
                if self.connection(&mut lane, asked_at).await.is_ok() {
                    lane
                } else {
                    // No connection more is to be had: better late than never.
                    drop(lane);
                    self.steps.lock().await
                }
            }
        };
        let connection = self.connection(&mut lane, asked_at).await?;
        let arguments = arguments(self.epoch()).map_err(Refusal::by_client)?;
        let pooled = self.pooled.load(Ordering::Relaxed);
        match timeout(limit, ask(connection, pooled, statement, arguments)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => {
                if ends_connection(&error) {
                    lane.connection = None;
                }
                Err(Refusal::by_client(error))
            }
            Err(_) => {
                lane.connection = None;
                Err(Refusal::from(silent(limit)))
            }
        }
    }

    /// Opens the store's present epoch. To be called when a step says that the epoch is not the one we know.
    pub(crate) async fn reopen(&self, beginning: Beginning) -> Result<()> {
        let asked_at = Boottime::now();
        let mut lane = self.steps.lock().await;
        let connection = self.connection(&mut lane, asked_at).await?;
        let opened = timeout(CONNECTED_WITHIN, self.open_epoch(connection, beginning)).await;
        let opened = opened.unwrap_or_else(|_| Err(silent(CONNECTED_WITHIN)));
        if opened.is_err() {
            lane.connection = None;
        }
        opened
    }

    /// Whether a pooler is between us and the server, once that is known.
    pub(crate) fn is_pooled(&self) -> bool {
        self.pooled.load(Ordering::Relaxed)
    }

    /// Ends the connections.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.listener.close();
        for lane in [&self.steps, &self.renewals] {
            if let Some(connection) = lane.lock().await.connection.take() {
                // The server notices either way.
                drop(connection.close().await);
            }
        }
    }

    async fn connection<'a>(&self, lane: &'a mut Lane, asked_at: Boottime) -> Result<&'a mut PgConnection> {
        if lane.connection.is_none() {
            if let Some((at, error)) = &lane.failed
                && (*at >= asked_at || asked_at.since(*at) < JUST_NOW)
            {
                return Err(error.clone());
            }
            let connected = timeout(CONNECTED_WITHIN, self.connect(lane.succeeded)).await;
            match connected.unwrap_or_else(|_| Err(silent(CONNECTED_WITHIN))) {
                Ok(connection) => {
                    lane.connection = Some(connection);
                    lane.succeeded = true;
                }
                Err(error) => lane.failed = Some((Boottime::now(), error.clone())),
            }
        }
        let failed = lane.failed.as_ref().map(|(_, error)| error.clone());
        lane.connection.as_mut().ok_or_else(|| failed.unwrap_or_else(|| silent(CONNECTED_WITHIN)))
    }

    /// A connection to a database that has been looked at, in its present epoch.
    async fn connect(&self, succeeded: bool) -> Result<PgConnection> {
        let mut connection = self.reach().await.map_err(classify)?;
        let look = self.sql.look();
        let row = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(look))).await.map_err(classify)?;
        let read = |error| classify(error);
        let version: i32 = row.try_get("version").map_err(read)?;
        if version < OLDEST {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the server is PostgreSQL {}; locks need PostgreSQL 14 or later", version / 10_000),
            ));
        }
        if row.try_get("replica").map_err(read)? {
            return Err(if succeeded { demoted() } else { replica() });
        }
        if !self.is_pooled() && !row.try_get::<bool, _>("direct").map_err(read)? {
            self.note_pooler();
        }
        if !row.try_get::<bool, _>("there").map_err(read)? {
            self.set_up(&mut connection).await?;
        }
        self.open_epoch(&mut connection, Beginning::Cautious).await?;
        Ok(connection)
    }

    async fn reach(&self) -> sqlx::Result<PgConnection> {
        if !self.is_pooled() {
            match PgConnection::connect_with(&self.client.clone().options(SETTINGS)).await {
                Err(error) if is_from_a_pooler(&error) => self.note_pooler(),
                result => return result,
            }
        }
        PgConnection::connect_with(&self.client.clone().statement_cache_capacity(0)).await
    }

    fn note_pooler(&self) {
        if !self.pooled.swap(true, Ordering::Relaxed) {
            self.listener.note_pooler();
        }
    }

    async fn set_up(&self, connection: &mut PgConnection) -> Result<()> {
        match connection.execute(sqlx::raw_sql(AssertSqlSafe(self.sql.set_up()))).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = classify(error);
                if error.kind() != ErrorKind::PermissionDenied {
                    return Err(error);
                }
                Err(Error::new(
                    ErrorKind::PermissionDenied,
                    format!(
                        "there are no tables for locks in schema {:?} yet, and this role may not make them: run `locks setup URL` with a role \
                         that may, or `locks setup --print URL` for the SQL",
                        self.options.schema
                    ),
                )
                .with_source(error))
            }
        }
    }

    /// Finds the epoch of this incarnation of the store, or begins it, with a grace: it may have forgotten grants.
    async fn open_epoch(&self, connection: &mut PgConnection, beginning: Beginning) -> Result<()> {
        let means = match (beginning, self.options.restart_grace) {
            (Beginning::New, _) => "new",
            (Beginning::Cautious, true) => "grace",
            (Beginning::Cautious, false) => "off",
        };
        let open = self.sql.open_epoch(fresh_epoch(), means);
        let row = match connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(open))).await {
            Ok(row) => row,
            // Tables of another version have other functions.
            Err(error) if is_missing(&error) => {
                let version = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(self.sql.version()))).await;
                self.check(&version.map_err(classify)?)?;
                return Err(classify(error));
            }
            Err(error) => return Err(classify(error)),
        };
        self.check(&row)?;
        let id: i64 = row.try_get("id").map_err(classify)?;
        let known = self.known_epoch().replace(id);
        if known.is_some_and(|known| known != id) {
            self.listener.reset();
        }
        Ok(())
    }

    /// Fails if the tables are not for this program, or others use them in another way.
    fn check(&self, row: &PgRow) -> Result<()> {
        let number = |name| row.try_get::<i32, _>(name).map_err(classify);
        let (version, oldest) = (number("version")?, number("oldest")?);
        if schema::VERSION < oldest {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the tables in schema {:?} are of version {version} and need a program of version {oldest} or later; this one is of {}: \
                     update it",
                    self.options.schema,
                    schema::VERSION
                ),
            ));
        }
        let max_ttl: i64 = row.try_get("max_ttl").map_err(classify)?;
        let durable: bool = row.try_get("durable").map_err(classify)?;
        let asked = i64::try_from(self.options.max_ttl.as_micros()).unwrap_or(i64::MAX);
        if max_ttl != asked || durable != self.options.durable {
            let on = |durable| if durable { "on" } else { "off" };
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "schema {:?} was set up with max_ttl={}ms and durable={}, and this process asks for max_ttl={}ms and durable={}; all \
                     who share it must ask for the same",
                    self.options.schema,
                    max_ttl / 1000,
                    on(durable),
                    asked / 1000,
                    on(self.options.durable)
                ),
            ));
        }
        Ok(())
    }

    fn known_epoch(&self) -> MutexGuard<'_, Option<i64>> {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a statement has no rows to show.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    /// Whether another transaction has a row that it needed, for longer than a step waits. It did not happen.
    pub(crate) is_locked: bool,
}

impl Refusal {
    fn by_client(error: sqlx::Error) -> Self {
        Self { is_locked: crate::error::is_locked(&error), error: classify(error) }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, is_locked: false }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

async fn ask(
    connection: &mut PgConnection,
    pooled: bool,
    statement: &Arc<str>,
    arguments: PgArguments,
) -> sqlx::Result<Vec<PgRow>> {
    let query = sqlx::query_with(AssertSqlSafe(Arc::clone(statement)), arguments);
    if !pooled {
        return query.fetch_all(connection).await;
    }
    // A pooler keeps one server for a transaction, and for no longer.
    connection.execute(sqlx::raw_sql(BEGIN)).await?;
    match query.persistent(false).fetch_all(&mut *connection).await {
        Ok(rows) => {
            connection.execute(sqlx::raw_sql("COMMIT")).await?;
            Ok(rows)
        }
        Err(error) => {
            if !ends_connection(&error) {
                connection.execute(sqlx::raw_sql("ROLLBACK")).await?;
            }
            Err(error)
        }
    }
}

fn silent(limit: Duration) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the server did not answer within {limit:?}"))
}

fn demoted() -> Error {
    Error::new(ErrorKind::Unavailable, "the server has become a read-only replica")
}

fn replica() -> Error {
    Error::new(ErrorKind::Unsupported, "the server is a read-only replica; locks need the primary")
}
