//! The election of a leader.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::ask::{Ask, Kind, options};
use crate::clock::Boottime;
use crate::engine::{Engine, Watch};
use crate::error::{Error, ErrorKind};
use crate::guard::LockGuard;
use crate::loss::LossReason;
use crate::name::LockName;
use crate::request::until_lost;
use crate::spi::{Leader, Mode, Offer, Released};

/// An election: an exclusive lock whose holder, the leader, publishes a value for everybody to see. Leads nothing by itself.
///
/// Made by [`Locks::election`](crate::Locks::election). Those who [`campaign`](Self::campaign) lead one after the other, first come, first served; those who
/// [`observe`](Self::observe) need not campaign. A leader whose deadline passes knows by itself that it leads no more, without any network.
///
/// Every operation is an [`ErrorKind::Unsupported`] on a store without elections.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let election = locks.election("scheduler");
/// let leadership = election.campaign("10.0.0.7:8080").await?;
/// let leader = election.leader().await?.expect("somebody leads");
/// assert_eq!(&*leader.value, "10.0.0.7:8080");
/// assert_eq!(leader.token, leadership.fencing_token());
/// leadership.resign().await?;
/// assert_eq!(election.leader().await?, None);
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
#[must_use = "nothing is led before a campaign"]
pub struct Election {
    pub(crate) ask: Ask,
}

options!(Election: ttl label);

impl Election {
    /// The longest value, in bytes of UTF-8.
    pub const MAX_VALUE_BYTES: usize = 4096;

    /// Waits until this process leads, and publishes `value` in the same step.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for a value that is longer than [`Election::MAX_VALUE_BYTES`]; otherwise as [`Lock::acquire`](crate::Lock::acquire).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nobody leads because of it.
    pub async fn campaign(&self, value: &str) -> Result<Leadership, Error> {
        self.ask.acquire(self.candidate(value)?).await.map(Leadership)
    }

    /// Leads if nobody does or wants to; `None` otherwise.
    ///
    /// # Errors
    ///
    /// As [`campaign`](Self::campaign).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nobody leads because of it.
    pub async fn try_campaign(&self, value: &str) -> Result<Option<Leadership>, Error> {
        Ok(self.ask.try_acquire(self.candidate(value)?).await?.map(Leadership))
    }

    /// Waits until this process leads, at most for `timeout`. Zero tries once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] once the time is up; otherwise as [`campaign`](Self::campaign).
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: nobody leads because of it.
    pub async fn campaign_timeout(&self, value: &str, timeout: Duration) -> Result<Leadership, Error> {
        self.ask.acquire_timeout(self.candidate(value)?, timeout).await.map(Leadership)
    }

    /// Who leads at this moment, as the store sees it; `None` if nobody does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if the store does not answer, and what else it says.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point.
    pub async fn leader(&self) -> Result<Option<Leader>, Error> {
        let name = self.observed()?;
        leader(&self.ask, &name).await
    }

    /// Everybody who leads from now on, one after the other.
    ///
    /// Nothing is asked before [`Observer::next`].
    pub fn observe(&self) -> Observer {
        Observer { ask: self.ask.clone(), watch: None, last: None }
    }

    fn candidate(&self, value: &str) -> Result<Kind, Error> {
        if value.len() > Self::MAX_VALUE_BYTES {
            let (most, len) = (Self::MAX_VALUE_BYTES, value.len());
            let message = format!("the value of an election has at most {most} bytes and this one has {len}");
            return Err(self.ask.located(Error::new(ErrorKind::Config, message)));
        }
        Ok(Kind { mode: Mode::Exclusive, value: Some(value.into()) })
    }

    fn observed(&self) -> Result<LockName, Error> {
        self.ask.handle.offers(Offer::Values).map_err(|error| self.ask.located(error))?;
        self.ask.name.clone()
    }
}

/// The lead of an election. A [`LockGuard`] in all it can tell: [`is_held`](LockGuard::is_held) turns false by itself at the deadline.
#[derive(Debug)]
#[must_use = "who drops the lead resigns"]
pub struct Leadership(pub(crate) LockGuard);

impl Leadership {
    /// Replaces the published value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] if this process leads no more; [`ErrorKind::Config`] for a value that is longer than [`Election::MAX_VALUE_BYTES`];
    /// [`ErrorKind::Unavailable`] if the store does not answer: the value may be published or not.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is done whether or not the future is dropped.
    pub async fn publish(&self, value: &str) -> Result<(), Error> {
        publish(&self.0, value).await
    }

    /// Gives up the lead and waits until the store has taken it. See [`LockGuard::release`].
    ///
    /// # Errors
    ///
    /// As [`LockGuard::release`].
    ///
    /// # Cancel safety
    ///
    /// Once polled, it is done whether or not the future is dropped.
    pub async fn resign(self) -> Result<(), Error> {
        self.0.release().await
    }
}

impl Deref for Leadership {
    type Target = LockGuard;

    fn deref(&self) -> &LockGuard {
        &self.0
    }
}

/// Sees who leads. Made by [`Election::observe`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks_api::Locks::new(locks_backend_memory::MemoryBackend::new());
/// let election = locks.election("scheduler");
/// let mut observer = election.observe();
/// assert_eq!(observer.next().await?, None);
/// let leadership = election.campaign("here").await?;
/// assert_eq!(&*observer.next().await?.expect("somebody leads").value, "here");
/// leadership.publish("there").await?;
/// assert_eq!(&*observer.next().await?.expect("somebody leads").value, "there");
/// # Ok::<(), locks_api::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "it sees nothing before `next`"]
pub struct Observer {
    ask: Ask,
    watch: Option<Watching>,
    /// What was told last.
    last: Option<Option<Leader>>,
}

