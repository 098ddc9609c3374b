//! From the command's start to its end: signals, the loss of the lock, the limit on its time.

use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use locks::{Boottime, LossReason};
use nix::sys::signal::Signal;

use crate::child::{self, Ended, Running, State};
use crate::events::Events;
use crate::guardian::{Hours, Leaving, OnDuty, Report};
use crate::kind::Held;
use crate::reactor::Reactor;
use crate::terminal::Terminal;
use crate::words::Words;

/// What to do with the command when its lock is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnLost {
    /// End it, before somebody else can have the lock.
    #[default]
    Kill,
    /// Let it run and say so.
    Warn,
    /// Let it run.
    Ignore,
}

/// What a command may do, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) on_lost: OnLost,
    pub(crate) max_run: Option<Duration>,
    /// How long after TERM comes KILL.
    pub(crate) kill_after: Duration,
    /// How long before the lock's deadline all is to be over.
    pub(crate) lead: Duration,
    /// Whether what the command leaves behind in its process group is ended before the lock is given back.
    pub(crate) clears_up: bool,
}

/// How the command ended, and why if not by itself.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ended: Ended,
    pub(crate) reason: Option<Reason>,
    /// Whether it was ended by a key of the terminal that only it got.
    pub(crate) interrupted: bool,
    /// Dropped when there is time to wait for its end.
    pub(crate) _guardian: Option<Leaving>,
}

/// Why a command was ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Lost(LossReason),
    RanTooLong(Duration),
    /// Nobody would have ended it if we had been stopped or killed.
    Unguarded,
}

/// Everything about a command that runs.
#[derive(Debug)]
pub(crate) struct Supervisor<'a> {
    pub(crate) command: Running,
    pub(crate) held: &'a Held,
    pub(crate) terms: Terms,
    pub(crate) guardian: Option<OnDuty>,
    pub(crate) terminal: Terminal,
    pub(crate) reactor: &'a Reactor,
    pub(crate) words: &'a Words,
    pub(crate) events: &'a Events,
}

/// TERM was sent.
#[derive(Clone, Copy, Debug)]
struct Ending {
    /// `None` if it ended by itself and left others behind.
    reason: Option<Reason>,
    kill: Boottime,
    killed: bool,
}

/// How often we look whether the rest of the command's group is gone, which nobody tells us.
const LOOK: Duration = Duration::from_millis(5);

/// For how long we look after KILL, which nothing survives: what waits for a broken disk is gone for all that matters.
const AFTER_KILL: Duration = Duration::from_secs(2);

