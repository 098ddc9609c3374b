//! The lock space of one run of one case.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use locks_api::spi::{Backend, CrashRelease, Guarantees};
use locks_api::{Locks, LocksBuilder};

use crate::checker::{self, Strictness};
use crate::flaky::{Control, Flaky};
use crate::harness::{AnyBackend, AnyHarness, Fault, Profile};
use crate::history::{self, Event};
use crate::proxy::Proxy;
use crate::recording::{self, Target};
use crate::verdict::{Failure, Verdict, eventually, within};
use crate::worker::Worker;

/// How long anything may take that waits for nobody. Generous: it only ends what hangs.
pub(crate) const PROMPT: Duration = Duration::from_secs(20);

/// What a case has to work with. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct Space(Arc<Inner>);

struct Inner {
    harness: Arc<dyn AnyHarness>,
    profile: Profile,
    /// Goes before all names of this run, so that runs never meet.
    prefix: String,
    names: Mutex<Vec<String>>,
}

impl Space {
    pub(crate) fn new(harness: Arc<dyn AnyHarness>, profile: Profile) -> Self {
        let prefix = format!("kit/{:08x}", fastrand::u32(..));
        Self(Arc::new(Inner { harness, profile, prefix, names: Mutex::default() }))
    }

    /// What the harness can bring about.
    pub(crate) fn faults(&self) -> &'static [Fault] {
        self.0.profile.faults
    }

    pub(crate) fn is_over_tcp(&self) -> bool {
        self.0.profile.over_tcp
    }

    pub(crate) fn guarantees(&self) -> &Guarantees {
        &self.0.profile.guarantees
    }

    /// A lock name of this run. Whether it is free again is looked at after the case.
    pub(crate) fn name(&self, tag: &str) -> String {
        let name = self.short_lived_name(tag);
        self.watch(&name);
        name
    }

    /// A lock name of this run that nobody looks at after the case: it is not free for a while yet.
    pub(crate) fn short_lived_name(&self, tag: &str) -> String {
        format!("{}/{tag}", self.0.prefix)
    }

    /// A name to look at after the case, which has to be unlike every other run's.
    pub(crate) fn watch(&self, name: &str) {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    }

    /// A new `Locks` on a new connection.
    pub(crate) async fn connect(&self) -> Verdict<Locks> {
        self.connect_with(|builder| builder).await
    }

    /// A new `Locks` on a new connection, with options.
    pub(crate) async fn connect_with(
        &self,
        options: impl FnOnce(LocksBuilder) -> LocksBuilder + Send,
    ) -> Verdict<Locks> {
        Ok(options(Locks::builder(self.backend().await?)).build())
    }

    /// A new `Locks` on a connection that can be made bad.
    pub(crate) async fn connect_flaky(&self) -> Verdict<(Locks, Arc<Control>)> {
        let (flaky, control) = Flaky::new(self.backend().await?);
        Ok((Locks::new(flaky), control))
    }

    /// A new `Locks` on a new connection that goes through a proxy of its own.
    pub(crate) async fn connect_wired(&self) -> Verdict<(Locks, Proxy)> {
        self.connect_wired_with(|builder| builder).await
    }

    /// The same, with options.
    pub(crate) async fn connect_wired_with(
        &self,
        options: impl FnOnce(LocksBuilder) -> LocksBuilder + Send,
    ) -> Verdict<(Locks, Proxy)> {
        let proxy = self.proxy()?;
        Ok((options(Locks::builder(self.backend_through(&proxy).await??)).build(), proxy))
    }

    /// A proxy before the store.
    pub(crate) fn proxy(&self) -> Verdict<Proxy> {
        let address = self.0.harness.address();
        let address = address.ok_or_else(|| Failure::new("a harness over TCP must have an address"))?;
        Ok(Proxy::start_seeded(address, fastrand::u64(..))?)
    }

    /// A new connection through this proxy, without an engine, or why the backend could not make one.
    pub(crate) async fn backend_through(&self, proxy: &Proxy) -> Verdict<locks_api::Result<AnyBackend>> {
        within(PROMPT, "connecting through a proxy", self.0.harness.connect_through(proxy.address())).await
    }

    /// A new connection, without an engine.
    pub(crate) async fn backend(&self) -> Verdict<AnyBackend> {
        let backend = within(PROMPT, "connecting", self.0.harness.connect()).await??;
        if backend.guarantees() != self.guarantees() {
            return Err(Failure::new(format!(
                "the connection promises {:?} and the harness {:?}",
                backend.guarantees(),
                self.guarantees()
            )));
        }
        Ok(backend)
    }

    /// How other processes reach this space.
    pub(crate) fn worker_url(&self) -> Option<String> {
        self.0.harness.worker_url()
    }

    /// Another process that is connected to this space.
    pub(crate) async fn worker(&self) -> Verdict<Worker> {
        let url = self.worker_url().ok_or_else(|| {
            Failure::new("locks reach further than one process, so the harness must have a worker_url")
        })?;
        Worker::start(self.0.profile.name, &url).await
    }

    /// Another process all of whose traffic goes through this proxy.
    pub(crate) async fn worker_through(&self, proxy: &Proxy) -> Verdict<Worker> {
        let url = self.0.harness.worker_url_through(proxy.address()).ok_or_else(|| {
            Failure::new("a harness over TCP that has a worker_url must have a worker_url_through")
        })?;
        Worker::start(self.0.profile.name, &url).await
    }

    /// Several processes that are connected to this space.
    pub(crate) async fn workers(&self, count: usize) -> Verdict<Vec<Worker>> {
        let mut workers = Vec::with_capacity(count);
        for _ in 0..count {
            workers.push(self.worker().await?);
        }
        Ok(workers)
    }

    /// A ttl that makes cases short: two seconds, if the store takes that. `None` for stores without expiry.
    pub(crate) fn short_ttl(&self) -> Option<Duration> {
        let limits = self.guarantees().ttl?;
        Some(Duration::from_secs(2).clamp(limits.min, limits.max))
    }

    /// The same, for cases that need one.
    pub(crate) fn ttl(&self) -> Verdict<Duration> {
        self.short_ttl().ok_or_else(|| Failure::new("this case needs a store with expiry"))
    }

    /// How long a lock may stay taken after its holder's process died, with room for a slow machine.
    pub(crate) fn crash_limit(&self) -> Duration {
        match (self.guarantees().crash_release, self.short_ttl()) {
            (CrashRelease::AfterTtl, Some(ttl)) => ttl + PROMPT,
            _ => PROMPT,
        }
    }

    /// Whether a lock outlives the connection over which it was taken: what carries it is the store's clock alone.
    pub(crate) fn keeps_over_a_cut(&self) -> bool {
        let guarantees = self.guarantees();
        guarantees.ttl.is_some() && guarantees.crash_release == CrashRelease::AfterTtl
    }

    /// What to expect of histories in which holders may lose their locks, by cuts, too.
    pub(crate) fn strictness_over_cuts(&self) -> Strictness {
        if self.keeps_over_a_cut() || !self.is_over_tcp() { Strictness::Loss } else { Strictness::Cuts }
    }

    /// How long it may take until somebody gets a lock after the store forgot something: until all that it forgot has surely expired.
    pub(crate) fn grace_limit(&self) -> Duration {
        self.guarantees().ttl.map_or(Duration::ZERO, |limits| limits.max) * 2 + PROMPT
    }

    pub(crate) async fn checkpoint(&self) -> Verdict {
        recording::strikes(Target::Store, "a copy of the data is made");
        Ok(self.0.harness.checkpoint().await?)
    }

    pub(crate) async fn inject(&self, fault: Fault) -> Verdict {
        recording::begins(Target::Store, &fault.to_string());
        self.0.harness.inject(fault).await?;
        if !fault.is_a_state() {
            recording::ends(Target::Store);
        }
        Ok(())
    }

    pub(crate) async fn revoke(&self, lock: &str) -> Verdict {
        recording::begins(Target::Store, &Fault::Revocation.to_string());
        self.0.harness.revoke(lock).await?;
        recording::ends(Target::Store);
        Ok(())
    }

    pub(crate) async fn heal(&self, fault: Fault) -> Verdict {
        self.0.harness.heal(fault).await?;
        recording::ends(Target::Store);
        Ok(())
    }

    /// Fails unless every lock of the case can be had at once by somebody new. What died with a process may take as long as its ttl.
    pub(crate) async fn all_is_free(&self) -> Verdict {
        let names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let locks = self.connect().await?;
        for name in names {
            let lock = locks.lock(&name);
            let freed =
                within(self.crash_limit(), "freeing", lock.acquire_timeout(self.crash_limit())).await?;
            let guard = freed.map_err(|error| Failure::new(format!("left behind: {error}")))?;
            guard.release().await?;
        }
        locks.close().await?;
        Ok(())
    }
}

