//! The library's own thread and runtime: one per `Locks`, started when there is something for it to do.
//!
//! It fires the timers and does the steps of backends that answer over a network. A user's runtime that is starved,
//! paused or gone changes nothing here, and a user's dropped future can't reach a socket.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::Engine;
use super::core::Core;
use super::outbox::Return;
use crate::busy::Busy;
use crate::clock::Boottime;
use crate::error::{Error, ErrorKind};
use crate::spi::{Attempt, Claim, Grant, Joint, Released};

/// How long the last `Locks` waits for releases to be delivered.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// How many calls of one kind are under way at once. What comes meanwhile gathers and travels together.
const CALLS: usize = 4;

/// How many claims or grants one call carries at most.
const BATCH: usize = 1_000;

/// The thread, and how to reach it.
#[derive(Default)]
pub(super) struct Driver {
    thread: Mutex<Option<Thread>>,
    notify: Notify,
    /// Until when the thread sleeps, in nanoseconds of [`Boottime`]; 0 while it is at work.
    sleeps_until: AtomicU64,
    stop: Mutex<Stop>,
    acquires: AtomicUsize,
    releases: AtomicUsize,
    /// What else is to be done on the thread.
    errands: Mutex<Vec<Errand>>,
}

/// Something to be done on the thread that no lock waits for.
type Errand = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    /// Hangs up when the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("thread", &self.thread)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// What the thread is asked to end.
#[derive(Debug, Default)]
struct Stop {
    /// Itself, once everything is delivered and at this instant at the latest.
    at: Option<Boottime>,
    /// The backend's connections.
    backend: Option<oneshot::Sender<Result<(), Error>>>,
    backend_closed: bool,
}

impl Driver {
    /// Makes the thread look, if it has work or would sleep past `next_tick`; starts it if need be.
    pub(super) fn nudge(
        &self,
        engine: &Arc<Engine>,
        work: bool,
        next_tick: Option<Boottime>,
    ) -> io::Result<()> {
        let sleeps_until = self.sleeps_until.load(Ordering::Acquire);
        let early = next_tick.is_some_and(|at| at.as_nanos() < sleeps_until);
        if sleeps_until != 0 && !work && !early {
            return Ok(());
        }
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            *thread = Some(start(engine)?);
        } else {
            self.notify.notify_one();
        }
        Ok(())
    }

    /// Has something done on the thread, whether or not whoever asked waits for it.
    pub(super) fn run_errand(
        &self,
        engine: &Arc<Engine>,
        errand: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        lock(&self.errands).push(Box::pin(errand));
        self.nudge(engine, true, None).map_err(no_thread)
    }

    /// Ends the backend's connections and says how that went.
    pub(super) async fn close_backend(&self, engine: &Arc<Engine>) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        {
            let mut stop = lock(&self.stop);
            if std::mem::replace(&mut stop.backend_closed, true) {
                return Ok(());
            }
            stop.backend = Some(answer);
        }
        self.nudge(engine, true, None).map_err(no_thread)?;
        answered.await.unwrap_or_else(|_| Err(Error::closed()))
    }

    /// Delivers what can be delivered within [`FLUSH_LIMIT`] and ends the thread.
    pub(super) fn shut_down(&self) {
        let Some(thread) = lock(&self.thread).take() else { return };
        lock(&self.stop).at = Some(Boottime::now().after(FLUSH_LIMIT));
        self.notify.notify_one();
        if is_current(thread.handle.thread().id()) {
            return;
        }
        // It never sends: either it hangs up in time, or it is left to itself.
        if thread.ended.recv_timeout(FLUSH_LIMIT * 2) == Err(mpsc::RecvTimeoutError::Disconnected) {
            drop(thread.handle.join());
        }
    }
}

/// Nothing can be done without the thread.
pub(super) fn no_thread(error: io::Error) -> Error {
    Error::new(ErrorKind::StoreFull, "the library's thread can't be started").with_source(error)
}

fn start(engine: &Arc<Engine>) -> io::Result<Thread> {
    let runtime: Runtime = Builder::new_current_thread().enable_all().build()?;
    let (end, ended) = mpsc::channel();
    let engine = Arc::clone(engine);
    let handle = std::thread::Builder::new().name("locks".to_owned()).spawn(move || {
        let end: mpsc::Sender<()> = end;
        // As a task and not as the future that is blocked on: what wakes it from this thread then costs no system call.
        drop(runtime.block_on(async { tokio::spawn(run(engine)).await }));
        drop(runtime);
        drop(end);
    })?;
    Ok(Thread { handle, ended })
}

