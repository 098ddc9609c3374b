//! What happened, as every process saw it: the material for the [checkers](crate::checker).
//!
//! One JSON object a line. An operation is an `invoke` and, later, how it ended: `ok` (it happened), `fail` (it
//! did not happen) or `info` (nobody knows; it may take effect at any later time). The process that was killed leaves its last operation
//! open, which counts as `info`. Times are nanoseconds of [`Boottime`], which all processes of one machine share.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use locks_api::{Boottime, FencingToken};
use serde::{Deserialize, Serialize};

use crate::recording::{self, What};

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// When, in nanoseconds since boot.
    pub t: u64,
    /// The process.
    pub process: u32,
    /// Who in that process: a client does one thing after the other.
    pub client: u32,
    /// The lock.
    pub lock: String,
    /// What is done.
    pub op: Op,
    /// How far it is.
    pub phase: Phase,
    /// How the lock is to be held, for acquisitions.
    #[serde(default, skip_serializing_if = "Mode::is_exclusive")]
    pub mode: Mode,
    /// The claim, in hexadecimal, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// The fencing token, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// What a check answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
}

/// What a client does to a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Op {
    /// Takes it.
    Acquire,
    /// Gives it back.
    Release,
    /// Asks its guard whether the lock is held.
    Check,
    /// Makes an exclusive hold a shared one.
    Downgrade,
    /// Sees who leads; the token is the leader's.
    Observe,
}

/// How a lock is held, as [`locks_api::Mode`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// By one alone.
    #[default]
    Exclusive,
    /// Together with others that share it.
    Shared,
    /// As some of its permits.
    Permits {
        /// How many.
        count: u32,
        /// How many there are.
        limit: u32,
    },
}

impl Mode {
    const fn is_exclusive(&self) -> bool {
        matches!(self, Self::Exclusive)
    }
}

impl From<locks_api::Mode> for Mode {
    fn from(mode: locks_api::Mode) -> Self {
        match mode {
            locks_api::Mode::Shared => Self::Shared,
            locks_api::Mode::Permits { count, limit } => Self::Permits { count, limit },
            _ => Self::Exclusive,
        }
    }
}

impl From<Mode> for locks_api::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::Exclusive,
            Mode::Shared => Self::Shared,
            Mode::Permits { count, limit } => Self::Permits { count, limit },
        }
    }
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// It begins.
    Invoke,
    /// It happened.
    Ok,
    /// It did not happen.
    Fail,
    /// It may have happened, or may happen later.
    Info,
}

/// An operation from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// The process and its client.
    pub client: (u32, u32),
    /// The lock.
    pub lock: String,
    /// What was done.
    pub op: Op,
    /// When it began.
    pub invoked: u64,
    /// When it ended; `None` if nobody saw it end.
    pub ended: Option<u64>,
    /// How it ended: anything but [`Phase::Invoke`].
    pub outcome: Phase,
    /// How the lock was to be held, for acquisitions.
    pub mode: Mode,
    /// The claim, if known.
    pub claim: Option<String>,
    /// The fencing token, if known.
    pub token: Option<u64>,
    /// What a check answered.
    pub held: Option<bool>,
}

/// Pairs beginnings with ends. What never ended is [`Phase::Info`].
///
/// # Errors
///
/// What is wrong with the history itself: an end without a beginning, or a client that does two things at once.
pub fn operations(events: &[Event]) -> Result<Vec<Operation>, String> {
    let mut events: Vec<&Event> = events.iter().collect();
    events.sort_by_key(|event| event.t);
    let mut open: HashMap<(u32, u32), usize> = HashMap::new();
    let mut operations: Vec<Operation> = Vec::new();
    for event in events {
        let client = (event.process, event.client);
        if event.phase == Phase::Invoke {
            let index = operations.len();
            if open.insert(client, index).is_some() {
                return Err(format!(
                    "client {client:?} began something before its last operation ended: {event:?}"
                ));
            }
            operations.push(Operation {
                client,
                lock: event.lock.clone(),
                op: event.op,
                invoked: event.t,
                ended: None,
                outcome: Phase::Info,
                mode: event.mode,
                claim: event.claim.clone(),
                token: event.token,
                held: None,
            });
            continue;
        }
        let Some(operation) = open.remove(&client).map(|index| &mut operations[index]) else {
            return Err(format!("client {client:?} ended what it never began: {event:?}"));
        };
        if operation.op != event.op || operation.lock != event.lock {
            return Err(format!("client {client:?} began {operation:?} and ended {event:?}"));
        }
        operation.ended = (event.phase != Phase::Info).then_some(event.t);
        operation.outcome = event.phase;
        operation.claim = event.claim.clone().or(operation.claim.take());
        operation.token = event.token.or(operation.token);
        operation.held = event.held;
    }
    Ok(operations)
}

/// Reads a history that processes have written with [`Recorder::file`].
///
/// # Errors
///
/// If the file can't be read or a line makes no sense.
pub fn read(path: &Path) -> std::io::Result<Vec<Event>> {
    std::fs::read_to_string(path)?
        .lines()
        .map(|line| serde_json::from_str(line).map_err(std::io::Error::from))
        .collect()
}

/// Where clients write down what they do.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Sink>);

