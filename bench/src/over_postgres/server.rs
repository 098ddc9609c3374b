//! The PostgreSQL server that all sides use, and what it says of itself.

use std::cell::RefCell;

use anyhow::{Context as _, Result};
use locks_test_servers::{Postgres, PostgresOptions};
use rustix::process::Pid;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::runtime::Runtime;

use crate::between::{Store, With, eventually, runtime};
use crate::table::Goal;

/// The role that looks. What it does is not counted.
const OBSERVER: &str = "observer";

/// A private server, which dies with this process, and a connection to look at it.
pub(crate) struct Server {
    postgres: Postgres,
    looks: RefCell<Looks>,
}

struct Looks {
    runtime: Runtime,
    connection: PgConnection,
}

impl Server {
    /// Starts one that does nothing beside its work, and makes it ready, so that there is no grace.
    pub(crate) fn start() -> Result<Self> {
        Self::ready(options(), "")
    }

    /// One that counts statements.
    pub(crate) fn that_counts() -> Result<Self> {
        let options = options()
            .config("shared_preload_libraries", "pg_stat_statements")
            .config("pg_stat_statements.track", "top");
        Self::ready(options, "CREATE EXTENSION pg_stat_statements;")
    }

    fn ready(options: PostgresOptions, extension: &str) -> Result<Self> {
        let postgres = options.start().context("the measurements need a PostgreSQL server")?;
        postgres.ask(&format!("CREATE ROLE {OBSERVER} LOGIN SUPERUSER; {extension}"))?;
        let runtime = runtime()?;
        runtime.block_on(locks_backend_postgres::set_up(postgres.url()))?;
        let connection = runtime.block_on(PgConnection::connect(&observer(&postgres)));
        let connection = connection.context("can't look at the server")?;
        let server = Self { postgres, looks: RefCell::new(Looks { runtime, connection }) };
        eventually("nobody else is connected", || Ok(server.connections()? == 0))?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> Result<Pid> {
        Pid::from_raw(i32::try_from(self.postgres.pid()?)?).context("a server without a process")
    }

    /// How many times a lock was renewed together with others. Needs a server that counts.
    pub(crate) fn renewals(&self) -> Result<u64> {
        self.number(&format!(
            "SELECT coalesce(sum(rows), 0)::bigint FROM pg_stat_statements \
             WHERE userid <> '{OBSERVER}'::regrole AND query LIKE '%renewed_alone%'"
        ))
    }

    /// Bytes of the table of locks, with its index.
    pub(crate) fn table_size(&self) -> Result<u64> {
        self.number("SELECT pg_total_relation_size('locks.lock')")
    }

    /// Opens a transaction that sees the database as it is now, until the connection is dropped.
    pub(crate) fn old_transaction(&self) -> Result<(Runtime, PgConnection)> {
        let runtime = runtime()?;
        let connection = runtime.block_on(async {
            let mut connection = PgConnection::connect(&observer(&self.postgres)).await?;
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class LIMIT 1";
            sqlx::raw_sql(begin).execute(&mut connection).await?;
            anyhow::Ok(connection)
        });
        Ok((runtime, connection.context("can't open a transaction")?))
    }

    fn number(&self, query: &str) -> Result<u64> {
        let Looks { runtime, connection } = &mut *self.looks.borrow_mut();
        let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(query)).fetch_one(connection);
        let number = runtime.block_on(query).context("can't look at the server")?;
        u64::try_from(number).context("a strange number")
    }
}

impl Store for Server {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn url(&self) -> &str {
        self.postgres.url()
    }

    fn locks(&self) -> &str {
        self.postgres.url()
    }

    fn connections(&self) -> Result<usize> {
        let number = self.number(&format!(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> '{OBSERVER}'"
        ))?;
        usize::try_from(number).context("a strange number")
    }

    /// Statements, without those inside functions. Needs a server that counts.
    fn requests(&self, _: With) -> Result<u64> {
        self.number(&format!(
            "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
             WHERE userid <> '{OBSERVER}'::regrole AND toplevel"
        ))
    }

    fn queue(&self, name: &str) -> Result<Vec<u128>> {
        let Looks { runtime, connection } = &mut *self.looks.borrow_mut();
        let query = "SELECT replace(claim::text, '-', '') FROM locks.wait WHERE name = $1 ORDER BY ticket";
        let query = sqlx::query_scalar::<_, String>(query).bind(name).fetch_all(connection);
        let claims = runtime.block_on(query).context("can't see who waits")?;
        claims.iter().map(|claim| u128::from_str_radix(claim, 16).context("a strange claim")).collect()
    }

    fn gap_goal(&self) -> Goal {
        Goal::None
    }
}

/// Enough connections for 512 waiters of each side at the same time.
fn options() -> PostgresOptions {
    Postgres::options().config("max_connections", "2000")
}

fn observer(postgres: &Postgres) -> String {
    format!("postgres://{OBSERVER}@{}/postgres", postgres.address())
}
