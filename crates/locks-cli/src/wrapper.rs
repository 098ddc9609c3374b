//! From the lock to the command's exit code.

use std::os::fd::OwnedFd;
use std::time::Duration;

use locks::Locks;

use crate::child::{Ended, Running, Start};
use crate::events::Events;
use crate::guardian::Guardian;
use crate::host;
use crate::json;
use crate::kind::Held;
use crate::options::Options;
use crate::reactor::Reactor;
use crate::supervise::{OnLost, Outcome, Reason, Supervisor, Terms};
use crate::system;
use crate::terminal::Terminal;
use crate::trouble::{self, Cause, Trouble};
use crate::waiting::Waiter;
use crate::words::Words;

/// Takes the lock, runs the command, gives the lock back and returns the command's exit code.
///
/// # Errors
///
/// Whatever kept the command from running under the lock to its end.
pub(crate) fn run(mut options: Options, words: &Words) -> Result<u8, Trouble> {
    let events = Events::new(options.events.take());
    let (name, conflict_exit_code) = (options.wish.name.clone(), options.conflict_exit_code);
    let outcome = run_telling(options, words, &events);
    match &outcome {
        Ok(_) => {}
        Err(Trouble { cause: Cause::Busy(busy), message }) => events.tell("busy", |event| {
            let event = event.text("lock", name.as_str()).text("message", message);
            event.with(busy.as_ref(), json::busy)
        }),
        Err(Trouble { message, .. }) => {
            events.tell("failed", |event| event.text("lock", name.as_str()).text("message", message))
        }
    }
    let code = match &outcome {
        Ok(code) => *code,
        Err(trouble) => trouble.code(conflict_exit_code),
    };
    events.tell("exit", |event| event.number("code", code));
    outcome
}

fn run_telling(options: Options, words: &Words, events: &Events) -> Result<u8, Trouble> {
    let options = &Options { store: options.store.with_login()?, ..options };
    // Before there is much memory to copy, and another thread.
    let guardian = if options.store.may_expire() { Some(start_guardian()?) } else { None };
    let mut reactor = Reactor::new().map_err(|error| Trouble::no_reactor(&error))?;
    // Held until the end, so that nobody else of this host even waits.
    let _alone = if options.one_per_host { Some(host::alone(options, &reactor)?) } else { None };
    let waiter = Waiter { store: &options.store, wish: &options.wish, reactor: &reactor, words, events };
    let (locks, held) = waiter.acquire(options.patience, |locks| terms(options, locks).map(drop))?;
    words.step(|| format!("acquired {:?}, fencing token {}", held.name(), held.fencing_token()));
    events.tell("acquired", |event| {
        event.text("lock", held.name()).number("token", held.fencing_token().get())
    });
    let outcome = run_command(&locks, &held, guardian, options, &mut reactor, words, events);
    // Only now: the command is gone, or was never started.
    let interrupted = outcome.as_ref().is_ok_and(|outcome| outcome.interrupted);
    let code = release(held, outcome, options, &reactor, words, events);
    if interrupted {
        drop(locks);
        // As if we had been in the foreground beside it: a script that runs us ends, too.
        system::interrupt_our_group();
    }
    code
}

/// What goes for the command on this store.
///
/// # Errors
///
/// If `--kill-after` is too long for the ttl.
fn terms(options: &Options, locks: &Locks) -> Result<Terms, Trouble> {
    let mut terms = Terms {
        on_lost: options.on_lost,
        max_run: options.max_run,
        kill_after: options.kill_after.unwrap_or(KILL_AFTER),
        lead: Duration::ZERO,
        clears_up: false,
    };
    let Some(limits) = locks.guarantees().ttl else { return Ok(terms) };
    let ttl = options.wish.ttl.unwrap_or(limits.default);
    let validity = ttl.saturating_sub((ttl / 10).max(LEAST_MARGIN).min(ttl / 2));
    let most = validity / 3;
    if let Some(given) = options.kill_after
        && given > most
    {
        let (most, ttl) = (round(most), humantime::format_duration(ttl));
        return Err(Trouble::usage(format!(
            "--kill-after: with a ttl of {ttl} it can be {most} at most; give a longer --ttl"
        )));
    }
    terms.kill_after = options.kill_after.unwrap_or(most);
    terms.lead = (validity / 20).min(MOST_LEAD);
    terms.clears_up = !options.no_inherit;
    Ok(terms)
}

/// How long after TERM comes KILL where no lock expires.
const KILL_AFTER: Duration = Duration::from_secs(10);

/// A lock counts as lost a tenth of its ttl before it is, and so long at least.
const LEAST_MARGIN: Duration = Duration::from_millis(500);

/// How long before a lock counts as lost its command is gone, at most: KILL needs a moment.
const MOST_LEAD: Duration = Duration::from_millis(200);

