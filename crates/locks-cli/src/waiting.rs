//! The wait for the lock, and what is said about it.

use std::time::{Duration, Instant};

use locks::{Boottime, Busy, ErrorKind, Locks, WaitStatus};

use crate::events::Events;
use crate::json;
use crate::kind::{Held, Wish};
use crate::patience::Patience;
use crate::reactor::Reactor;
use crate::store::Store;
use crate::trouble::{self, Trouble};
use crate::words::{Audience, Words};

/// How long a store may be out of reach for somebody who wants to hear at once.
const IMPATIENT: Duration = Duration::from_secs(5);

/// And for somebody who waits anyway.
const PATIENT: Duration = Duration::from_secs(30);

/// How long the store may still take for its first answer when the time is up.
const LAST_CHANCE: Duration = Duration::from_secs(3);

/// How long a person waits before the status line appears, and between its changes.
const TICK: Duration = Duration::from_secs(1);

/// Somebody who wants the lock.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    pub(crate) store: &'a Store,
    pub(crate) wish: &'a Wish,
    pub(crate) reactor: &'a Reactor,
    pub(crate) words: &'a Words,
    pub(crate) events: &'a Events,
}

impl Waiter<'_> {
    /// Waits as long as the patience lasts, or until a signal comes. `check` may refuse a store before it is asked.
    ///
    /// # Errors
    ///
    /// Why the lock was not had.
    pub(crate) fn acquire(
        &self,
        mut patience: Patience,
        check: impl Fn(&Locks) -> Result<(), Trouble>,
    ) -> Result<(Locks, Held), Trouble> {
        let begun = Instant::now();
        let limit = patience.limit();
        let audience = self.words.audience();
        if patience != Patience::TryOnce && audience != Audience::Nobody {
            // Once without patience, to hear early what is in the way.
            let locks = self.open(patience.at_most(IMPATIENT))?;
            check(&locks)?;
            let obstacle = match self.attempt(&locks)? {
                Ok(held) => return Ok((locks, held)),
                Err(error) => error,
            };
            patience = patience.less(begun.elapsed());
            match obstacle.kind() {
                ErrorKind::Timeout if audience == Audience::Log => {
                    self.words
                        .remark(&format!("waiting: {}", trouble::obstacle(&self.wish.name, obstacle.busy())));
                }
                ErrorKind::Timeout => {}
                ErrorKind::Unavailable if patience != Patience::TryOnce => {
                    self.words.remark(&format!("still trying: {}", trouble::chain(&obstacle)));
                }
                _ => return Err(Trouble::acquire(&self.wish.name, &obstacle)),
            }
            if let (Patience::TryOnce, Some(limit)) = (patience, limit) {
                return Err(Trouble::gave_up(&self.wish.name, limit, obstacle.busy()));
            }
        }
        match patience {
            Patience::TryOnce => {
                let locks = self.open(IMPATIENT)?;
                check(&locks)?;
                match self.attempt(&locks)? {
                    Ok(held) => Ok((locks, held)),
                    Err(error) => Err(Trouble::acquire(&self.wish.name, &error)),
                }
            }
            Patience::AtMost(rest) => {
                let locks = self.open(rest.min(PATIENT))?;
                check(&locks)?;
                let end = Boottime::now().after(rest);
                let held = self.wait(&locks, Some((end, limit.unwrap_or(rest))), audience)?;
                Ok((locks, held))
            }
            Patience::Forever => {
                let locks = self.open(PATIENT)?;
                check(&locks)?;
                let held = self.wait(&locks, None, audience)?;
                Ok((locks, held))
            }
        }
    }

    /// The store, which may be out of reach for so long before that is an error.
    fn open(&self, store_timeout: Duration) -> Result<Locks, Trouble> {
        let builder = self
            .reactor
            .run_unless_signalled(locks::builder(&self.store.url))
            .map_err(Trouble::signal)?
            .map_err(|error| Trouble::connect(&self.store.source, &error))?;
        Ok(builder.store_timeout(store_timeout).build())
    }

    /// Asks once. A signal ends it.
    fn attempt(&self, locks: &Locks) -> Result<locks::Result<Held>, Trouble> {
        self.reactor.run_unless_signalled(self.wish.attempt(locks)).map_err(Trouble::signal)
    }

    /// Waits until the lock is had or the time is up, whose whole length is given for the message.
    fn wait(
        &self,
        locks: &Locks,
        end: Option<(Boottime, Duration)>,
        audience: Audience,
    ) -> Result<Held, Trouble> {
        let begun = Instant::now();
        let mut waiting = self.wish.wait(locks);
        let mut line = StatusLine { words: self.words, shown: false };
        let mut next_tick = (audience == Audience::Watcher).then(|| Boottime::now().after(TICK));
        let mut told = false;
        let mut seen: Option<(Busy, Boottime)> = None;
        loop {
            if let std::task::Poll::Ready(got) = self.reactor.poll(waiting.as_mut()) {
                return got.map_err(|error| Trouble::acquire(&self.wish.name, &error));
            }
            if let Some(signal) = self.reactor.signals().arrivals().next() {
                return Err(Trouble::signal(signal));
            }
            let mut status = waiting.status();
            if let Some(busy) = &status.busy
                && !told
            {
                told = true;
                self.events.tell("waiting", |event| {
                    let event = json::busy(event.text("lock", self.wish.name.as_str()), busy);
                    event.with(status.position, |event, position| event.number("position", position))
                });
            }
            let now = Boottime::now();
            if let Some(busy) = &mut status.busy {
                if seen.as_ref().is_none_or(|(before, _)| before != busy) {
                    seen = Some((busy.clone(), now));
                }
                if let Some((_, at)) = &seen {
                    count_down(busy, now.since(*at));
                }
            }
            let mut wake = next_tick;
            if let Some((end, limit)) = end {
                let last = if status.busy.is_some() { end } else { end.after(LAST_CHANCE) };
                if now >= last {
                    return Err(Trouble::gave_up(&self.wish.name, limit, status.busy.as_ref()));
                }
                // The first answer may come at any time and rings no bell of its own.
                let look = if now >= end { now.after(TICK / 50) } else { end };
                wake = Some(wake.map_or(look, |wake| wake.min(look)));
            }
            if next_tick.is_some_and(|tick| now >= tick) {
                line.show(&self.line(&status, begun.elapsed()));
                next_tick = Some(now.after(TICK));
                wake = Some(end.map_or(now.after(TICK), |(end, _)| now.after(TICK).min(end.max(now))));
            }
            if self.events.are_told() && !told {
                let look = now.after(TICK / 20);
                wake = Some(wake.map_or(look, |wake| wake.min(look)));
            }
            self.reactor.sleep(wake, None);
        }
    }

    /// Reads as `waiting for 12s: "nightly" is held by pid 4711 on db1, for 3m 2s (since …), 2 before us`.
    fn line(&self, status: &WaitStatus, waited: Duration) -> String {
        let seconds = Duration::from_secs(waited.as_secs());
        let mut line = format!("waiting for {}", humantime::format_duration(seconds));
        match &status.busy {
            Some(busy) => line += &format!(": {}", trouble::obstacle(&self.wish.name, Some(busy))),
            None => line += ": the store has not answered yet",
        }
        match (&status.busy, status.position) {
            (Some(Busy::Held { .. }), Some(0)) => line += ", next is us",
            (Some(_), Some(position)) if position > 0 => line += &format!(", {position} before us"),
            _ => {}
        }
        line
    }
}

/// What is left of a grace that was heard of so long ago.
fn count_down(busy: &mut Busy, passed: Duration) {
    if let Busy::Grace { remaining } | Busy::NotDue { remaining } = busy {
        *remaining = remaining.saturating_sub(passed);
    }
}

/// A line on the terminal that goes when it is dropped.
struct StatusLine<'a> {
    words: &'a Words,
    shown: bool,
}

impl StatusLine<'_> {
    fn show(&mut self, line: &str) {
        self.shown = true;
        self.words.status(line);
    }
}

impl Drop for StatusLine<'_> {
    fn drop(&mut self) {
        if self.shown {
            self.words.end_status();
        }
    }
}