/// The thread's life.
async fn run(engine: Arc<Engine>) {
    let driver = &engine.driver;
    loop {
        driver.sleeps_until.store(0, Ordering::Release);
        let now = Boottime::now();
        let (mut next, settled) = work(&engine, now);
        for errand in std::mem::take(&mut *lock(&driver.errands)) {
            tokio::spawn(errand);
        }
        if let Some(answer) = lock(&driver.stop).backend.take() {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                // Whoever asked may have gone.
                drop(answer.send(engine.backend.close().await));
            });
        }
        if let Some(at) = lock(&driver.stop).at {
            if settled || now >= at {
                break;
            }
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        let wake_at = next.unwrap_or(Boottime::NEVER);
        driver.sleeps_until.store(wake_at.as_nanos(), Ordering::Release);
        let notified = driver.notify.notified();
        if wake_at == Boottime::NEVER {
            notified.await;
        } else {
            // Either way there is something to look at.
            drop(timeout_at(Instant::now() + wake_at.since(Boottime::now()), notified).await);
        }
    }
    if !std::mem::replace(&mut lock(&driver.stop).backend_closed, true) {
        drop(timeout(FLUSH_LIMIT / 5, engine.backend.close()).await);
    }
}

/// Does what is due and sends what is to be sent.
fn work(engine: &Arc<Engine>, now: Boottime) -> (Option<Boottime>, bool) {
    let driver = &engine.driver;
    let mut core = engine.lock();
    core.tick(now);
    let mut core = engine.drive(core, now);
    let calls = Calls::take(&mut core, driver);
    let news = core.take_news();
    let next = core.next_tick();
    let settled = core.is_settled();
    drop(core);
    calls.start(engine);
    news.spread();
    (next, settled)
}

/// Everything that is sent at once.
#[derive(Default)]
struct Calls {
    acquire: Vec<Vec<Claim>>,
    together: Vec<Vec<Claim>>,
    cancel: Vec<Vec<Claim>>,
    release: Vec<Vec<Return>>,
    renew: Vec<Vec<Grant>>,
    recover: bool,
}

impl Calls {
    fn take(core: &mut Core, driver: &Driver) -> Self {
        let outbox = core.outbox();
        let mut calls = Self {
            together: std::mem::take(&mut outbox.together),
            cancel: batches(&mut outbox.cancel, usize::MAX),
            renew: batches(&mut outbox.renew, usize::MAX),
            recover: std::mem::take(&mut outbox.recover),
            ..Self::default()
        };
        let room = CALLS.saturating_sub(driver.releases.load(Ordering::Relaxed));
        calls.release = batches(&mut outbox.release, room);
        let room = CALLS.saturating_sub(driver.acquires.load(Ordering::Relaxed));
        calls.acquire = batches(&mut outbox.acquire, room);
        driver.releases.fetch_add(calls.release.len(), Ordering::Relaxed);
        driver.acquires.fetch_add(calls.acquire.len(), Ordering::Relaxed);
        calls
    }

    fn start(self, engine: &Arc<Engine>) {
        for backs in self.release {
            tokio::spawn(release(Arc::clone(engine), backs));
        }
        for claims in self.cancel {
            tokio::spawn(cancel(Arc::clone(engine), claims));
        }
        for claims in self.together {
            tokio::spawn(acquire_together(Arc::clone(engine), claims));
        }
        for claims in self.acquire {
            tokio::spawn(acquire(Arc::clone(engine), claims));
        }
        for grants in self.renew {
            tokio::spawn(renew(Arc::clone(engine), grants));
        }
        if self.recover {
            tokio::spawn(recover(Arc::clone(engine)));
        }
    }
}

async fn acquire(engine: Arc<Engine>, claims: Vec<Claim>) {
    let sent = Boottime::now();
    let replies = spread(engine.backend.acquire(&claims).await, claims.len());
    engine.driver.acquires.fetch_sub(1, Ordering::Relaxed);
    let backend = engine.guarantees().backend;
    let mut core = engine.lock();
    let now = Boottime::now();
    for (claim, reply) in claims.iter().zip(replies) {
        core.acquired(claim, sent, reply.map_err(|error| error.at(backend, "acquire", &claim.name)), now);
    }
    engine.leave(core);
}

async fn acquire_together(engine: Arc<Engine>, claims: Vec<Claim>) {
    let sent = Boottime::now();
    let backend = engine.guarantees().backend;
    let reply = match engine.backend.abilities().together {
        Some(together) => together.acquire_together(&claims).await,
        None => Ok(Joint::Busy { at: 0, busy: Busy::Held { by: None } }),
    };
    let attempts = match reply {
        Ok(Joint::Busy { at, busy }) => {
            let attempt = |which| if which == at { Attempt::Busy(busy.clone()) } else { Attempt::held(None) };
            (0..claims.len()).map(|which| Ok(attempt(which))).collect()
        }
        Ok(Joint::Granted(grants)) => {
            let attempts = grants.into_iter().map(|grant| Ok(Attempt::Granted(grant)));
            spread(Ok(attempts.collect()), claims.len())
        }
        Err(error) => spread(Err(error), claims.len()),
    };
    let mut core = engine.lock();
    let now = Boottime::now();
    for (claim, attempt) in claims.iter().zip(attempts) {
        core.acquired(claim, sent, attempt.map_err(|error| error.at(backend, "acquire", &claim.name)), now);
    }
    engine.leave(core);
}

