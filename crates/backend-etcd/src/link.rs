//! The connection to the cluster: to one member at a time, made when it is needed, and to the next one at the first doubt.
//!
//! Every answer says which cluster gave it and at which revision. A cluster that was made anew or restored from a copy has forgotten grants: that is noticed here.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use locks_api::{Boottime, Error, ErrorKind, Result};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::address::{Login, Way};
use crate::error::{classify, is_fatal, is_lease_gone, is_login_stale, is_without_login};
use crate::known::Known;
use crate::messages::{AuthenticateRequest, Header, RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use crate::rpc::Caller;

/// How long it may take to reach a cluster, and one of several members.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
const MEMBER_WITHIN: Duration = Duration::from_secs(2);

/// How long a member is tried before the next one is tried beside it.
const ALONE_FOR: Duration = Duration::from_millis(250);

/// How many transactions are under way at once. With thousands, each of them would wait so long for all others that none is answered in time.
const AT_ONCE: usize = 8;

/// The first version with transactions inside of transactions that can be relied on.
const OLDEST: (u32, u32) = (3, 4);

/// Where the cluster is and how it is reached.
#[derive(Debug)]
pub(crate) struct Link {
    way: Way,
    session: Mutex<Option<Arc<Session>>>,
    connecting: AsyncMutex<Attempts>,
    identity: Mutex<Identity>,
    /// How often the cluster has turned out to be another one.
    resets: AtomicU64,
    known: Arc<Known>,
    turns: Semaphore,
}

#[derive(Debug, Default)]
struct Attempts {
    /// Whoever waited meanwhile need not fail for itself.
    failed: Option<(Boottime, Error)>,
    /// The member to try first.
    next: usize,
}

/// What is known of the cluster.
#[derive(Debug, Default)]
struct Identity {
    cluster: Option<u64>,
    /// The highest revision that an answer named.
    revision: i64,
}

/// One connection, which is trusted until something is wrong with it.
#[derive(Debug)]
pub(crate) struct Session {
    caller: Caller,
    broken: AtomicBool,
    ended: Notify,
}

/// The way to one of several members.
type Reaching<'a> = Pin<Box<dyn Future<Output = Result<Caller>> + Send + 'a>>;

/// Why a call came to nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It named a lease that is gone. Nothing was done.
    LeaseGone,
    Failed(Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::LeaseGone => Self::new(ErrorKind::Unavailable, "the lease ended meanwhile"),
            Refusal::Failed(error) => error,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Link {
    pub(crate) fn new(way: Way, known: Arc<Known>) -> Self {
        // So that the processes of a crowd don't all go to the first.
        let next = match &way {
            Way::Members { endpoints, .. } => fastrand::usize(..endpoints.len().max(1)),
            Way::Given(_) => 0,
        };
        Self {
            way,
            session: Mutex::default(),
            connecting: AsyncMutex::new(Attempts { failed: None, next }),
            identity: Mutex::default(),
            resets: AtomicU64::new(0),
            known,
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// A connection to a member that serves.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if there is none to be had now; [`ErrorKind::Unsupported`] if what answers is too old;
    /// [`ErrorKind::PermissionDenied`] if it refuses us.
    pub(crate) async fn session(&self) -> Result<Arc<Session>> {
        if let Some(session) = self.present() {
            return Ok(session);
        }
        let asked_at = Boottime::now();
        let mut attempts = self.connecting.lock().await;
        if let Some(session) = self.present() {
            return Ok(session);
        }
        if let Some((at, error)) = &attempts.failed
            && *at >= asked_at
        {
            return Err(error.clone());
        }
        let connected = timeout(CONNECTED_WITHIN, self.connect(&mut attempts.next)).await;
        match connected.unwrap_or_else(|_| Err(silent(CONNECTED_WITHIN))) {
            Ok(caller) => {
                let session =
                    Arc::new(Session { caller, broken: AtomicBool::new(false), ended: Notify::new() });
                self.replace(Some(Arc::clone(&session)));
                Ok(session)
            }
            Err(error) => {
                attempts.failed = Some((Boottime::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Runs a transaction.
    pub(crate) async fn txn(&self, txn: TxnRequest, limit: Duration) -> Result<TxnResponse, Refusal> {
        // Held until the answer has come. Nobody closes it.
        let _turn = self.turns.acquire().await;
        let floor = self.revision();
        let answer = self.call(limit, |caller| async move { caller.txn(txn).await }).await?;
        self.note(answer.header.as_ref(), floor)?;
        Ok(answer)
    }

    /// Reads keys, as they are now.
    pub(crate) async fn range(&self, range: RangeRequest, limit: Duration) -> Result<RangeResponse> {
        let floor = self.revision();
        let answer = self.call(limit, |caller| async move { caller.range(range).await }).await?;
        self.note(answer.header.as_ref(), floor)?;
        Ok(answer)
    }

    /// A call whose answer does not say how far the cluster is, but only the member that gave it: about leases.
    pub(crate) async fn call<T, F>(
        &self,
        limit: Duration,
        ask: impl FnOnce(Caller) -> F,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let session = self.session().await?;
        match timeout(limit, ask(session.caller.clone())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) if is_lease_gone(&status) => Err(Refusal::LeaseGone),
            Ok(Err(status)) if is_login_stale(&status) => {
                session.give_up();
                let why = format!("the login has to be repeated: {}", status.message());
                Err(Refusal::Failed(Error::new(ErrorKind::Unavailable, why)))
            }
            Ok(Err(status)) => {
                if is_fatal(&status) {
                    session.give_up();
                }
                Err(Refusal::Failed(classify(&status)))
            }
            Err(_) => {
                session.give_up();
                Err(Refusal::Failed(silent(limit)))
            }
        }
    }

    /// Looks at what an answer says of the cluster. `floor` is the revision that was known when the question was sent, if the answer can't be older.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if it is another cluster than before, or one that has gone back.
    pub(crate) fn note(&self, header: Option<&Header>, floor: i64) -> Result<()> {
        let Some(header) = header else { return Ok(()) };
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = identity.cluster.is_some_and(|known| known != header.cluster);
        if is_other || header.revision < floor {
            // Those who asked before somebody else noticed it need not notice it again.
            if is_other || identity.revision >= floor {
                self.resets.fetch_add(1, Ordering::AcqRel);
                *identity = Identity { cluster: Some(header.cluster), revision: header.revision };
                drop(identity);
                self.known.reset();
            }
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the cluster was made anew or restored from an older copy; all locks are lost",
            ));
        }
        identity.cluster = Some(header.cluster);
        identity.revision = identity.revision.max(header.revision);
        Ok(())
    }

    /// The highest revision that is known.
    pub(crate) fn revision(&self) -> i64 {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).revision
    }

    /// How often the cluster has turned out to be another one, up to now.
    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Acquire)
    }

    /// The connection, if there is one.
    pub(crate) fn present(&self) -> Option<Arc<Session>> {
        self.current().clone().filter(|session| !session.is_broken())
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        if let Some(session) = self.replace(None) {
            session.give_up();
        }
    }

    fn replace(&self, session: Option<Arc<Session>>) -> Option<Arc<Session>> {
        std::mem::replace(&mut *self.current(), session)
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries the members one after the other, from the next one on. It is the first that serves.
    async fn connect(&self, next: &mut usize) -> Result<Caller> {
        match &self.way {
            Way::Given(channel) => self.look_at(channel.clone(), None).await,
            Way::Members { endpoints, login, secure } => {
                let mut members: Vec<&Endpoint> = endpoints.iter().collect();
                members.rotate_left(*next % endpoints.len().max(1));
                *next = next.wrapping_add(1);
                self.first_of(&members, login.as_ref(), *secure).await
            }
        }
    }

    /// A member that keeps us waiting, as one does that is cut off, does not hold up the next one, which is tried beside it.
    fn first_of<'a>(
        &'a self,
        members: &'a [&Endpoint],
        login: Option<&'a Login>,
        secure: bool,
    ) -> Reaching<'a> {
        Box::pin(async move {
            let [member, others @ ..] = members else {
                return Err(Error::new(ErrorKind::Unavailable, "there is no member"));
            };
            let limit = if others.is_empty() { CONNECTED_WITHIN } else { MEMBER_WITHIN };
            let mut reached = std::pin::pin!(async {
                let reached = timeout(limit, async {
                    let channel = reach(member, secure).await?;
                    self.look_at(channel, login).await
                });
                reached.await.unwrap_or_else(|_| Err(silent(limit)))
            });
            if others.is_empty() {
                return reached.await;
            }
            let early = timeout(ALONE_FOR, &mut reached).await;
            let mut next = self.first_of(others, login, secure);
            if let Ok(reached) = early {
                return or_else(reached, next).await;
            }
            loop {
                tokio::select! {
                    reached = &mut reached => return or_else(reached, next).await,
                    reached_next = &mut next => match reached_next {
                        // Those that answer may be about to elect a leader, while this one says nothing.
                        Err(error) if error.kind() == ErrorKind::Unavailable => {
                            if let Ok(reached) = timeout(ALONE_FOR, &mut reached).await {
                                return reached;
                            }
                            next = self.first_of(others, login, secure);
                        }
                        reached_next => return reached_next,
                    },
                }
            }
        })
    }

    /// Logs in, and asks the member how it is.
    async fn look_at(&self, channel: Channel, login: Option<&Login>) -> Result<Caller> {
        let mut caller = Caller::new(channel);
        if let Some(Login { user, password }) = login {
            let login = AuthenticateRequest { name: user.clone(), password: password.clone() };
            match caller.authenticate(login).await {
                Ok(answer) => caller = caller.logged_in(&answer.token)?,
                // Like etcd's own clients: a cluster without users takes everybody.
                Err(status) if is_without_login(&status) => {}
                Err(status) => return Err(classify(&status)),
            }
        }
        let status = caller.status().await.map_err(|status| classify(&status))?;
        check_version(&status.version)?;
        if status.leader == 0 {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the member has no leader; the cluster may have lost its quorum",
            ));
        }
        self.note(status.header.as_ref(), 0)?;
        Ok(caller)
    }
}

