//! The connection to the server: made when it is needed, looked at before anything is granted over it, given up at the first doubt.
//!
//! One connection carries all steps of a `Locks` and all that the server says on its own. It is never reconnected unseen: a server that was started again or
//! promoted may have forgotten grants, so every new connection compares the server's incarnation with the one in the epoch record.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use locks_api::spi::InstanceId;
use locks_api::{Boottime, Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Value, cmd};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::timeout;

use crate::error::{classify, strange};
use crate::listener::Listener;
use crate::options::RedisOptions;
use crate::scripts::{Scripts, Step};
use crate::server::{Incarnation, Info, SECTIONS};

/// How long it may take to connect, on a line on which a single answer takes longer than a step may.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// After so long without an answer the server is asked again who it is: it may have been demoted and promoted, with older data, under a
/// connection that lives on.
const SILENT_FOR: Duration = Duration::from_secs(1);

/// After so long its settings are looked at again, which is a longer answer.
const SETTINGS_HOLD_FOR: Duration = Duration::from_secs(15);

/// With their last token, so that the next grant has a block of them; a lock that is not known goes on at the clock.
const IDLE_LOCKS_ARE_KEPT_FOR: Duration = Duration::from_secs(3600);

/// How many keys the server looks at before it answers others.
const SCANNED_AT_ONCE: u32 = 1000;

/// Where the server is and how it is reached.
#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
    options: RedisOptions,
    scripts: Scripts,
    /// Begins all keys and channels. The braces keep them on one slot.
    prefix: String,
    listener: Arc<Listener>,
    /// What the server calls this process, once it has asked for a lock.
    instance: OnceLock<InstanceId>,
    /// The channels of the locks whose values are watched.
    watched: Mutex<HashSet<String>>,
    session: Mutex<Option<Arc<Session>>>,
    connecting: AsyncMutex<Attempts>,
}

#[derive(Debug, Default)]
struct Attempts {
    /// Whoever waited meanwhile need not fail for itself.
    failed: Option<(Boottime, Error)>,
    /// Whether there has been a connection: from then on a replica is a fail-over and no mistake.
    succeeded: bool,
    /// The epoch that this process knew last.
    epoch: Option<String>,
}

/// One connection, which is trusted until something is wrong with it.
#[derive(Debug)]
pub(crate) struct Session {
    connection: MultiplexedConnection,
    broken: Arc<AtomicBool>,
    /// When the last answer came, in nanoseconds of [`Boottime`].
    heard_at: AtomicU64,
    /// When the server was last looked at, likewise.
    looked_at: AtomicU64,
    /// Whether the process's own channel is among `channels`.
    hears: AtomicBool,
    /// What it is subscribed to. Whoever changes that holds it meanwhile.
    channels: AsyncMutex<HashSet<String>>,
    state: Mutex<State>,
}

#[derive(Clone, Debug)]
struct State {
    incarnation: Incarnation,
    /// The epoch record.
    epoch: Arc<str>,
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
    pub(crate) fn new(client: Client, options: RedisOptions, listener: Arc<Listener>) -> Self {
        let prefix = format!("{{{}}}:1:", options.namespace);
        let kept = options.max_ttl + IDLE_LOCKS_ARE_KEPT_FOR;
        Self {
            client,
            options,
            scripts: Scripts::new(kept),
            prefix,
            listener,
            instance: OnceLock::new(),
            watched: Mutex::default(),
            session: Mutex::default(),
            connecting: AsyncMutex::default(),
        }
    }

    pub(crate) fn edit_scripts(&mut self, edit: impl Fn(&str) -> String) {
        self.scripts.edit(edit);
    }

    pub(crate) fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    pub(crate) fn lock_key(&self, name: &str) -> String {
        format!("{}l:{name}", self.prefix)
    }

    /// What the names of lock records begin with.
    pub(crate) fn lock_prefix(&self) -> String {
        self.lock_key("")
    }

    /// What the server calls this process: the id under which it asked first. What is said to it is heard over every
    /// [`session`](Self::session) from now on.
    pub(crate) fn introduce(&self, instance: InstanceId) -> InstanceId {
        *self.instance.get_or_init(|| instance)
    }