#[derive(Debug)]
enum Sink {
    Memory(Mutex<Vec<Event>>),
    File(File),
}

impl Recorder {
    /// Keeps the history in memory, for clients in one process.
    pub fn memory() -> Self {
        Self(Arc::new(Sink::Memory(Mutex::default())))
    }

    /// Appends each event to a file with a single write, so that many processes can share it and a killed one tears nothing.
    ///
    /// # Errors
    ///
    /// If the file can't be opened.
    pub fn file(path: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self(Arc::new(Sink::File(file))))
    }

    /// What was recorded in memory so far; nothing for a file.
    pub fn events(&self) -> Vec<Event> {
        match &*self.0 {
            Sink::Memory(events) => events.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Sink::File(_) => Vec::new(),
        }
    }

    /// A client of this process, by a number that nobody else in it uses.
    pub fn client(&self, number: u32) -> Client {
        Client { recorder: self.clone(), number }
    }

    fn record(&self, event: Event) {
        match &*self.0 {
            Sink::Memory(events) => events.lock().unwrap_or_else(PoisonError::into_inner).push(event),
            Sink::File(file) => {
                let mut line = serde_json::to_vec(&event).expect("an event has no map keys that could fail");
                line.push(b'\n');
                let mut file = file;
                file.write_all(&line).expect("the history can be written");
            }
        }
    }
}

/// One client of a history: does one thing after the other.
#[derive(Clone, Debug)]
pub struct Client {
    recorder: Recorder,
    number: u32,
}

impl Client {
    /// Notes that an operation begins now; an acquisition is an exclusive one.
    pub fn invoke(&self, op: Op, lock: &str, token: Option<FencingToken>) {
        self.note(lock, token, |event| event.op = op);
    }

    /// Notes that an acquisition in this mode begins now.
    pub fn acquiring(&self, lock: &str, mode: Mode) {
        self.note(lock, None, |event| event.mode = mode);
    }

    /// Notes that the operation ended now, and how.
    pub fn end(&self, op: Op, phase: Phase, lock: &str, claim: Option<String>, token: Option<FencingToken>) {
        self.note(lock, token, |event| {
            (event.op, event.phase, event.claim) = (op, phase, claim);
        });
    }

    /// Notes what a check, begun with [`Client::invoke`], has answered.
    pub fn answered(&self, lock: &str, token: FencingToken, held: bool) {
        recording::note(|| What::Checked { lock: lock.to_owned(), token: token.get(), held });
        self.note(lock, Some(token), |event| {
            (event.op, event.phase, event.held) = (Op::Check, Phase::Ok, Some(held));
        });
    }

    /// Notes the beginning of an exclusive acquisition, but for what is changed about it.
    fn note(&self, lock: &str, token: Option<FencingToken>, change: impl FnOnce(&mut Event)) {
        let mut event = Event {
            t: Boottime::now().as_nanos(),
            process: std::process::id(),
            client: self.number,
            lock: lock.to_owned(),
            op: Op::Acquire,
            phase: Phase::Invoke,
            mode: Mode::Exclusive,
            claim: None,
            token: token.map(FencingToken::get),
            held: None,
        };
        change(&mut event);
        self.recorder.record(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_and_ends_are_paired_and_open_ends_are_unknown() {
        let recorder = Recorder::memory();
        let (one, two) = (recorder.client(1), recorder.client(2));
        let token = FencingToken::new(7);
        one.invoke(Op::Acquire, "a", None);
        two.invoke(Op::Acquire, "a", None);
        one.end(Op::Acquire, Phase::Ok, "a", Some("c1".into()), token);
        let operations = operations(&recorder.events()).unwrap();
        assert_eq!(operations.len(), 2);
        assert_eq!((operations[0].outcome, operations[0].token), (Phase::Ok, Some(7)));
        assert_eq!((operations[1].outcome, operations[1].ended), (Phase::Info, None));
    }

    #[test]
    fn a_history_that_contradicts_itself_is_refused() {
        let recorder = Recorder::memory();
        recorder.client(1).end(Op::Acquire, Phase::Ok, "a", None, None);
        assert!(operations(&recorder.events()).unwrap_err().contains("never began"));

        let recorder = Recorder::memory();
        recorder.client(1).invoke(Op::Acquire, "a", None);
        recorder.client(1).invoke(Op::Release, "a", None);
        assert!(operations(&recorder.events()).unwrap_err().contains("before its last operation ended"));

        let recorder = Recorder::memory();
        recorder.client(1).invoke(Op::Acquire, "a", None);
        recorder.client(1).end(Op::Acquire, Phase::Ok, "b", None, None);
        assert!(operations(&recorder.events()).unwrap_err().contains("began"));
    }

    #[test]
    fn a_file_brings_back_what_was_written() {
        let path = std::env::temp_dir().join(format!("history-{:032x}", fastrand::u128(..)));
        let recorder = Recorder::file(&path).unwrap();
        recorder.client(3).invoke(Op::Check, "ä\n", FencingToken::new(5));
        recorder.client(3).answered("ä\n", FencingToken::new(5).unwrap(), true);
        let events = read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!((events[1].lock.as_str(), events[1].held), ("ä\n", Some(true)));
    }
}
