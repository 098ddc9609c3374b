//! What the server says on its own, over a connection that does nothing else.
//!
//! It is made when somebody waits, or when a lock has been held for a moment: a command that is done by then needs none. A message is a hint or tells of what
//! is written in the tables already, so whatever is missed while it is down is found by asking again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use locks_api::spi::{Claim, ClaimId, Events, Expiry, Grant, InstanceId, StoreClock};
use locks_api::{Boottime, Error, ErrorKind, LockName, Result};
use sqlx::Executor as _;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::types::Uuid;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::record::Message;

/// How long a lock is held before its holder listens, unless somebody waits.
const UNHEARD_FOR: Duration = Duration::from_millis(250);

/// How long it may take until somebody who waits is heard.
const LISTENING_WITHIN: Duration = Duration::from_secs(5);

/// After so long without a message the server is asked whether it is there.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// How long its answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// The first pause before it is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Hands on to the engine what the server says.
#[derive(Debug)]
pub(crate) struct Listener {
    client: PgConnectOptions,
    /// Whether it takes another way than the steps.
    is_direct: bool,
    /// Whether nothing can be heard, since a pooler is in the way.
    is_deaf: AtomicBool,
    events: OnceLock<Events>,
    /// The claims that may be granted by a push: a message names no more than the claim.
    waiting: Mutex<HashMap<ClaimId, Claim>>,
    /// The server's latest time that is known.
    clock: Mutex<Option<StoreClock>>,
    /// The channels that are to be heard.
    wanted: Mutex<HashSet<String>>,
    heard: watch::Sender<Heard>,
    wanted_changed: Notify,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// How it stands with the connection.
#[derive(Debug, Default)]
struct Heard {
    /// What is heard now.
    channels: HashSet<String>,
    /// Whether it was not to be had when it was last tried.
    is_down: bool,
}

impl Listener {
    pub(crate) fn new(client: PgConnectOptions, is_direct: bool) -> Self {
        Self {
            client,
            is_direct,
            is_deaf: AtomicBool::new(false),
            events: OnceLock::new(),
            waiting: Mutex::default(),
            clock: Mutex::default(),
            wanted: Mutex::default(),
            heard: watch::Sender::default(),
            wanted_changed: Notify::new(),
            task: Mutex::default(),
        }
    }

    pub(crate) fn subscribe(&self, events: Events) {
        self.events.get_or_init(|| events);
    }