/// In whole milliseconds, for people.
fn round(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

fn start_guardian() -> Result<Guardian, Trouble> {
    Guardian::start().map_err(|error| Trouble::no_guardian(&error))
}

fn run_command(
    locks: &Locks,
    held: &Held,
    guardian: Option<Guardian>,
    options: &Options,
    reactor: &mut Reactor,
    words: &Words,
    events: &Events,
) -> Result<Outcome, Trouble> {
    let terms = terms(options, locks)?;
    let claim = held.export();
    let mut descriptor = if options.no_inherit { None } else { descriptor_to_inherit(locks, claim)? };
    let environment = vec![
        ("LOCK_NAME", held.name().to_owned()),
        ("LOCK_FENCING_TOKEN", held.fencing_token().to_string()),
        ("LOCK_BACKEND", locks.guarantees().backend.to_owned()),
    ];
    if let Some(signal) = reactor.signals().arrivals().next() {
        return Err(Trouble::signal(signal));
    }
    // What was handed over lives only for a moment until it is renewed for the first time: too short to end a command in an orderly way.
    if held.deadline().is_some_and(|deadline| deadline.remaining() < terms.kill_after * 2) {
        let extended = reactor.run_unless_signalled(held.extend()).map_err(Trouble::signal)?;
        extended.map_err(|error| Trouble::too_early(&error))?;
    }
    let job_control = reactor.signals_mut().watch_job_control();
    job_control.map_err(|error| Trouble::no_reactor(&error))?;
    let terminal = Terminal::find();
    let mut at_hand = guardian;
    let (command, guardian) = loop {
        let guardian = match (locks.guarantees().ttl, at_hand.take()) {
            (None, _) => None,
            (Some(_), Some(guardian)) if guardian.is_there() => Some(guardian),
            (Some(_), _) => Some(start_guardian()?),
        };
        let started = Running::start(Start {
            program: &options.program,
            arguments: &options.arguments,
            environment: environment.clone(),
            descriptor: descriptor.take(),
            mask: reactor.signals().inherited_mask(),
            terminal: &terminal,
            introduction: guardian.as_ref().map(Guardian::introduction),
        });
        match started {
            Ok(command) => break (command, guardian),
            // Killed in this very moment: the command could not introduce itself and did not run. It had no descriptor either.
            Err(_) if guardian.is_some_and(|guardian| !guardian.is_there()) => {}
            Err(error) => return Err(Trouble::start(&options.program, &error)),
        }
    };
    events.tell("started", |event| event.number("pid", command.pid().as_raw().unsigned_abs()));
    let guardian = guardian.map(Guardian::on_duty).transpose().map_err(|error| Trouble::wait(&error))?;
    let supervisor = Supervisor { command, held, terms, guardian, terminal, reactor, words, events };
    let outcome = supervisor.run().map_err(|error| Trouble::wait(&error))?;
    events.tell("ended", |event| match outcome.ended {
        Ended::Exited(code) => event.number("code", code),
        Ended::Killed(signal) => event.number("signal", signal.unsigned_abs()),
    });
    Ok(outcome)
}

/// The open file that carries the lock, so that it stays locked while the command lives, even if we are killed.
#[cfg(feature = "file")]
fn descriptor_to_inherit(locks: &Locks, claim: locks::spi::ClaimId) -> Result<Option<OwnedFd>, Trouble> {
    let backend: &dyn std::any::Any = locks.backend();
    let file = backend.downcast_ref::<locks::file::FileBackend>();
    file.map(|file| file.share_descriptor(claim)).transpose().map_err(|error| Trouble::store(&error))
}

/// No store of this build carries its locks in a file.
#[cfg(not(feature = "file"))]
fn descriptor_to_inherit(_: &Locks, _: locks::spi::ClaimId) -> Result<Option<OwnedFd>, Trouble> {
    Ok(None)
}

/// The command's outcome stands whatever comes of this, unless the lock turns out to be lost.
fn release(
    held: Held,
    outcome: Result<Outcome, Trouble>,
    options: &Options,
    reactor: &Reactor,
    words: &Words,
    events: &Events,
) -> Result<u8, Trouble> {
    let name = held.name().to_owned();
    let succeeded = outcome.as_ref().is_ok_and(|outcome| outcome.ended == Ended::Exited(0));
    let completed = options.wish.once_per.is_some() && succeeded;
    let mut loss = None;
    match reactor.run(held.release(completed)) {
        Ok(()) => {
            words.step(|| format!("released {name:?}"));
            events.tell("released", |event| event.text("lock", &name));
        }
        Err(error) => match error.loss() {
            Some(reason) => loss = Some(reason),
            None => {
                let message = trouble::chain(&error);
                words.error(&message);
                events.tell("failed", |event| event.text("lock", &name).text("message", &message));
            }
        },
    }
    let Outcome { ended, reason, .. } = outcome?;
    match reason {
        Some(Reason::Lost(reason)) => Err(Trouble::lost(&name, reason)),
        Some(Reason::RanTooLong(limit)) => Err(Trouble::ran_too_long(limit)),
        Some(Reason::Unguarded) => {
            words.error("the guardian of the command was killed, and the command with it");
            Ok(ended.code())
        }
        None => match loss.filter(|_| options.on_lost == OnLost::Kill) {
            Some(reason) => Err(Trouble::lost(&name, reason)),
            None => Ok(ended.code()),
        },
    }
}
