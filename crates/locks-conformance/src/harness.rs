//! What a backend author implements, and its type-erased form that the cases see.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;

use async_trait::async_trait;
use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, Events, Grant, Guarantees, Inline, Released, Renewed,
    Result as StepResult,
};
use locks_api::{Error, ErrorKind};

/// How the kit reaches one backend: implement it and hand it to [`main!`](crate::main).
///
/// A value stands for one *lock space*: all connections to it contend for the same locks. The kit runs each case in a
/// process of its own. A space with a [`worker_url`](Self::worker_url) is [started](Self::start) once by the parent, and every other
/// process [attaches](Self::attach) to it; a space without one is started anew in each case's process.
///
/// Cases use names of their own, so that they share a space without meeting. A case that injects a [`Fault`] which strikes more than
/// one lock has a space to itself: it is started in the case's process, and the case's workers attach to it.
pub trait Harness: Send + Sync + Sized + 'static {
    /// How it is called in test names and reports, such as `"redis"`. One word, unique in the binary.
    const NAME: &'static str;

    /// The backend under test.
    type Backend: Backend;

    /// What the backend promises, equal to what its connections say. Called to list cases: MUST NOT do I/O.
    fn guarantees() -> Guarantees;

    /// Makes a lock space that nobody else uses. It goes when the value is dropped; a process that is killed drops nothing, so
    /// server processes that belong to the space SHOULD be made to end with the process that started them.
    ///
    /// # Errors
    ///
    /// [`SetupError`] when the environment lacks something. The case then fails: it is never passed over in silence.
    fn start() -> impl Future<Output = Result<Self, SetupError>> + Send;

    /// A new connection to the space. Every call MUST make one that shares nothing with earlier ones but the store.
    ///
    /// # Errors
    ///
    /// As the backend's own way to connect.
    fn connect(&self) -> impl Future<Output = locks_api::Result<Self::Backend>> + Send;

    /// How another process [attaches](Self::attach) to this space. `None` exactly if the
    /// [scope](Guarantees::scope) is one process.
    fn worker_url(&self) -> Option<String> {
        None
    }

    /// Reaches the space that `url`, from [`worker_url`](Self::worker_url), names. Dropping the value leaves the space as it is.
    ///
    /// # Errors
    ///
    /// [`SetupError`] if it can't be reached, and always for spaces that have no [`worker_url`](Self::worker_url).
    fn attach(url: &str) -> impl Future<Output = Result<Self, SetupError>> + Send {
        let error = SetupError::new(format!("{} has no lock space that {url:?} could name", Self::NAME));
        async { Err(error) }
    }

    /// Whether the store is reached over TCP, so that the kit can put a [proxy](crate::proxy) before it: then
    /// [`address`](Self::address), [`connect_through`](Self::connect_through) and, if there is a [`worker_url`](Self::worker_url),
    /// [`worker_url_through`](Self::worker_url_through) MUST be there. Called to list cases: MUST NOT do I/O.
    fn over_tcp() -> bool {
        false
    }

    /// Where this space's store listens, also after any [`Fault`].
    fn address(&self) -> Option<SocketAddr> {
        None
    }

    /// A new connection like [`connect`](Self::connect)'s, all of whose traffic goes to `address` instead.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and always for stores that are not reached over TCP.
    fn connect_through(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = locks_api::Result<Self::Backend>> + Send {
        let message = format!("{} is not reached over TCP, so not through {address} either", Self::NAME);
        async { Err(Error::new(ErrorKind::Unsupported, message)) }
    }

    /// What [`worker_url`](Self::worker_url) says, with all of the other process's traffic going to `address` instead.
    #[expect(unused_variables, reason = "the name is part of the documentation")]
    fn worker_url_through(&self, address: SocketAddr) -> Option<String> {
        None
    }

    /// The faults that this harness can [inject](Self::inject). Called to list cases: MUST NOT do I/O on the store.
    /// Cases for other faults are listed as ignored.
    fn faults() -> &'static [Fault] {
        &[]
    }

    /// Makes the fault happen to this space, at any time; a full or a read-only store only before the case's first connection to it.
    /// It has happened when this returns, and the store can be reached again, unless it is the fault that it can't.
    ///
    /// # Errors
    ///
    /// [`SetupError`] if it can't be done, and always for faults that are not in [`faults`](Self::faults).
    fn inject(&self, fault: Fault) -> impl Future<Output = Result<(), SetupError>> + Send {
        let error = SetupError::new(format!("{} can't inject {fault}", Self::NAME));
        async { Err(error) }
    }

    /// Remembers the store's present state: what is written from now on is what the next [`Fault::Promotion`] or
    /// [`Fault::Restore`] undoes. Needed for these two.
    ///
    /// # Errors
    ///
    /// As [`inject`](Self::inject).
    fn checkpoint(&self) -> impl Future<Output = Result<(), SetupError>> + Send {
        let error = SetupError::new(format!("{} can't remember the store's state", Self::NAME));
        async { Err(error) }
    }

    /// Takes this lock from its holder: [`Fault::Revocation`].
    ///
    /// # Errors
    ///
    /// As [`inject`](Self::inject).
    fn revoke(&self, lock: &str) -> impl Future<Output = Result<(), SetupError>> + Send {
        let error = SetupError::new(format!("{} can't revoke {lock:?}", Self::NAME));
        async { Err(error) }
    }

    /// Ends the fault, if it is a state.
    ///
    /// # Errors
    ///
    /// As [`inject`](Self::inject).
    fn heal(&self, fault: Fault) -> impl Future<Output = Result<(), SetupError>> + Send {
        let error = SetupError::new(format!("{} can't heal {fault}", Self::NAME));
        async { Err(error) }
    }
}

