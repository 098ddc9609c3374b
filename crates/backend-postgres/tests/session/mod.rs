//! The same server and what can happen to it, for locks that are advisory locks of a session.

use std::net::SocketAddr;
use std::time::Duration;

use locks_api::spi::Guarantees;
use locks_backend_postgres::sqlx::{Connection as _, query, query_scalar};
use locks_backend_postgres::{PostgresOptions, PostgresSessionBackend};
use locks_conformance::{Fault, Harness, SetupError};
use locks_test_servers::Postgres;

use crate::space::{Making as _, Sound, Space, client, eventually, one, setup};

/// A server, or the way to one.
pub(crate) struct Sessions(Space<Sound>);

const MAX_TTL: Duration = Sound::MAX_TTL;

impl Harness for Sessions {
    const NAME: &'static str = "postgres-session";
    type Backend = PostgresSessionBackend;

    fn guarantees() -> Guarantees {
        PostgresSessionBackend::promises(&PostgresOptions::default().max_ttl(MAX_TTL))
    }

    /// On a server that is old enough to grant something.
    async fn start() -> Result<Self, SetupError> {
        let server = Postgres::options().config("max_connections", "300").start().map_err(setup)?;
        let url = format!("{}?mode=session&max_ttl={}ms", server.url(), MAX_TTL.as_millis());
        let is_old = format!(
            "SELECT clock_timestamp() - greatest(pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time()) > '{}ms'",
            MAX_TTL.as_millis()
        );
        eventually("the grace of a new server", || Ok(one(&server, &is_old)?.as_deref() == Some("t")))?;
        Ok(Self(Space::at(url, Some(server))))
    }

    async fn connect(&self) -> locks_api::Result<PostgresSessionBackend> {
        PostgresSessionBackend::from_url(&self.0.url)
    }

    fn worker_url(&self) -> Option<String> {
        self.0.worker_url()
    }

    async fn attach(url: &str) -> Result<Self, SetupError> {
        Ok(Self(Space::at(url.to_owned(), None)))
    }

    fn over_tcp() -> bool {
        true
    }

    fn address(&self) -> Option<SocketAddr> {
        self.0.address()
    }

    async fn connect_through(&self, address: SocketAddr) -> locks_api::Result<PostgresSessionBackend> {
        PostgresSessionBackend::from_url(&self.0.through(address))
    }

    fn worker_url_through(&self, address: SocketAddr) -> Option<String> {
        self.0.worker_url_through(address)
    }

    /// A read-only database is none: nothing is written. There is nobody who listens.
    fn faults() -> &'static [Fault] {
        &[
            Fault::Restart,
            Fault::DataLoss,
            Fault::Revocation,
            Fault::Pause,
            Fault::Promotion,
            Fault::Restore,
            Fault::SessionsCut,
        ]
    }

    async fn checkpoint(&self) -> Result<(), SetupError> {
        self.0.checkpoint().await
    }

    async fn inject(&self, fault: Fault) -> Result<(), SetupError> {
        self.0.inject(fault).await
    }

    /// Ends the session that has the lock.
    async fn revoke(&self, lock: &str) -> Result<(), SetupError> {
        let mut operator = self.0.operator().await?;
        let holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND (classid::bigint << 32) + objid::bigint \
             = ('x' || encode(substr(sha256(convert_to(E'locks\\n\\n' || $1, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint";
        let pid: i32 = query_scalar(holder).bind(lock).fetch_one(&mut operator).await.map_err(client)?;
        let end = query("SELECT pg_terminate_backend($1)");
        end.bind(pid).execute(&mut operator).await.map_err(client)?;
        operator.close().await.map_err(client)
    }

    async fn heal(&self, fault: Fault) -> Result<(), SetupError> {
        self.0.heal(fault).await
    }
}
