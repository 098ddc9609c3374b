//! The engine: everything that is hard about locks, once, for all backends.
//!
//! [`Core`] is a state machine without I/O; [`Engine`] puts it behind a mutex, carries its questions to the backend and
//! its answers to the callers; [`Driver`] is the library's own thread, which does so when no caller is there.

mod core;
mod debt;
mod door;
mod driver;
mod entry;
mod holding;
mod lease;
mod outbox;
mod renewal;
mod replies;
#[cfg(test)]
mod simulation;
mod standstill;
mod strays;
mod ticket;
mod timers;
mod waiting;
mod watchers;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::busy::Busy;
use crate::caller::Caller;
use crate::clock::Boottime;
use crate::error::Error;
use crate::fork::Generation;
use crate::spi::{Attempt, Backend, Claim, Event, EventSink, Events, Grant, Guarantees, Inline, Released};

pub(crate) use self::core::Settings;
pub(crate) use lease::Lease;
pub(crate) use ticket::{Answer, Granted, Patience, Special, Terms, TicketKey, Wish};
pub(crate) use watchers::{Watch, Watchers};

use self::core::Core;
use driver::Driver;
use outbox::Return;

/// One backend, the state machine in front of it and the thread that drives it.
pub(crate) struct Engine {
    core: Mutex<Core>,
    backend: Box<dyn Backend>,
    driver: Driver,
    watchers: Watchers,
    /// The process that made it: a forked child may not touch anything here.
    generation: Generation,
}

