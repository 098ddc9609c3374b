//! One process's way to the store, and what can go wrong on it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use locks_api::spi::{Events, Result};
use locks_api::{Error, ErrorKind};
use tokio::sync::watch;

/// One process's way to an emulated store. Everything works until a test says otherwise.
#[derive(Clone, Debug)]
pub struct Line(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lost_requests: AtomicU32,
    lost_replies: AtomicU32,
    doubled: AtomicU32,
    delay_nanos: AtomicU64,
    state: watch::Sender<State>,
    keeps_releases: AtomicBool,
    requests: AtomicU64,
    events: Mutex<Option<Events>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// Everything fails at once.
    Refusing,
    /// Nothing comes back.
    Silent,
}

impl Line {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            lost_requests: AtomicU32::new(0),
            lost_replies: AtomicU32::new(0),
            doubled: AtomicU32::new(0),
            delay_nanos: AtomicU64::new(0),
            state: watch::channel(State::Up).0,
            keeps_releases: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            events: Mutex::new(None),
        }))
    }

    /// The next `count` requests do not reach the store.
    pub fn lose_requests(&self, count: u32) {
        self.0.lost_requests.store(count, Ordering::SeqCst);
    }

    /// The next `count` requests are carried out, and their replies are lost.
    pub fn lose_replies(&self, count: u32) {
        self.0.lost_replies.store(count, Ordering::SeqCst);
    }

    /// The next `count` requests reach the store twice.
    pub fn double(&self, count: u32) {
        self.0.doubled.store(count, Ordering::SeqCst);
    }

    /// Every request and every reply takes this long from now on.
    pub fn delay(&self, delay: Duration) {
        self.0.delay_nanos.store(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Every request is refused at once, as by a host without a server.
    pub fn refuse(&self) {
        self.0.state.send_replace(State::Refusing);
    }

    /// No request is answered, as behind a black hole. Those that wait stay so until the line is restored.
    pub fn silence(&self) {
        self.0.state.send_replace(State::Silent);
    }

    /// Releases and cancellations do not reach the store, everything else does.
    pub fn keep_releases(&self) {
        self.0.keeps_releases.store(true, Ordering::SeqCst);
    }

    /// Works again. The process is told that it may have missed something.
    pub fn restore(&self) {
        self.0.keeps_releases.store(false, Ordering::SeqCst);
        self.0.state.send_replace(State::Up);
        if let Some(events) = self.0.events.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            events.resync();
        }
    }

    /// How many requests were made so far.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::SeqCst)
    }

    /// Whether a push from the store arrives.
    pub(super) fn is_up(&self) -> bool {
        *self.0.state.borrow() == State::Up
    }

    pub(super) fn attach(&self, events: Events) {
        *self.0.events.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }

    /// Carries what gives something back, unless that is kept from the store.
    pub(super) async fn carry_release<T>(&self, step: impl Fn() -> T) -> Result<T> {
        if self.0.keeps_releases.load(Ordering::SeqCst) {
            return Err(unavailable("the request was lost"));
        }
        self.carry(step).await
    }

    /// Carries one request to the store and its reply back, or not.
    pub(super) async fn carry<T>(&self, step: impl Fn() -> T) -> Result<T> {
        let line = &*self.0;
        line.requests.fetch_add(1, Ordering::SeqCst);
        self.travel().await?;
        if take(&line.lost_requests) {
            return Err(unavailable("the request was lost"));
        }
        let mut reply = step();
        if take(&line.doubled) {
            reply = step();
        }
        self.travel().await?;
        if take(&line.lost_replies) {
            return Err(unavailable("the reply was lost"));
        }
        Ok(reply)
    }

    async fn travel(&self) -> Result<()> {
        let nanos = self.0.delay_nanos.load(Ordering::SeqCst);
        if nanos > 0 {
            #[expect(clippy::disallowed_methods, reason = "the delay is what is emulated")]
            tokio::time::sleep(Duration::from_nanos(nanos)).await;
        }
        let state = *self.0.state.borrow();
        match state {
            State::Up => Ok(()),
            State::Refusing => Err(unavailable("connection refused")),
            State::Silent => {
                let mut changes = self.0.state.subscribe();
                match changes.wait_for(|state| *state != State::Silent).await {
                    Ok(_) => Err(unavailable("the connection was cut")),
                    Err(_) => Err(unavailable("the line is gone")),
                }
            }
        }
    }
}

fn unavailable(message: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

fn take(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}
