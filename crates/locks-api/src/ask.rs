//! What all kinds of locks share: the options, and the ways to ask.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::busy::Busy;
use crate::caller::{Caller, Manner};
use crate::clock::Boottime;
use crate::engine::{Answer, Patience, Special, Terms, Wish};
use crate::error::{Error, ErrorKind};
use crate::guard::{LockGuard, OnLost};
use crate::locks::Handle;
use crate::name::LockName;
use crate::outcome::Outcome;
use crate::request::Request;
use crate::scope;
use crate::spi::{Extras, Mode, Offer};

/// A lock and the options for holding it.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) handle: Arc<Handle>,
    pub(crate) name: Result<LockName, Error>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) special: Special,
    pub(crate) label: Option<String>,
    pub(crate) manner: Manner,
}

/// How it is to be held, beside the options.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) mode: Mode,
    pub(crate) value: Option<Arc<str>>,
}

impl From<Mode> for Kind {
    fn from(mode: Mode) -> Self {
        Self { mode, value: None }
    }
}

impl Ask {
    pub(crate) fn new(handle: Arc<Handle>, name: Result<LockName, Error>) -> Self {
        Self { handle, name, ttl: None, special: Special::default(), label: None, manner: Manner::Awaits }
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_ref().map_or("", LockName::as_str)
    }

    pub(crate) async fn acquire(&self, kind: impl Into<Kind>) -> Result<LockGuard, Error> {
        let request = self.pending(kind, Patience::Endless)?;
        let got = self.answered(request.await)?;
        got.map_err(|busy| self.timed_out("not free").with_busy(busy))
    }

    pub(crate) async fn try_acquire(&self, kind: impl Into<Kind>) -> Result<Option<LockGuard>, Error> {
        let request = self.pending(kind, Patience::Try)?;
        Ok(self.answered(request.await)?.ok())
    }

    pub(crate) async fn acquire_timeout(
        &self,
        kind: impl Into<Kind>,
        timeout: Duration,
    ) -> Result<LockGuard, Error> {
        match self.request(kind, patience(timeout)).await {
            Ok(Ok(guard)) => Ok(guard),
            Ok(Err(busy)) => Err(self.timed_out("not free").with_busy(busy)),
            Err(error) => Err(self.waited_for(error, timeout)),
        }
    }

    pub(crate) async fn run<F: Future>(&self, kind: impl Into<Kind>, body: F) -> Result<F::Output, Error> {
        self.acquire(kind).await?.cover(self.completes(), OnLost::Stop, body).await
    }

    pub(crate) async fn try_run<F: Future>(
        &self,
        kind: impl Into<Kind>,
        body: F,
    ) -> Result<Outcome<F::Output>, Error> {
        match self.request(kind, Patience::Try).await? {
            Ok(guard) => guard.cover(self.completes(), OnLost::Stop, body).await.map(Outcome::Ran),
            Err(busy) => Ok(Outcome::Skipped(busy)),
        }
    }

    /// Asks the engine: a guard, or why not now.
    pub(crate) async fn request(
        &self,
        kind: impl Into<Kind>,
        patience: Patience,
    ) -> Result<Result<LockGuard, Busy>, Error> {
        self.answered(self.pending(kind, patience)?.await)
    }

    /// The request, checked and not yet sent.
    pub(crate) fn pending(&self, kind: impl Into<Kind>, patience: Patience) -> Result<Request, Error> {
        let wish = self.wish(kind.into(), patience)?;
        Ok(Request::new(Arc::clone(&self.handle), wish))
    }

    /// What came of a request.
    pub(crate) fn answered(&self, answer: Answer) -> Result<Result<LockGuard, Busy>, Error> {
        match answer {
            Answer::Granted(granted) => {
                Ok(Ok(LockGuard::new(Arc::clone(&self.handle), granted, self.name.clone()?)))
            }
            Answer::Busy(busy) => Ok(Err(busy)),
            Answer::Failed(error) => Err(self.located(error)),
            Answer::Done => Err(Error::closed()),
        }
    }