/// Something that can happen to a store and that only its harness can bring about. What is full, read-only or paused stays so until
/// it is [healed](Harness::heal); the others are events, over when [`Harness::inject`] returns.
///
/// Faults that need no help of the store (killed and stopped processes, lost and doubled replies, a store out of reach,
/// used-up descriptors) are injected by the kit itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The store has no room left to write.
    StoreFull,
    /// The store can be read and not written.
    ReadOnly,
    /// The store goes down without warning and comes back with what it has kept.
    Restart,
    /// The store goes down without warning and comes back empty.
    DataLoss,
    /// The store stands still, as if stopped by a signal: connections stay open and nothing is answered. When it is healed it does
    /// what it was asked meanwhile.
    Pause,
    /// A standby takes the store's place, at the same address, that has missed all that was written since the last
    /// [checkpoint](Harness::checkpoint).
    Promotion,
    /// A copy of the data, made at the last [checkpoint](Harness::checkpoint), takes the data's place.
    Restore,
    /// The store ends all sessions and cuts all connections, and takes new ones.
    SessionsCut,
    /// The store cuts all connections over which somebody waits to be told something, and only these.
    ListenersCut,
    /// An operator takes a lock from its holder; brought about by [`Harness::revoke`].
    Revocation,
}

impl Fault {
    /// Whether it lasts until it is healed.
    pub(crate) fn is_a_state(self) -> bool {
        matches!(self, Self::StoreFull | Self::ReadOnly | Self::Pause)
    }

    /// Whether it strikes more than one lock, and so everybody who uses the store.
    pub(crate) fn strikes_the_store(self) -> bool {
        self != Self::Revocation
    }
}

/// Reads as "a full store".
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StoreFull => "a full store",
            Self::ReadOnly => "a read-only store",
            Self::Restart => "a restart of the store",
            Self::DataLoss => "the loss of the store's data",
            Self::Pause => "a pause of the store",
            Self::Promotion => "the promotion of a standby that missed the last writes",
            Self::Restore => "the restore of an older copy of the data",
            Self::SessionsCut => "the end of all sessions of the store",
            Self::ListenersCut => "a cut of all connections that listen",
            Self::Revocation => "the revocation of a lock",
        })
    }
}