    /// A connection to a server that has been looked at, in its present epoch.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if there is none to be had now; [`ErrorKind::Unsupported`] and [`ErrorKind::Config`] if the server is
    /// refused; [`ErrorKind::PermissionDenied`] if it refuses us.
    pub(crate) async fn session(&self) -> Result<Arc<Session>> {
        let session = self.reach().await?;
        if !session.hears.load(Ordering::Acquire)
            && let Some(channel) = self.own_channel()
        {
            session.subscribe(channel).await?;
            session.hears.store(true, Ordering::Release);
        }
        Ok(session)
    }

    /// Hears what is said about the value of this lock, from now on and over every connection.
    pub(crate) async fn watch(&self, name: &str) -> Result<()> {
        let channel = self.value_channel(name);
        self.watched().insert(channel.clone());
        let session = self.session().await?;
        session.subscribe(channel).await
    }

    /// Hears that no more.
    pub(crate) async fn unwatch(&self, name: &str) -> Result<()> {
        let channel = self.value_channel(name);
        self.watched().remove(&channel);
        let Some(session) = self.present() else { return Ok(()) };
        let mut channels = session.channels.lock().await;
        // Somebody may have come meanwhile.
        if self.watched().contains(&channel) || !channels.remove(&channel) {
            return Ok(());
        }
        let mut connection = session.connection.clone();
        let leave = async move { connection.unsubscribe(channel).await.map(|()| Value::Nil) };
        session.within(CONNECTED_WITHIN / 2, leave).await.map(drop)
    }