impl Engine {
    pub(crate) fn new(backend: Box<dyn Backend>, settings: Settings) -> Arc<Self> {
        let engine = Arc::new(Self {
            core: Mutex::new(Core::new(settings)),
            backend,
            driver: Driver::default(),
            watchers: Watchers::default(),
            generation: Generation::current(),
        });
        let sink: Weak<dyn EventSink> = Arc::downgrade(&(Arc::clone(&engine) as Arc<dyn EventSink>));
        engine.backend.subscribe(Events::new(sink));
        engine
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub(crate) fn guarantees(&self) -> &Guarantees {
        self.backend.guarantees()
    }

    /// Whether this is a child that was forked from the process that made the engine.
    pub(crate) fn is_forked(&self) -> bool {
        self.generation.is_over()
    }

    /// Puts the wish into the machine; then as [`Engine::poll`].
    pub(crate) fn acquire(self: &Arc<Self>, wish: Wish, context: &Context<'_>) -> (TicketKey, Poll<Answer>) {
        let now = Boottime::now();
        let mut core = self.lock();
        let ticket = core.acquire(wish, now);
        let mut core = self.drive(core, now);
        let answer = core.poll(ticket, context);
        self.leave(core);
        (ticket, answer)
    }

    /// Takes the answer, or leaves the waker for when it comes.
    pub(crate) fn poll(&self, ticket: TicketKey, context: &Context<'_>) -> Poll<Answer> {
        self.lock().poll(ticket, context)
    }

    /// The caller has gone before it took the answer.
    pub(crate) fn abandon(self: &Arc<Self>, ticket: TicketKey) {
        let now = Boottime::now();
        let mut core = self.lock();
        core.abandon(ticket, now);
        let core = self.drive(core, now);
        self.leave(core);
    }

    /// Puts wishes into the machine that are granted together or not at all.
    pub(crate) fn acquire_together(self: &Arc<Self>, wishes: Vec<Wish>) -> Vec<TicketKey> {
        let now = Boottime::now();
        let mut core = self.lock();
        let tickets = core.acquire_together(wishes, now);
        self.leave(core);
        tickets
    }

    /// How a caller stands who waits: how many are before it, and why it has to wait.
    pub(crate) fn standing(&self, ticket: TicketKey) -> (Option<u64>, Option<Busy>) {
        self.lock().standing(ticket)
    }

    /// A caller goes on waiting in another way, unless that could never end.
    pub(crate) fn continue_as(&self, ticket: TicketKey, caller: Caller) -> Result<(), Error> {
        let now = Boottime::now();
        self.lock().continue_as(ticket, caller, now)
    }

    /// A guard wants its grant renewed now.
    pub(crate) fn extend(self: &Arc<Self>, granted: &Granted) -> TicketKey {
        let now = Boottime::now();
        let mut core = self.lock();
        let ticket = core.extend(granted, now);
        self.leave(core);
        ticket
    }

    /// The grant of a guard that is held.
    pub(crate) fn grant(&self, granted: &Granted) -> Option<Grant> {
        self.lock().grant(granted)
    }

    /// Has a question put to the backend on the library's thread, and waits for the answer. It is put even if nobody waits any more.
    pub(crate) async fn ask<T, F>(self: &Arc<Self>, question: impl FnOnce(Arc<Self>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        if self.is_forked() {
            return Err(Error::forked());
        }
        if self.lock().is_closed() {
            return Err(Error::closed());
        }
        let (answer, answered) = oneshot::channel();
        let question = question(Arc::clone(self));
        self.send_errand(async move {
            // Whoever asked may have gone.
            drop(answer.send(question.await));
        })?;
        answered.await.unwrap_or_else(|_| Err(Error::closed()))
    }

    /// Has something done on the library's thread, for nobody who waits.
    pub(crate) fn send_errand(
        self: &Arc<Self>,
        errand: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        self.driver.run_errand(self, errand)
    }

    /// Waits for so long, whatever the caller's runtime; less if the engine ends.
    pub(crate) async fn pause(self: &Arc<Self>, time: Duration) {
        let (answer, over) = oneshot::channel::<()>();
        let pause = async move {
            #[expect(clippy::disallowed_methods, reason = "it runs on the engine's own thread")]
            tokio::time::sleep(time).await;
            drop(answer);
        };
        if self.send_errand(pause).is_ok() {
            // It never sends: either way the pause is over.
            drop(over.await);
        }
    }

    /// How long the store may be out of reach.
    pub(crate) fn store_timeout(&self) -> Duration {
        self.lock().store_timeout()
    }

    /// Who watches the values of locks.
    pub(crate) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// A guard gives its grant back; `completed` if what it was taken for was done. With `answer`, the ticket says when and whether the
    /// store took it.
    pub(crate) fn release(
        self: &Arc<Self>,
        granted: &Granted,
        completed: bool,
        answer: bool,
    ) -> Option<TicketKey> {
        let now = Boottime::now();
        let mut core = self.lock();
        let ticket = core.release(granted, completed, answer, now);
        let core = self.drive(core, now);
        self.leave(core);
        ticket
    }

    /// Refuses everything from now on and gives everything back.
    pub(crate) fn close(self: &Arc<Self>) -> TicketKey {
        let now = Boottime::now();
        let mut core = self.lock();
        let ticket = core.close(now);
        let core = self.drive(core, now);
        self.leave(core);
        ticket
    }

    /// Ends the backend's connections, on the library's thread.
    pub(crate) async fn close_backend(self: &Arc<Self>) -> Result<(), Error> {
        self.driver.close_backend(self).await
    }

    /// Nobody is left who could use it: delivers what can be delivered, for a short while.
    pub(crate) fn shut_down(&self) {
        self.driver.shut_down();
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // Core is left consistent at every step that can panic, and a poisoned lock library helps nobody.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does all steps that the backend does on the spot. `now` is an instant before all of them.
    fn drive<'a>(&'a self, mut core: MutexGuard<'a, Core>, now: Boottime) -> MutexGuard<'a, Core> {
        let Some(inline) = self.backend.inline() else { return core };
        // Without a ttl nothing depends on how long the steps took, and reading the clock costs as much as all else.
        let expires = self.guarantees().ttl.is_some();
        let instant = || if expires { Boottime::now() } else { now };
        while let Some(step) = Step::take(&mut core) {
            drop(core);
            let sent = instant();
            let done = step.run(inline, self.guarantees().backend);
            core = self.lock();
            done.report(&mut core, sent, instant());
        }
        core
    }

    /// Wakes whoever has an answer, and the thread if there is something for it.
    fn leave(self: &Arc<Self>, mut core: MutexGuard<'_, Core>) {
        let news = core.take_news();
        let work = !core.outbox().is_empty();
        let next_tick = core.next_tick();
        drop(core);
        news.spread();
        if (work || next_tick.is_some())
            && let Err(error) = self.driver.nudge(self, work, next_tick)
        {
            let mut core = self.lock();
            core.fail_waits(&driver::no_thread(error));
            let news = core.take_news();
            drop(core);
            news.spread();
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl EventSink for Engine {
    fn event(self: Arc<Self>, event: Event) {
        match &event {
            Event::Changed(name) => return self.watchers.changed(name),
            Event::Resync | Event::Reset => self.watchers.all_changed(),
            _ => {}
        }
        let mut core = self.lock();
        core.event(event, Boottime::now());
        // The backend may be holding its own locks: steps that follow are left to the thread.
        self.leave(core);
    }
}

/// One step that a backend does on the spot.
enum Step {
    Acquire(Claim),
    Cancel(Claim),
    Release(Return),
}

/// A step and its answer.
enum Done {
    Acquired(Claim, Result<Attempt, Error>),
    Cancelled(Claim, Result<(), Error>),
    Released(Grant, Result<Released, Error>),
}

impl Step {
    fn take(core: &mut Core) -> Option<Self> {
        let outbox = core.outbox();
        // What frees a lock goes before what wants one.
        if let Some(at) = outbox.release.iter().rposition(|back| !back.completed) {
            return Some(Self::Release(outbox.release.swap_remove(at)));
        }
        if let Some(claim) = outbox.cancel.pop() {
            return Some(Self::Cancel(claim));
        }
        outbox.acquire.pop().map(Self::Acquire)
    }

    fn run(self, inline: &dyn Inline, backend: &'static str) -> Done {
        match self {
            Self::Acquire(claim) => {
                let reply = inline.acquire(&claim).map_err(|error| error.at(backend, "acquire", &claim.name));
                Done::Acquired(claim, reply)
            }
            Self::Cancel(claim) => {
                let reply = inline.cancel(&claim).map_err(|error| error.at(backend, "cancel", &claim.name));
                Done::Cancelled(claim, reply)
            }
            Self::Release(Return { grant, .. }) => {
                let reply = inline.release(&grant).map_err(|error| error.at(backend, "release", &grant.name));
                Done::Released(grant, reply)
            }
        }
    }
}

impl Done {
    fn report(self, core: &mut Core, sent: Boottime, now: Boottime) {
        match self {
            Self::Acquired(claim, reply) => core.acquired(&claim, sent, reply, now),
            Self::Cancelled(claim, reply) => core.cancelled(&claim, &reply, now),
            Self::Released(grant, reply) => core.released(&grant, &reply, now),
        }
    }
}
