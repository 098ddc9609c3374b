//! `mode=session`: advisory locks of one session, without tables.

mod holds;
mod keeper;
mod key;
mod line;
mod server;
mod transaction;
mod waiters;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, CrashRelease, Events, Fairness, Grant, Guarantees, Inline,
    LossDetection, Offers, Released, Renewed, Restart, Result, Scope, async_trait,
};
use locks_api::{Error, ErrorKind, Holder, LockName};
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPool};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::address::{self, Address, Mode};
use crate::backend::{PATIENCE, patience, spread, ttl};
use crate::options::PostgresOptions;
use keeper::{Keeper, Request, Shared};
use key::Keys;
use server::Known;
pub use transaction::AcquireIn;

/// How many locks one [`PostgresSessionBackend`] holds at most. Each takes the room of two locks in the server's lock table, which has room for some twelve thousand with the default
/// settings, and which the locks on its tables need, too.
pub(crate) const MOST_LOCKS: usize = 1000;

/// Locks in a PostgreSQL database that are session advisory locks (`pg_advisory_lock`): `mode=session`.
///
/// A holder that dies frees its locks at once, there are no tables, and programs that take advisory locks by themselves can take part. For
/// the price see the page of the backend: exclusive locks only, up to 1000 at a time, no order between processes, no pooler, and a connection that
/// is cut costs all locks that were taken over it.
///
/// Makes one connection of its own, when the first lock is asked for.
#[derive(Debug)]
pub struct PostgresSessionBackend {
    place: Arc<Place>,
    shared: Arc<Shared>,
    keeper: Mutex<Option<(mpsc::UnboundedSender<Request>, JoinHandle<()>)>>,
    /// What transactions of the user's are compared with.
    known: Mutex<Known>,
    guarantees: Guarantees,
}

/// Where the database is, and how locks are kept in it.
#[derive(Debug)]
pub(crate) struct Place {
    client: PgConnectOptions,
    options: PostgresOptions,
}

impl Place {
    fn new(client: PgConnectOptions, options: PostgresOptions) -> Self {
        let client = client.extra_float_digits(None).disable_statement_logging();
        Self { client, options }
    }

    fn max_ttl(&self) -> Duration {
        self.options.max_ttl
    }

    fn keys(&self, name: &LockName) -> Keys {
        Keys::of(name, &self.options)
    }

    /// For a session that the server ends one `max_ttl` after the last word from us: it takes nobody for dead sooner.
    fn client(&self) -> PgConnectOptions {
        let millis = self.max_ttl().as_millis().to_string();
        let seconds = self.max_ttl().as_secs().saturating_add(1).to_string();
        self.client.clone().application_name(&said_of_us()).options([
            ("idle_session_timeout", &*millis),
            ("tcp_keepalives_idle", &*seconds),
            ("tcp_keepalives_interval", &*seconds),
            ("tcp_user_timeout", "0"),
            ("client_connection_check_interval", "0"),
            ("statement_timeout", "0"),
            ("search_path", "pg_catalog"),
            ("default_transaction_isolation", "read committed"),
            ("plan_cache_mode", "force_generic_plan"),
            ("jit", "off"),
        ])
    }
}

/// What everybody sees of our sessions: `locks <pid> <host>`. The server keeps 63 bytes of ASCII.
fn said_of_us() -> String {
    let us = Holder::this_process();
    let pid = us.pid.unwrap_or_default();
    let host = us.host.unwrap_or_default().replace(|c: char| !c.is_ascii_graphic(), "_");
    format!("locks {pid} {host}").chars().take(63).collect()
}