impl Supervisor<'_> {
    /// Waits until the command is gone, with its process group where that has to be.
    ///
    /// # Errors
    ///
    /// If the operating system doesn't let us wait.
    pub(crate) fn run(mut self) -> io::Result<Outcome> {
        let last = self.terms.max_run.map(|limit| Boottime::now().after(limit));
        let mut lost = pin!(self.held.lost());
        let mut was_lost = false;
        let mut ending: Option<Ending> = None;
        let mut ended: Option<(Ended, bool)> = None;
        loop {
            if ended.is_none() {
                match self.command.state()? {
                    State::Ended(how) => {
                        let interrupted = how == Ended::Killed(Signal::SIGINT as i32)
                            && self.terminal.is_with(&self.command);
                        ended = Some((how, interrupted));
                        self.terminal.take_back(&self.command);
                    }
                    State::Stopped(signal) => {
                        self.terminal.stopped(signal, &self.command, self.reactor.signals())?;
                    }
                    State::Runs => {}
                }
            }
            let guardian = self.guardian.as_ref().map(OnDuty::pid);
            child::wait_for_strangers([Some(self.command.pid()).filter(|_| ended.is_none()), guardian]);
            if let Some((ended, interrupted)) = ended
                && self.is_over(ending)
            {
                let reason = ending.and_then(|ending| ending.reason);
                let guardian = self.guardian.map(OnDuty::dismiss);
                return Ok(Outcome { ended, reason, interrupted, _guardian: guardian });
            }
            self.pass_on_signals(ended.is_none());
            let now = Boottime::now();
            if !was_lost && let Poll::Ready(reason) = self.reactor.poll(lost.as_mut()) {
                was_lost = true;
                self.events
                    .tell("lost", |event| event.text("lock", self.held.name()).text("reason", code(reason)));
                self.on_loss(reason, now, &mut ending);
            }
            let hours = self.hours();
            if let Some(hours) = hours
                && now >= hours.term
            {
                self.end(Reason::Lost(LossReason::Expired), now, &mut ending);
            }
            if let (Some(last), Some(limit)) = (last, self.terms.max_run)
                && now >= last
                && ended.is_none()
            {
                self.end(Reason::RanTooLong(limit), now, &mut ending);
            }
            self.hear_the_guardian(hours, now, &mut ending);
            if ended.is_some() && ending.is_none() {
                // It left others behind.
                self.send_term();
                ending = Some(Ending { reason: None, kill: self.hour_of_kill(now), killed: false });
            }
            self.kill_in_time(now, &mut ending);
            self.sleep(now, ended.is_some(), ending, last.filter(|_| ending.is_none()));
        }
    }

    /// Whether the command, which has ended, has left nothing that has to go.
    fn is_over(&self, ending: Option<Ending>) -> bool {
        if ending.is_none() && !self.terms.clears_up {
            return true;
        }
        let given_up =
            ending.is_some_and(|ending| ending.killed && Boottime::now() >= ending.kill.after(AFTER_KILL));
        given_up || !self.command.left_others()
    }

    fn pass_on_signals(&self, runs: bool) {
        for signal in self.reactor.signals().arrivals() {
            match signal {
                // Others of the group may not know them, and would die of them.
                Signal::SIGUSR1 | Signal::SIGUSR2 => {
                    if runs {
                        self.command.send(signal);
                    }
                }
                Signal::SIGCONT => self.terminal.resume(&self.command),
                _ => self.command.send_to_group(signal),
            }
        }
    }

    fn on_loss(&self, reason: LossReason, now: Boottime, ending: &mut Option<Ending>) {
        match self.terms.on_lost {
            OnLost::Kill => self.end(Reason::Lost(reason), now, ending),
            OnLost::Warn => {
                let name = self.held.name();
                self.words.remark(&format!("the lock {name:?} was lost, and the command goes on: {reason}"));
            }
            OnLost::Ignore => {}
        }
    }

    /// When the command has to go unless the lock is renewed; `None` if the lock does not expire, is lost, or does not matter any more.
    fn hours(&self) -> Option<Hours> {
        let deadline = self.held.deadline().filter(|_| self.terms.on_lost == OnLost::Kill)?.instant();
        let kill = before(deadline, self.terms.lead);
        Some(Hours { term: before(kill, self.terms.kill_after), kill })
    }

    /// TERM now, and KILL later, unless that has begun.
    fn end(&self, reason: Reason, now: Boottime, ending: &mut Option<Ending>) {
        match ending {
            // What it left behind is being ended: that goes on, for this reason.
            Some(ending) => ending.reason = ending.reason.or(Some(reason)),
            None => {
                self.send_term();
                // Somebody else may have it already: we were not there in time.
                let too_late = reason == Reason::Lost(LossReason::Expired) && self.held.deadline().is_none();
                let kill = if too_late { now } else { self.hour_of_kill(now) };
                *ending = Some(Ending { reason: Some(reason), kill, killed: false });
                self.tell_ending(reason);
            }
        }
    }

    fn tell_ending(&self, reason: Reason) {
        self.events.tell("ending", |event| {
            let why = match reason {
                Reason::Lost(_) => "lost",
                Reason::RanTooLong(_) => "max_run",
                Reason::Unguarded => "unguarded",
            };
            event.text("lock", self.held.name()).text("reason", why)
        });
    }

    fn send_term(&self) {
        if let Some(guardian) = &self.guardian {
            guardian.sent_term();
        }
        self.command.send_to_group(Signal::SIGTERM);
        // Who is stopped hears it only when it goes on.
        self.command.send_to_group(Signal::SIGCONT);
    }

    /// When KILL comes if TERM is sent now.
    fn hour_of_kill(&self, now: Boottime) -> Boottime {
        let patient = now.after(self.terms.kill_after);
        self.hours().map_or(patient, |hours| hours.kill.min(patient))
    }

    fn hear_the_guardian(&mut self, hours: Option<Hours>, now: Boottime, ending: &mut Option<Ending>) {
        let Some(guardian) = &mut self.guardian else { return };
        if let (Some(hours), None) = (hours, &ending) {
            guardian.tell(hours);
        }
        let (reason, kill, killed) = match guardian.report() {
            None => return,
            Some(Report::SentTerm) => (Reason::Lost(LossReason::Expired), self.hour_of_kill(now), false),
            Some(Report::Gone) => {
                self.guardian = None;
                // Where the kernel could do it, it has.
                self.command.send_to_group(Signal::SIGKILL);
                (Reason::Unguarded, now, true)
            }
        };
        if ending.is_none() {
            self.tell_ending(reason);
        }
        let ending = ending.get_or_insert(Ending { reason: None, kill, killed });
        ending.reason = ending.reason.or(Some(reason));
    }

    fn kill_in_time(&self, now: Boottime, ending: &mut Option<Ending>) {
        if let Some(ending) = ending
            && !ending.killed
            && now >= ending.kill
        {
            ending.killed = true;
            ending.kill = now;
            self.command.send_to_group(Signal::SIGKILL);
        }
    }

    /// Until something happens or its time has come.
    fn sleep(&self, now: Boottime, ended: bool, ending: Option<Ending>, last: Option<Boottime>) {
        let mut until = last;
        let mut wake = |at: Boottime| until = Some(until.map_or(at, |until| until.min(at)));
        if ended {
            wake(now.after(LOOK));
        }
        if let Some(ending) = ending.filter(|ending| !ending.killed) {
            wake(ending.kill);
        }
        if ending.is_none()
            && let Some(hours) = self.hours()
        {
            // Half the time that is left: after a renewal the guardian is to hear of it well before the old hour.
            wake(now.after((hours.term.since(now) / 2).max(LOOK)));
        }
        self.reactor.sleep(until, self.guardian.as_ref().map(OnDuty::descriptor));
    }
}

fn before(instant: Boottime, time: Duration) -> Boottime {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Boottime::from_nanos(instant.as_nanos().saturating_sub(nanos))
}

/// The word for it in events.
pub(crate) fn code(reason: LossReason) -> &'static str {
    match reason {
        LossReason::Expired => "expired",
        LossReason::Taken => "taken",
        LossReason::Revoked => "revoked",
        LossReason::SessionGone => "session_gone",
        LossReason::StoreReset => "store_reset",
        LossReason::MaxHold => "max_hold",
        LossReason::Closed => "closed",
        _ => "other",
    }
}