async fn cancel(engine: Arc<Engine>, claims: Vec<Claim>) {
    let replies = spread(engine.backend.cancel(&claims).await, claims.len());
    let backend = engine.guarantees().backend;
    let mut core = engine.lock();
    let now = Boottime::now();
    for (claim, reply) in claims.iter().zip(replies) {
        core.cancelled(claim, &reply.map_err(|error| error.at(backend, "cancel", &claim.name)), now);
    }
    engine.leave(core);
}

async fn release(engine: Arc<Engine>, backs: Vec<Return>) {
    let (completed, given_up): (Vec<Return>, Vec<Return>) =
        backs.into_iter().partition(|back| back.completed);
    let mut grants: Vec<Grant> = given_up.into_iter().map(|back| back.grant).collect();
    let mut replies = match grants.is_empty() {
        true => Vec::new(),
        false => spread(engine.backend.release(&grants).await, grants.len()),
    };
    for back in completed {
        replies.push(complete(&engine, &back.grant).await);
        grants.push(back.grant);
    }
    engine.driver.releases.fetch_sub(1, Ordering::Relaxed);
    let backend = engine.guarantees().backend;
    let mut core = engine.lock();
    let now = Boottime::now();
    for (grant, reply) in grants.iter().zip(replies) {
        core.released(grant, &reply.map_err(|error| error.at(backend, "release", &grant.name)), now);
    }
    engine.leave(core);
}

async fn complete(engine: &Engine, grant: &Grant) -> Result<Released, Error> {
    match engine.backend.abilities().schedule {
        Some(schedule) => schedule.complete(grant).await,
        // Whoever asked was told before that this store keeps no schedule.
        None => Err(Error::new(ErrorKind::Unsupported, "this store keeps no schedule")),
    }
}

async fn renew(engine: Arc<Engine>, grants: Vec<Grant>) {
    let sent = Boottime::now();
    let replies = spread(
        engine.backend.renew(&grants).await.map(|all| all.into_iter().map(Ok).collect()),
        grants.len(),
    );
    let backend = engine.guarantees().backend;
    let mut core = engine.lock();
    let now = Boottime::now();
    for (grant, reply) in grants.iter().zip(replies) {
        core.renewed(grant, sent, &reply.map_err(|error| error.at(backend, "renew", &grant.name)), now);
    }
    engine.leave(core);
}

async fn recover(engine: Arc<Engine>) {
    let grants = match engine.backend.abilities().recovery {
        Some(recovery) => recovery.grants().await,
        None => Ok(Vec::new()),
    };
    let mut core = engine.lock();
    core.recovered(grants, Boottime::now());
    engine.leave(core);
}

/// One reply for each of `len` claims, whatever the backend returned.
fn spread<T>(replies: Result<Vec<Result<T, Error>>, Error>, len: usize) -> Vec<Result<T, Error>> {
    let error = match replies {
        Ok(replies) if replies.len() == len => return replies,
        Ok(replies) => Error::new(
            // What happened to which claim is anybody's guess.
            ErrorKind::Unavailable,
            format!("the backend gave {} answers to {len} questions", replies.len()),
        ),
        Err(error) => error,
    };
    (0..len).map(|_| Err(error.clone())).collect()
}

/// Takes up to `count` batches from the front.
fn batches<T>(waiting: &mut Vec<T>, count: usize) -> Vec<Vec<T>> {
    let taken = waiting.len().min(count.saturating_mul(BATCH));
    let mut front = waiting.drain(..taken);
    std::iter::from_fn(|| {
        Some(front.by_ref().take(BATCH).collect()).filter(|batch: &Vec<T>| !batch.is_empty())
    })
    .collect()
}

fn is_current(id: ThreadId) -> bool {
    std::thread::current().id() == id
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_taken_from_the_front() {
        let all: Vec<usize> = (0..2 * BATCH + 1).collect();
        let mut waiting = all.clone();
        let taken = batches(&mut waiting, 1);
        assert_eq!((taken.len(), taken.concat().len()), (1, BATCH));
        assert_eq!([taken.concat(), waiting.clone()].concat(), all);
        let rest = batches(&mut waiting, usize::MAX);
        assert_eq!(rest.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH, 1]);
        assert!(waiting.is_empty() && batches(&mut waiting, 1).is_empty());
    }
}