    /// A pooler is between us and the server, and keeps what is said on its own to itself.
    pub(crate) fn note_pooler(&self) {
        if !self.is_direct && !self.is_deaf.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a pooler is between us and the database, and no listen_url was given: whoever waits for a lock asks four times a second"
            );
        }
    }

    /// Whether somebody has begun to listen, or nobody can.
    pub(crate) fn has_begun(&self) -> bool {
        self.is_deaf.load(Ordering::Relaxed) || lock(&self.task).is_some()
    }

    /// Whether what is said to this process is heard now.
    pub(crate) fn hears(&self, instance: InstanceId) -> bool {
        self.heard.borrow().channels.contains(&own_channel(instance))
    }

    /// Listens soon to what is said to this process.
    pub(crate) fn begin(self: &Arc<Self>, instance: InstanceId) {
        if !self.is_deaf.load(Ordering::Relaxed) {
            lock(&self.wanted).insert(own_channel(instance));
            self.start();
        }
    }

    /// Listens to what is said to this process, at once, and goes on without if that takes too long.
    pub(crate) async fn ensure(self: &Arc<Self>, instance: InstanceId) {
        if !self.is_deaf.load(Ordering::Relaxed) && !self.hears(instance) {
            // Whoever waits asks more often until it is heard.
            self.wait_for(own_channel(instance), |heard| heard.is_down).await;
        }
    }

    /// Hears what is said on this channel, from now on and over every connection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if that takes too long; [`ErrorKind::Unsupported`] if a pooler is in the way.
    pub(crate) async fn hear(self: &Arc<Self>, channel: String) -> Result<()> {
        if self.is_deaf.load(Ordering::Relaxed) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a pooler is between us and the database; give its own address as listen_url",
            ));
        }
        if self.wait_for(channel, |_| false).await {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("the server could not be listened to within {LISTENING_WITHIN:?}"),
        ))
    }

    /// Hears it no more.
    pub(crate) fn unhear(&self, channel: &str) {
        lock(&self.wanted).remove(channel);
        self.wanted_changed.notify_one();
    }

    /// The claims that may wait are about to be sent.
    pub(crate) fn expect<'a>(&self, claims: impl Iterator<Item = &'a Claim>) {
        lock(&self.waiting).extend(claims.map(|claim| (claim.id, claim.clone())));
    }

    /// These claims wait no more.
    pub(crate) fn forget(&self, claims: impl Iterator<Item = ClaimId>) {
        let mut waiting = lock(&self.waiting);
        for claim in claims {
            waiting.remove(&claim);
        }
    }

    /// The server showed `time` in the answer to what was sent at `sent`.
    pub(crate) fn set_clock(&self, sent: Boottime, time: Duration) {
        *lock(&self.clock) = Some(StoreClock::new(sent, time));
    }

    /// The store is in a new epoch, and may be another server with another clock.
    pub(crate) fn reset(&self) {
        *lock(&self.clock) = None;
        if let Some(events) = self.events.get() {
            events.reset();
        }
    }

    /// A holder is asked to give the lock back, as the answer to its renewal says.
    pub(crate) fn asked(&self, grant: &Grant) {
        if let Some(events) = self.events.get() {
            events.asked(grant.name.clone(), grant.claim);
        }
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }

    /// Waits until this channel is heard; not for ever, and not if `gives_up` says so. Whether it is.
    async fn wait_for(self: &Arc<Self>, channel: String, gives_up: fn(&Heard) -> bool) -> bool {
        let mut heard = self.heard.subscribe();
        lock(&self.wanted).insert(channel.clone());
        self.start();
        self.wanted_changed.notify_one();
        let settled = heard.wait_for(|heard| heard.channels.contains(&channel) || gives_up(heard));
        match timeout(LISTENING_WITHIN, settled).await {
            Ok(Ok(heard)) => heard.channels.contains(&channel),
            _ => false,
        }
    }

    fn start(self: &Arc<Self>) {
        let mut task = lock(&self.task);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(Arc::clone(self).listen()));
        }
    }

    /// Listens for ever, over one connection after the other.
    async fn listen(self: Arc<Self>) {
        tokio::select! {
            () = passed(UNHEARD_FOR) => {}
            () = self.wanted_changed.notified() => {}
        }
        let mut pause = PAUSES.0;
        loop {
            match self.listen_once(&mut pause).await {
                Ok(()) => tracing::debug!("the connection to be told of locks broke"),
                Err(error) => tracing::debug!(%error, "the connection to be told of locks is not to be had"),
            }
            self.heard.send_replace(Heard { channels: HashSet::new(), is_down: true });
            self.resync();
            passed(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Listens until the connection breaks.
    async fn listen_once(&self, pause: &mut Duration) -> sqlx::Result<()> {
        let client = self.client.clone().application_name("locks listener");
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(LISTENING_WITHIN)
            .connect_lazy_with(client);
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        self.agree(&mut listener).await?;
        *pause = PAUSES.0;
        self.resync();
        loop {
            tokio::select! {
                message = listener.try_recv() => match message? {
                    Some(message) => self.tell(message.payload()),
                    None => return Ok(()),
                },
                () = self.wanted_changed.notified() => self.agree(&mut listener).await?,
                () = passed(SILENT_FOR) => {
                    let answer = timeout(ANSWERED_WITHIN, (&mut listener).execute("SELECT")).await;
                    answer.map_err(|_| sqlx::Error::PoolTimedOut)??;
                }
            }
        }
    }

    /// Whatever was said meanwhile nobody has heard: all who wait ask again.
    fn resync(&self) {
        if let Some(events) = self.events.get() {
            events.resync();
        }
    }

    /// Makes the channels that are heard those that are wanted.
    async fn agree(&self, listener: &mut PgListener) -> sqlx::Result<()> {
        let wanted = lock(&self.wanted).clone();
        let heard = self.heard.borrow().channels.clone();
        let change = async {
            listener.listen_all(wanted.difference(&heard).map(String::as_str)).await?;
            for channel in heard.difference(&wanted) {
                listener.unlisten(channel).await?;
            }
            Ok::<(), sqlx::Error>(())
        };
        timeout(LISTENING_WITHIN, change).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        self.heard.send_replace(Heard { channels: wanted, is_down: false });
        Ok(())
    }

    fn tell(&self, message: &str) {
        let (Some(message), Some(events)) = (Message::parse(message), self.events.get()) else { return };
        match message {
            Message::Granted { claim, tokens, life, at } => {
                // A claim that was cancelled meanwhile is undone by its cancellation.
                let Some(claim) = lock(&self.waiting).remove(&claim) else { return };
                let since = lock(&self.clock).map(|clock| clock.instant_of(at));
                events.granted(Grant::new(&claim, tokens, Expiry::In(life)), since);
            }
            Message::Lost { claim, last, reason, name } => {
                about(name, |name| events.lost(name, claim, Some(last), reason));
            }
            Message::Asked(claim, name) => about(name, |name| events.asked(name, claim)),
            Message::Hint(name) => about(name, |name| events.hint(name)),
            Message::Changed(name) => about(name, |name| events.changed(name)),
        }
    }
}

/// What is said to this process.
fn own_channel(instance: InstanceId) -> String {
    format!("locks_{}", Uuid::from_u128(instance.to_bits()))
}

/// What is no name is said about nothing.
fn about(name: &str, say: impl FnOnce(LockName)) {
    if let Ok(name) = LockName::new(name) {
        say(name);
    }
}

/// Waits for so long: before anybody listens, tries again or has doubts about the line.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing is synchronised by it, and the engine's timers wait for no connection"
)]
pub(crate) async fn passed(time: Duration) {
    tokio::time::sleep(time).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