/// Why a lock space can't be had, in words that say how to get it.
#[derive(Debug)]
pub struct SetupError {
    message: String,
}

impl SetupError {
    /// What is missing and how to get it, in one line.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SetupError {}

impl From<std::io::Error> for SetupError {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<Error> for SetupError {
    fn from(error: Error) -> Self {
        Self::new(error.to_string())
    }
}

/// Any [`Harness`], so that each case is compiled once.
#[async_trait]
pub(crate) trait AnyHarness: Send + Sync {
    async fn connect(&self) -> locks_api::Result<AnyBackend>;
    fn worker_url(&self) -> Option<String>;
    fn address(&self) -> Option<SocketAddr>;
    async fn connect_through(&self, address: SocketAddr) -> locks_api::Result<AnyBackend>;
    fn worker_url_through(&self, address: SocketAddr) -> Option<String>;
    async fn checkpoint(&self) -> Result<(), SetupError>;
    async fn inject(&self, fault: Fault) -> Result<(), SetupError>;
    async fn revoke(&self, lock: &str) -> Result<(), SetupError>;
    async fn heal(&self, fault: Fault) -> Result<(), SetupError>;
}

#[async_trait]
impl<H: Harness> AnyHarness for H {
    async fn connect(&self) -> locks_api::Result<AnyBackend> {
        Ok(AnyBackend(Box::new(Harness::connect(self).await?)))
    }

    fn worker_url(&self) -> Option<String> {
        Harness::worker_url(self)
    }

    fn address(&self) -> Option<SocketAddr> {
        Harness::address(self)
    }

    async fn connect_through(&self, address: SocketAddr) -> locks_api::Result<AnyBackend> {
        Ok(AnyBackend(Box::new(Harness::connect_through(self, address).await?)))
    }

    fn worker_url_through(&self, address: SocketAddr) -> Option<String> {
        Harness::worker_url_through(self, address)
    }

    async fn checkpoint(&self) -> Result<(), SetupError> {
        Harness::checkpoint(self).await
    }

    async fn inject(&self, fault: Fault) -> Result<(), SetupError> {
        Harness::inject(self, fault).await
    }

    async fn revoke(&self, lock: &str) -> Result<(), SetupError> {
        Harness::revoke(self, lock).await
    }

    async fn heal(&self, fault: Fault) -> Result<(), SetupError> {
        Harness::heal(self, fault).await
    }
}

/// What the kit knows of a harness without starting it.
#[derive(Clone)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) guarantees: Guarantees,
    pub(crate) faults: &'static [Fault],
    pub(crate) over_tcp: bool,
}

impl Profile {
    pub(crate) fn of<H: Harness>() -> Self {
        Self { name: H::NAME, guarantees: H::guarantees(), faults: H::faults(), over_tcp: H::over_tcp() }
    }
}

/// Any backend, as a backend.
#[derive(Debug)]
pub(crate) struct AnyBackend(Box<dyn Backend>);

#[async_trait]
impl Backend for AnyBackend {
    fn guarantees(&self) -> &Guarantees {
        self.0.guarantees()
    }

    fn subscribe(&self, events: Events) {
        self.0.subscribe(events);
    }

    async fn acquire(&self, claims: &[Claim]) -> StepResult<Vec<StepResult<Attempt>>> {
        self.0.acquire(claims).await
    }

    async fn cancel(&self, claims: &[Claim]) -> StepResult<Vec<StepResult<()>>> {
        self.0.cancel(claims).await
    }

    async fn release(&self, grants: &[Grant]) -> StepResult<Vec<StepResult<Released>>> {
        self.0.release(grants).await
    }

    async fn renew(&self, grants: &[Grant]) -> StepResult<Vec<Renewed>> {
        self.0.renew(grants).await
    }

    async fn close(&self) -> StepResult<()> {
        self.0.close().await
    }

    fn inline(&self) -> Option<&dyn Inline> {
        self.0.inline()
    }

    fn abilities(&self) -> Abilities<'_> {
        self.0.abilities()
    }
}
