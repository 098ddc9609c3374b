//! The engine: everything that is hard about locks, once, for all backends.
//!
//! [`Core`] is a state machine without I/O; [`Engine`] puts it behind a mutex, carries its questions to the backend and
//! its answers to the callers; [`Driver`] is the library's own thread, which does so when no caller is there.

mod core;
mod debt;
mod driver;
mod entry;
mod lease;
mod outbox;
mod renewal;
mod replies;
#[cfg(test)]
mod simulation;
mod ticket;
mod timers;
mod waiting;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use crate::clock::Boottime;
use crate::error::{Error, ErrorKind};
use crate::fork::Generation;
use crate::spi::{Attempt, Backend, Claim, Event, EventSink, Events, Grant, Guarantees, Inline, Released};

pub(crate) use self::core::Settings;
pub(crate) use lease::Lease;
pub(crate) use ticket::{Answer, Granted, Patience, TicketKey, Wish};

use self::core::Core;
use driver::Driver;

/// One backend, the state machine in front of it and the thread that drives it.
pub(crate) struct Engine {
    core: Mutex<Core>,
    backend: Box<dyn Backend>,
    driver: Driver,
    /// The process that made it: a forked child may not touch anything here.
    generation: Generation,
}

impl Engine {
    pub(crate) fn new(backend: Box<dyn Backend>, settings: Settings) -> Arc<Self> {
        let engine = Arc::new(Self {
            core: Mutex::new(Core::new(settings)),
            backend,
            driver: Driver::default(),
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

    /// A guard gives its grant back. With `answer`, the ticket says when and whether the store took it.
    pub(crate) fn release(self: &Arc<Self>, granted: &Granted, answer: bool) -> Option<TicketKey> {
        let now = Boottime::now();
        let mut core = self.lock();
        let ticket = core.release(granted, answer, now);
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
            let error =
                Error::new(ErrorKind::StoreFull, "the library's thread can't be started").with_source(error);
            let mut core = self.lock();
            core.fail_waits(&error);
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
    Release(Grant),
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
        if let Some(grant) = outbox.release.pop() {
            return Some(Self::Release(grant));
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
            Self::Release(grant) => {
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