    async fn reach(&self) -> Result<Arc<Session>> {
        let asked_at = Boottime::now();
        if let Some(session) = self.present() {
            if session.is_fresh(asked_at) {
                return Ok(session);
            }
            if let Some(session) = self.look_again(session).await? {
                return Ok(session);
            }
        }
        let mut attempts = self.connecting.lock().await;
        if let Some(session) = self.present() {
            return Ok(session);
        }
        if let Some((at, error)) = &attempts.failed
            && *at >= asked_at
        {
            return Err(error.clone());
        }
        let connected = timeout(CONNECTED_WITHIN, self.connect(&mut attempts)).await;
        let connected = connected.unwrap_or_else(|_| Err(silent(CONNECTED_WITHIN)));
        match connected {
            Ok(session) => {
                attempts.succeeded = true;
                let session = Arc::new(session);
                self.replace(Some(Arc::clone(&session)));
                Ok(session)
            }
            Err(error) => {
                attempts.failed = Some((Boottime::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Runs a script and returns its answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if it may have run and no answer came. Whatever the server refused it with.
    pub(crate) async fn run(
        &self,
        session: &Session,
        step: &Step,
        script: &Call,
        limit: Duration,
    ) -> Result<Value> {
        let epoch = session.epoch();
        let ask = async {
            match session.ask(&script.command("EVALSHA", step.hash(), &self.prefix, &epoch)).await {
                Err(error) if error.code() == Some("NOSCRIPT") => {
                    session.ask(&script.command("EVAL", step.text(), &self.prefix, &epoch)).await
                }
                answer => answer,
            }
        };
        session.within(limit, ask).await
    }

    /// Asks so many replicas to have what was written so far. How many have it.
    pub(crate) async fn replicated(&self, session: &Session, replicas: u32, limit: Duration) -> Result<u32> {
        let mut wait = cmd("WAIT");
        wait.arg(replicas).arg(u64::try_from(limit.as_millis() / 2).unwrap_or(u64::MAX).max(1));
        match session.within(limit, session.ask(&wait)).await? {
            Value::Int(count) => Ok(u32::try_from(count).unwrap_or(0)),
            other => Err(strange(other)),
        }
    }

    /// Opens the server's present epoch on this connection. To be called when a step says that the epoch is not the one we know.
    pub(crate) async fn reopen(&self, session: &Session, beginning: Beginning) -> Result<()> {
        let mut attempts = self.connecting.lock().await;
        let incarnation = session.state().incarnation.clone();
        self.open_epoch(session, incarnation, beginning, &mut attempts).await
    }

    /// Some of the keys that match this pattern, and where to go on, until that is `"0"` again.
    pub(crate) async fn scan(
        &self,
        session: &Session,
        pattern: &str,
        cursor: &str,
    ) -> Result<(String, Vec<String>)> {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCANNED_AT_ONCE);
        match session.within(CONNECTED_WITHIN / 2, session.ask(&scan)).await? {
            Value::Array(answer) => match &answer[..] {
                [cursor, keys] => Ok((text(cursor)?.to_owned(), texts(keys)?)),
                _ => Err(strange(answer)),
            },
            other => Err(strange(other)),
        }
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        self.replace(None);
    }

    fn own_channel(&self) -> Option<String> {
        self.instance.get().map(|instance| format!("{}e:{instance}", self.prefix))
    }

    fn value_channel(&self, name: &str) -> String {
        format!("{}c:{name}", self.prefix)
    }

    fn watched(&self) -> MutexGuard<'_, HashSet<String>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn present(&self) -> Option<Arc<Session>> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.clone().filter(|session| !session.is_broken())
    }

    fn replace(&self, session: Option<Arc<Session>>) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// Asks the server again who and how it is now. `None` if the connection is of no more use.
    async fn look_again(&self, session: Arc<Session>) -> Result<Option<Arc<Session>>> {
        let now = Boottime::now();
        let settings_too = session.settings_are_old(now);
        let mut info = cmd("INFO");
        if settings_too {
            info.arg(&SECTIONS);
        } else {
            info.arg("replication");
        }
        let answer = match session.within(CONNECTED_WITHIN / 2, session.ask(&info)).await {
            Ok(answer) => answer,
            Err(error) if error.kind() == ErrorKind::Unavailable => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = text(&answer)?;
        let info = Info::parse(text);
        if !info.is_primary()? {
            session.broken.store(true, Ordering::Release);
            return Err(demoted());
        }
        if settings_too {
            info.check(self.options.allow_eviction)?;
            session.looked_at.store(now.as_nanos(), Ordering::Release);
        }
        let known = session.state().incarnation.clone();
        let promoted = info.promoted()?;
        if known.promoted != promoted {
            let incarnation = Incarnation { promoted: promoted.to_owned(), ..known };
            let mut attempts = self.connecting.lock().await;
            self.open_epoch(&session, incarnation, Beginning::Cautious, &mut attempts).await?;
        }
        Ok(Some(session))
    }

    async fn connect(&self, attempts: &mut Attempts) -> Result<Session> {
        let broken = Arc::new(AtomicBool::new(false));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_push_sender(self.listener.ear(Arc::clone(&broken)));
        let connection =
            self.client.get_multiplexed_async_connection_with_config(&config).await.map_err(classify)?;
        let mut info = cmd("INFO");
        info.arg(&SECTIONS);
        let mut asking = connection.clone();
        let mut listening = connection.clone();
        let own = self.own_channel();
        let hears = AtomicBool::new(own.is_some());
        let channels: HashSet<String> = self.watched().iter().cloned().chain(own).collect();
        let (answer, subscribed) = tokio::join!(asking.send_packed_command(&info), async {
            if channels.is_empty() {
                return Ok(());
            }
            listening.subscribe(channels.iter().collect::<Vec<_>>()).await
        });
        let answer = answer.and_then(Value::extract_error).map_err(classify)?;
        subscribed.map_err(classify)?;
        let info = Info::parse(text(&answer)?);
        info.check(self.options.allow_eviction)?;
        if !info.is_primary()? {
            return Err(if attempts.succeeded { demoted() } else { replica() });
        }
        let incarnation = info.incarnation()?;
        let session = Session {
            connection,
            broken,
            heard_at: AtomicU64::new(Boottime::now().as_nanos()),
            looked_at: AtomicU64::new(Boottime::now().as_nanos()),
            hears,
            channels: AsyncMutex::new(channels),
            state: Mutex::new(State { incarnation: incarnation.clone(), epoch: "-".into() }),
        };
        self.open_epoch(&session, incarnation, Beginning::Cautious, attempts).await?;
        Ok(session)
    }

    /// Finds the epoch of this incarnation of the server, or begins it, with a grace: it may have forgotten grants.
    async fn open_epoch(
        &self,
        session: &Session,
        incarnation: Incarnation,
        beginning: Beginning,
        attempts: &mut Attempts,
    ) -> Result<()> {
        let means = match (beginning, self.options.restart_grace) {
            (Beginning::New, _) => "new",
            (Beginning::Cautious, true) => "grace",
            (Beginning::Cautious, false) => "off",
        };
        let fresh = format!("{:016x}", fastrand::u64(1..));
        let cap = self.options.max_ttl.as_micros().to_string();
        let step = &self.scripts.epoch;
        let command = |verb, script| {
            let mut command = cmd(verb);
            command.arg(script).arg(1).arg(format!("{}epoch", self.prefix)).arg(&fresh).arg(&cap);
            command.arg(&incarnation.run).arg(&incarnation.promoted).arg(means);
            command
        };
        let ask = async {
            match session.ask(&command("EVALSHA", step.hash())).await {
                Err(error) if error.code() == Some("NOSCRIPT") => {
                    session.ask(&command("EVAL", step.text())).await
                }
                answer => answer,
            }
        };
        let answer = texts(&session.within(CONNECTED_WITHIN / 2, ask).await?)?;
        match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["K", record] => {
                let id = record.split(' ').next().unwrap_or(record);
                let known = attempts.epoch.replace(id.to_owned());
                let is_new = known.is_some_and(|known| known != id);
                *session.state() = State { incarnation, epoch: record.into() };
                if is_new {
                    self.listener.reset();
                }
                Ok(())
            }
            ["C", cap] => Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the namespace {:?} was set up with max_ttl={}us and this process asks for {}us; all who share it must ask for \
                     the same",
                    self.options.namespace,
                    cap,
                    self.options.max_ttl.as_micros()
                ),
            )),
            _ => Err(strange(answer)),
        }
    }
}