impl PostgresSessionBackend {
    /// The database that this URL names: `postgres://user:password@host:5432/database?mode=session`. Options go behind the `?`: `schema` and `prefix` choose
    /// which keys stand for names, `max_ttl` and `restart_grace=off` are as in [`PostgresOptions`], and then there are the client's own.
    ///
    /// Does no I/O: the server is reached when the first lock is asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the URL or an option makes no sense, or is of another mode.
    ///
    /// ```
    /// use locks_backend_postgres::PostgresSessionBackend;
    ///
    /// let backend = PostgresSessionBackend::from_url("postgres://app@localhost/app?mode=session")?;
    /// assert!(PostgresSessionBackend::from_url("postgres://app@localhost/app").is_err());
    /// # Ok::<(), locks_api::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        let address = address::parse(url)?;
        match address.mode {
            Mode::Session => Ok(Self::new(address)),
            Mode::Lease => Err(Error::new(ErrorKind::Config, "the URL does not say mode=session")),
        }
    }

    /// The database that this pool's connections reach, with its login and TLS settings. Does no I/O. The pool's connections are not used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if an option makes no sense; `durable` is none of this mode.
    pub fn from_pool(pool: &PgPool, options: PostgresOptions) -> Result<Self> {
        options.check()?;
        options.check_session()?;
        let steps = address::secured((*pool.connect_options()).clone())?;
        Ok(Self::new(Address { steps, listen: None, mode: Mode::Session, options }))
    }

    pub(crate) fn new(address: Address) -> Self {
        let guarantees = Self::promises(&address.options);
        Self {
            place: Arc::new(Place::new(address.steps, address.options)),
            shared: Arc::default(),
            keeper: Mutex::default(),
            known: Mutex::default(),
            guarantees,
        }
    }

    /// What a backend with these options promises.
    pub fn promises(options: &PostgresOptions) -> Guarantees {
        Guarantees::new("postgres", Scope::Cluster)
            .with_ttl(options.limits())
            .with_crash_release(CrashRelease::AtOnce)
            .with_fairness(Fairness::None)
            .with_loss(LossDetection::Pushed)
            .with_restart(Restart::Grace)
            .with_offers(Offers::NONE)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the task that has the session, which is started if it is not there.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request + Send,
        limit: Duration,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        {
            let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
            let (requests, _) = keeper.get_or_insert_with(|| {
                let (requests, asked) = mpsc::unbounded_channel();
                let keeper = Keeper::new(Arc::clone(&self.place), Arc::clone(&self.shared), asked);
                (requests, tokio::spawn(keeper.run()))
            });
            // Without a task there is no answer either.
            drop(requests.send(request(answer)));
        }
        match timeout(limit, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(gone()),
            Err(_) => {
                Err(Error::new(ErrorKind::Unavailable, format!("the server did not answer within {limit:?}")))
            }
        }
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "the session is gone")
}

#[async_trait]
impl Backend for PostgresSessionBackend {
    fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    fn subscribe(&self, events: Events) {
        self.shared.events.get_or_init(|| events);
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        let limit = patience(claims.iter().filter_map(|claim| claim.ttl));
        let (session, attempts) = self.ask(|answer| Request::Acquire(claims.to_vec(), answer), limit).await?;
        // That the session is gone was told before this is read, and then it concerned no grant yet.
        if self.shared.session() == session { Ok(attempts) } else { Err(gone()) }
    }

    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        let limit = patience(claims.iter().filter_map(|claim| claim.ttl));
        let ids = claims.iter().map(|claim| claim.id).collect();
        self.ask(|answer| Request::Cancel(ids, answer), limit).await?;
        Ok(claims.iter().map(|_| Ok(())).collect())
    }

    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        let limit = patience(grants.iter().filter_map(ttl));
        let released = self.ask(|answer| Request::Release(grants.to_vec(), answer), limit).await;
        Ok(spread(released.map(|released| released.into_iter().map(Ok).collect()), grants.len()))
    }

    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        let limit = patience(grants.iter().filter_map(ttl));
        self.ask(|answer| Request::Renew(grants.to_vec(), answer), limit).await
    }

    async fn close(&self) -> Result<()> {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((requests, mut task)) = keeper {
            drop(requests);
            if timeout(PATIENCE, &mut task).await.is_err() {
                task.abort();
            }
        }
        Ok(())
    }

    fn inline(&self) -> Option<&dyn Inline> {
        None
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
    }
}