    /// What the engine is to be asked, checked before any I/O.
    pub(crate) fn wish(&self, kind: Kind, patience: Patience) -> Result<Wish, Error> {
        let name = self.name.clone()?;
        if self.handle.engine.is_forked() {
            return Err(self.located(Error::forked()));
        }
        let terms = self.terms(kind).map_err(|error| self.located(error))?;
        if scope::is_inside(&self.handle, &name) {
            let message = "this task already runs under this lock and would wait for itself";
            return Err(self.located(Error::new(ErrorKind::WouldDeadlock, message)));
        }
        let holder = match &self.label {
            None => Arc::clone(&self.handle.holder),
            Some(label) => Arc::new((*self.handle.holder).clone().with_label(label)),
        };
        let caller = Caller { thread: None, manner: self.manner };
        Ok(Wish { name, terms, holder, patience, caller })
    }

    fn terms(&self, Kind { mode, value }: Kind) -> Result<Terms, Error> {
        let ttl = self.handle.ttl(self.ttl)?;
        if mode == Mode::Exclusive && value.is_none() && self.special == Special::default() {
            return Ok(Terms::plain(ttl));
        }
        let mut special = self.special.clone();
        if value.is_some() {
            Arc::make_mut(special.extras.get_or_insert_default()).value = value;
        }
        self.check(mode, &special)?;
        Ok(Terms { mode, ttl, special: (special != Special::default()).then(|| Arc::new(special)) })
    }

    /// Refuses what the store does not offer, and what makes no sense.
    fn check(&self, mode: Mode, special: &Special) -> Result<(), Error> {
        let extras = special.extras.as_deref().cloned().unwrap_or_default();
        let offer = |offer, wanted: bool| if wanted { self.handle.offers(offer) } else { Ok(()) };
        offer(Offer::Shared, mode == Mode::Shared)?;
        offer(Offer::Permits, matches!(mode, Mode::Permits { .. }))?;
        offer(Offer::Schedule, extras.min_hold.is_some() || extras.once_per.is_some())?;
        offer(Offer::Values, extras.value.is_some())?;
        if let Mode::Permits { count, limit } = mode
            && (count == 0 || count > limit)
        {
            let message =
                format!("{count} permits of a semaphore that has {limit} can't be had; ask for 1 to {limit}");
            return Err(Error::new(ErrorKind::Config, message));
        }
        let options =
            [("max_hold", special.max_hold), ("min_hold", extras.min_hold), ("once_per", extras.once_per)];
        match options.iter().find(|(_, time)| time.is_some_and(|time| time.is_zero())) {
            Some((option, _)) => {
                Err(Error::new(ErrorKind::Config, format!("{option} can't be zero; leave it out")))
            }
            None => Ok(()),
        }
    }

    /// Changes what few ask for.
    pub(crate) fn change_extras(&mut self, change: impl FnOnce(&mut Extras)) {
        change(Arc::make_mut(self.special.extras.get_or_insert_default()));
    }

    /// Whether the end of a body is to be remembered.
    fn completes(&self) -> bool {
        self.special.extras.as_ref().is_some_and(|extras| extras.once_per.is_some())
    }

    /// The error of a wait that lasted for `timeout`.
    pub(crate) fn waited_for(&self, error: Error, timeout: Duration) -> Error {
        if error.kind() != ErrorKind::Timeout {
            return error;
        }
        let late = self.timed_out(format!("not acquired within {timeout:?}"));
        match error.busy() {
            Some(busy) => late.with_busy(busy.clone()),
            None => late,
        }
    }

    pub(crate) fn timed_out(&self, message: impl Into<Cow<'static, str>>) -> Error {
        self.located(Error::new(ErrorKind::Timeout, message))
    }

    pub(crate) fn located(&self, error: Error) -> Error {
        match &self.name {
            Ok(name) => error.at(self.handle.engine.guarantees().backend, "acquire", name),
            Err(_) => error,
        }
    }
}

/// How long to wait from now.
pub(crate) fn patience(timeout: Duration) -> Patience {
    let deadline = Boottime::now().after(timeout);
    match timeout {
        Duration::ZERO => Patience::Try,
        _ if deadline == Boottime::NEVER => Patience::Endless,
        _ => Patience::Until(deadline),
    }
}