impl Session {
    pub(crate) fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// Comes back once the connection is of no more use.
    pub(crate) async fn ended(&self) {
        let mut ended = std::pin::pin!(self.ended.notified());
        // Listens before it looks, so that no end falls between.
        ended.as_mut().enable();
        if !self.is_broken() {
            ended.await;
        }
    }

    pub(crate) fn give_up(&self) {
        self.broken.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

/// What was reached, or what the other attempt comes to if this one found nobody there. What one member refuses all of them do.
async fn or_else(reached: Result<Caller>, other: impl Future<Output = Result<Caller>>) -> Result<Caller> {
    match reached {
        Err(error) if error.kind() == ErrorKind::Unavailable => other.await,
        reached => reached,
    }
}

async fn reach(endpoint: &Endpoint, secure: bool) -> Result<Channel> {
    let endpoint = if secure { secured(endpoint)? } else { endpoint.clone() };
    endpoint.connect().await.map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("no connection to {}", endpoint.uri())).with_source(error)
    })
}

#[cfg(feature = "rustls")]
fn secured(endpoint: &Endpoint) -> Result<Endpoint> {
    let tls = tonic::transport::ClientTlsConfig::new().with_native_roots();
    endpoint.clone().tls_config(tls).map_err(|error| {
        Error::new(ErrorKind::Config, "the system's certificates can't be used").with_source(error)
    })
}