/// One who watches, until it is dropped.
struct Watching {
    engine: Arc<Engine>,
    name: LockName,
    watch: Watch,
}

impl Observer {
    /// Who leads, or that nobody does: at first at once, later when that or the value has changed.
    ///
    /// Two leaders are never told in the wrong order. What changed back or was followed by another change before it was read is passed over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] if the store has been out of reach for longer than the store timeout, and what else it says. It can be
    /// called again.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any point: the next call tells what this one would have told.
    pub async fn next(&mut self) -> Result<Option<Leader>, Error> {
        let Watching { engine, name, watch } = match &mut self.watch {
            Some(watching) => watching,
            none => none.insert(begin(&self.ask)?),
        };
        let mut trouble = None;
        let mut pause = Duration::from_millis(50);
        loop {
            let mut changed = std::pin::pin!(watch.changed());
            // Listens before it looks, so that no change falls between.
            changed.as_mut().enable();
            let until = match look(&self.ask, engine, name).await {
                Ok(leader) => {
                    if self.last.as_ref().is_none_or(|last| is_news(last.as_ref(), leader.as_ref())) {
                        self.last = Some(leader.clone());
                        return Ok(leader);
                    }
                    leader.and_then(|leader| leader.remaining)
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    let now = Boottime::now();
                    if now.since(*trouble.get_or_insert(now)) >= engine.store_timeout() {
                        return Err(error);
                    }
                    pause = (pause * 2).min(Duration::from_secs(2));
                    Some(pause)
                }
                Err(error) => return Err(error),
            };
            // Now and then it looks anyway: a line that is dead in one direction tells of nothing. And a little later than the store's clock says,
            // so that a hold is over when it is asked.
            let pause = until.unwrap_or(Duration::MAX).min(engine.store_timeout()) + Duration::from_millis(1);
            let over = engine.pause(pause);
            // Whichever comes first, it is looked again.
            let (Ok(()) | Err(())) = until_lost(changed, over).await;
        }
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("name", &self.ask.name()).finish_non_exhaustive()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if self.engine.is_forked() || !self.engine.watchers().leave(&self.name) {
            return;
        }
        let (engine, name) = (Arc::clone(&self.engine), self.name.clone());
        let left = self.engine.send_errand(async move {
            if let Some(values) = engine.backend().abilities().values
                && !engine.watchers().is_watched(&name)
            {
                // A store that goes on telling of changes does no harm.
                drop(values.unwatch(&name).await);
            }
        });
        // Without a thread there is nothing that could tell of changes either.
        drop(left);
    }
}

/// Replaces the value that the leader with this guard has published.
pub(crate) async fn publish(guard: &LockGuard, value: &str) -> Result<(), Error> {
    if value.len() > Election::MAX_VALUE_BYTES {
        let message = format!("the value has more than {} bytes", Election::MAX_VALUE_BYTES);
        return Err(guard.located("publish", Error::new(ErrorKind::Config, message)));
    }
    let value: Arc<str> = value.into();
    let published = guard.ask_store("publish", Offer::Values, |engine, grant| async move {
        match engine.backend().abilities().values {
            Some(values) => values.publish(&grant, &value).await,
            None => Err(lacking()),
        }
    });
    match published.await? {
        Released::Done => Ok(()),
        Released::NotHeld => Err(guard.located("publish", Error::lost(LossReason::Taken))),
    }
}

fn begin(ask: &Ask) -> Result<Watching, Error> {
    ask.handle.offers(Offer::Values).map_err(|error| ask.located(error))?;
    let (engine, name) = (Arc::clone(&ask.handle.engine), ask.name.clone()?);
    let watch = engine.watchers().join(&name);
    Ok(Watching { engine, name, watch })
}

/// Makes sure that changes are told from now on, and says who leads.
async fn look(ask: &Ask, engine: &Arc<Engine>, name: &LockName) -> Result<Option<Leader>, Error> {
    let watched = name.clone();
    let seen = engine.ask(|engine| async move {
        let Some(values) = engine.backend().abilities().values else { return Err(lacking()) };
        values.watch(&watched).await?;
        values.leader(&watched).await
    });
    seen.await.map_err(|error| ask.located(error))
}

async fn leader(ask: &Ask, name: &LockName) -> Result<Option<Leader>, Error> {
    let name = name.clone();
    let seen = ask.handle.engine.ask(|engine| async move {
        match engine.backend().abilities().values {
            Some(values) => values.leader(&name).await,
            None => Err(lacking()),
        }
    });
    seen.await.map_err(|error| ask.located(error))
}

/// Whether `now` is to be told after `last` was.
fn is_news(last: Option<&Leader>, now: Option<&Leader>) -> bool {
    match (last, now) {
        (Some(last), Some(now)) => {
            now.token > last.token || (now.token == last.token && now.value != last.value)
        }
        (last, now) => last.is_some() != now.is_some(),
    }
}

fn lacking() -> Error {
    Error::new(ErrorKind::Unsupported, "the backend lacks what it offers")
}