/// The options that a kind of lock has, as methods. Its [`Ask`] is its field `ask`, or that of the field named in brackets.
macro_rules! options {
    ($type:ident: $($option:ident)+) => {
        crate::ask::options!($type []: $($option)+);
    };
    ($type:ident $at:tt: $($option:ident)+) => {
        impl $type {
            $(crate::ask::option!($option $at);)+
            crate::ask::option!(name $at);
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type)).field("name", &self.name()).finish_non_exhaustive()
            }
        }
    };
}

macro_rules! option {
    (name [$($at:ident)?]) => {
        /// The lock's name; empty if it broke the rules.
        pub fn name(&self) -> &str {
            self.$($at.)?ask.name()
        }
    };
    (ttl [$($at:ident)?]) => {
        /// At most how long the store keeps others out after this process has vanished. Default: the store's, 15 s for most.
        ///
        /// Stores whose locks end with their process meet any ttl. Elsewhere a longer one rides out longer outages
        /// of the store and longer pauses of this process, and a shorter one frees the lock of a dead process sooner. A ttl
        /// that is zero, or that the store can't do, is an [`ErrorKind::Config`](crate::ErrorKind::Config) of the operations.
        pub fn ttl(mut self, ttl: std::time::Duration) -> Self {
            self.$($at.)?ask.ttl = Some(ttl);
            self
        }
    };
    (label [$($at:ident)?]) => {
        /// What others are told about the holder beside host and pid.
        pub fn label(mut self, label: impl Into<String>) -> Self {
            self.$($at.)?ask.label = Some(label.into());
            self
        }
    };
    (renew [$($at:ident)?]) => {
        /// Whether the library keeps the lock alive. Default: yes. Without it the lock is lost after its ttl, less a margin, unless
        /// [`extend`](crate::LockGuard::extend) is called in time: for holders that want to prove that they make progress.
        ///
        /// Where locks do not expire there is nothing to renew, and the lock is held until it is released.
        pub fn renew(mut self, renew: bool) -> Self {
            self.$($at.)?ask.special.by_hand = !renew;
            self
        }
    };
    (max_hold [$($at:ident)?]) => {
        /// For how long the lock is held at most. Default: for as long as the guard lives.
        ///
        /// When the time is over the guard has lost its lock ([`LossReason::MaxHold`](crate::LossReason::MaxHold)), and the lock goes to the
        /// next one: a stuck holder does not hold up the others for ever. Zero is an [`ErrorKind::Config`](crate::ErrorKind::Config).
        #[doc(alias = "lock_at_most_for")]
        pub fn max_hold(mut self, limit: std::time::Duration) -> Self {
            self.$($at.)?ask.special.max_hold = Some(limit);
            self
        }
    };
    (min_hold [$($at:ident)?]) => {
        /// For how long from its grant nobody else gets the lock, even if it is given back earlier or its holder dies. Default: not at all.
        ///
        /// For jobs that are started on several machines at about the same time and that are over faster than their clocks agree: those who try meanwhile are told
        /// [`Busy::NotDue`](crate::Busy::NotDue), those who wait do so until it is over. Judged by the store's clock. Zero is an
        /// [`ErrorKind::Config`](crate::ErrorKind::Config), a store that can't do it an [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
        #[doc(alias = "lock_at_least_for")]
        pub fn min_hold(mut self, least: std::time::Duration) -> Self {
            self.$($at.)?ask.change_extras(|extras| extras.min_hold = Some(least));
            self
        }
    };
    (once_per [$($at:ident)?]) => {
        /// That the lock is not due before so much time has passed since the start of the last hold that was
        /// [completed](crate::LockGuard::complete). Default: it is always due.
        ///
        /// Whoever tries earlier is told [`Busy::NotDue`](crate::Busy::NotDue), whoever waits does so until then. A hold that ended otherwise, by
        /// [`release`](crate::LockGuard::release), drop, loss or death, does not count: what it was for can be tried again. `run` completes when its
        /// body ends. Judged by the store's clock. Zero is an [`ErrorKind::Config`](crate::ErrorKind::Config), a store that can't do it an
        /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
        pub fn once_per(mut self, interval: std::time::Duration) -> Self {
            self.$($at.)?ask.change_extras(|extras| extras.once_per = Some(interval));
            self
        }
    };
}

pub(crate) use {option, options};