#[cfg(not(feature = "rustls"))]
fn secured(_: &Endpoint) -> Result<Endpoint> {
    Err(Error::new(ErrorKind::Config, "TLS is off in this build"))
}

fn check_version(version: &str) -> Result<()> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            format!("the cluster is etcd {version:?}; locks need etcd 3.4 or later"),
        )),
    }
}

fn silent(limit: Duration) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the cluster did not answer within {limit:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        let (way, _) = crate::address::parse("etcd://localhost").unwrap();
        Link::new(way, Arc::new(Known::new(crate::keys::Keys::new("locks"))))
    }

    fn header(cluster: u64, revision: i64) -> Header {
        Header { cluster, revision, term: 1 }
    }

    #[test]
    fn a_cluster_that_went_back_is_noticed_once() {
        let link = link();
        link.note(Some(&header(1, 100)), 0).unwrap();
        // A member that lags, in an answer that may be old.
        link.note(Some(&header(1, 90)), 0).unwrap();
        assert_eq!((link.revision(), link.resets()), (100, 0));
        let floor = link.revision();
        for _ in 0..2 {
            let error = link.note(Some(&header(1, 90)), floor).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert_eq!((link.revision(), link.resets()), (90, 1));
        }
        link.note(Some(&header(1, 91)), 90).unwrap();
        assert!(link.note(Some(&header(2, 500)), 0).is_err());
        assert_eq!((link.revision(), link.resets()), (500, 2));
    }

    #[test]
    fn old_versions_are_refused() {
        for version in ["3.4.23", "3.5.0-rc.1", "4.0.0"] {
            check_version(version).unwrap();
        }
        for version in ["3.3.27", "2.3", "", "x.y"] {
            assert_eq!(check_version(version).unwrap_err().kind(), ErrorKind::Unsupported, "{version}");
        }
    }
}