/// Fails on the first thing that the history shows to be wrong.
#[track_caller]
pub(crate) fn check_history(events: &[Event], strictness: Strictness) -> Verdict {
    match checker::check(events, strictness) {
        Ok(()) => Ok(()),
        Err(violation) => {
            let failure = Failure::new(violation.to_string());
            Err(match violation.lock() {
                Some(lock) => failure.about(lock, violation.tokens()),
                None => failure,
            })
        }
    }
}

/// The same for a history in a file, which must have this many events at least.
#[track_caller]
pub(crate) fn check_history_file(path: &Path, at_least: usize, strictness: Strictness) -> Verdict {
    let events = history::read(path)?;
    if events.len() < at_least {
        return Err(Failure::new(format!("the history has {} events instead of {at_least}", events.len())));
    }
    check_history(&events, strictness)
}

/// Fails unless `locks` can't have the lock now.
pub(crate) async fn is_busy(locks: &Locks, name: &str) -> Verdict {
    match within(PROMPT, "a try", locks.lock(name).try_acquire()).await?? {
        None => Ok(()),
        Some(guard) => {
            let token = guard.fencing_token();
            let what = format!("{name:?} was granted under token {token} although it is held");
            Err(Failure::new(what).about(name, vec![token.get()]))
        }
    }
}

/// Waits until a try is refused no more, and leaves the lock free.
pub(crate) async fn becomes_free(locks: &Locks, name: &str, limit: Duration) -> Verdict {
    within(limit + PROMPT, "a wait", locks.lock(name).acquire_timeout(limit)).await??.release().await?;
    Ok(())
}

/// Waits until the process is in this state, as in `/proc`: `T` for stopped.
pub(crate) async fn reaches_state(pid: u32, state: char) -> Verdict {
    eventually(PROMPT, "a change of a process's state", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            // The name before it, in parentheses, may hold anything.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(state))
        })
    })
    .await
}