impl Session {
    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn is_fresh(&self, now: Boottime) -> bool {
        since(&self.heard_at, now) < SILENT_FOR && !self.settings_are_old(now)
    }

    fn settings_are_old(&self, now: Boottime) -> bool {
        since(&self.looked_at, now) >= SETTINGS_HOLD_FOR
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.state().epoch)
    }

    /// Hears what is said on this channel.
    async fn subscribe(&self, channel: String) -> Result<()> {
        let mut channels = self.channels.lock().await;
        if channels.contains(&channel) {
            return Ok(());
        }
        let (mut connection, name) = (self.connection.clone(), channel.clone());
        let join = async move { connection.subscribe(name).await.map(|()| Value::Nil) };
        self.within(CONNECTED_WITHIN / 2, join).await?;
        channels.insert(channel);
        Ok(())
    }

    async fn ask(&self, command: &Cmd) -> redis::RedisResult<Value> {
        let mut connection = self.connection.clone();
        connection.send_packed_command(command).await.and_then(Value::extract_error)
    }

    /// Gives up on the connection if no answer comes in time, or one that says that it is of no more use.
    async fn within(
        &self,
        limit: Duration,
        ask: impl Future<Output = redis::RedisResult<Value>>,
    ) -> Result<Value> {
        match timeout(limit, ask).await {
            Ok(Ok(answer)) => {
                self.heard_at.store(Boottime::now().as_nanos(), Ordering::Release);
                Ok(answer)
            }
            Ok(Err(error)) => {
                if error.is_unrecoverable_error() || error.code() == Some("READONLY") {
                    self.broken.store(true, Ordering::Release);
                }
                Err(classify(error))
            }
            Err(_) => {
                self.broken.store(true, Ordering::Release);
                Err(silent(limit))
            }
        }
    }
}

fn since(instant: &AtomicU64, now: Boottime) -> Duration {
    now.since(Boottime::from_nanos(instant.load(Ordering::Acquire)))
}

/// What a step asks a script.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) keys: Vec<String>,
    pub(crate) arguments: Vec<String>,
}

impl Call {
    fn command(&self, verb: &str, script: &str, prefix: &str, epoch: &str) -> Cmd {
        let mut command = cmd(verb);
        command.arg(script).arg(self.keys.len() + 1).arg(format!("{prefix}epoch")).arg(&self.keys);
        command.arg(epoch).arg(&self.arguments);
        command
    }
}

/// The text of an answer.
pub(crate) fn text(answer: &Value) -> Result<&str> {
    match answer {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).map_err(|_| strange(answer)),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text),
        other => Err(strange(other)),
    }
}

/// The texts of an answer that is a list.
pub(crate) fn texts(answer: &Value) -> Result<Vec<String>> {
    match answer {
        Value::Array(answers) => answers.iter().map(|answer| text(answer).map(str::to_owned)).collect(),
        other => Err(strange(other)),
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
