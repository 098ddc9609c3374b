//! What the processes of one case write down while it runs: the raw material of its [record](crate::record).
//!
//! Every process has files of its own, so that nobody waits for anybody and a killed one tears nothing but its own last line. A process that
//! has much to say keeps what it said last.

mod engine;

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use locks_api::Boottime;
use serde::{Deserialize, Serialize};

/// Where the parent says what the names of the files begin with.
const BASE: &str = "LOCKS_CONFORMANCE_EVENTS";

/// So many bytes go into one file; a process has two of them, of which the older is overwritten.
const PART: u64 = 4 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// When, in nanoseconds since boot.
    pub(crate) t: u64,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What was seen or done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum What {
    /// A run of the case begins.
    Began,
    /// The run is over; what follows looks at what it left behind.
    Over,
    /// A hold began.
    Granted {
        #[serde(flatten)]
        hold: HoldId,
        mode: String,
        /// Microseconds, as all times here.
        waited: u64,
        handed_on: bool,
        valid_for: Option<u64>,
    },
    /// A hold lives on.
    Renewed {
        #[serde(flatten)]
        hold: HoldId,
        valid_for: u64,
    },
    /// The first renewal is overdue.
    AtRisk {
        #[serde(flatten)]
        hold: HoldId,
    },
    /// A hold ended against the will of its holder, who was told so.
    Lost {
        #[serde(flatten)]
        hold: HoldId,
        reason: String,
    },
    /// A hold was given back.
    Released {
        #[serde(flatten)]
        hold: HoldId,
    },
    /// A guard was asked whether it holds.
    Checked { lock: String, token: u64, held: bool },
    /// Something was done to a process, a line or the store.
    Fault { on: Target, name: String, state: State },
    /// A promise was seen broken.
    Broken { message: String, seen_at: Option<String>, lock: Option<String>, tokens: Vec<u64> },
    /// What the process had before and after a run.
    Census { before: String, after: String, leaks: Vec<String> },
}

/// Which hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HoldId {
    pub(crate) lock: String,
    /// Of which `Locks` of the process.
    pub(crate) instance: String,
    /// `None` for a grant that no caller has seen.
    pub(crate) token: Option<u64>,
}

/// To what a fault was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    /// The process with this id.
    Process(u32),
    /// The proxy on this port.
    Line(u16),
    /// The messages of a connection that the kit makes bad without a proxy.
    Messages,
    Store,
}

/// Whether a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// It happens.
    Event,
    /// It lasts from now on.
    Begins,
    /// All that lasts there ends now.
    Ends,
}

struct Sink {
    base: PathBuf,
    pid: u32,
    open: Mutex<Part>,
}

struct Part {
    file: File,
    number: u64,
    bytes: u64,
}

static SINK: OnceLock<Option<Sink>> = OnceLock::new();

/// Has the processes that `command` starts write to files whose names begin with `base`.
pub(crate) fn ask(command: &mut Command, base: &std::path::Path) {
    command.env(BASE, base);
}

/// Begins to write, if this process is asked to.
///
/// # Errors
///
/// In words, if the file can't be made or somebody else listens to the engine already.
pub(crate) fn begin() -> Result<(), String> {
    let Some(base) = std::env::var_os(BASE).map(PathBuf::from) else { return Ok(()) };
    let pid = std::process::id();
    let file = File::create(part_of(&base, pid, 0))
        .map_err(|error| format!("can't record the case in {}: {error}", base.display()))?;
    let sink = Sink { base, pid, open: Mutex::new(Part { file, number: 0, bytes: 0 }) };
    if SINK.set(Some(sink)).is_err() {
        return Err("this process records already".to_owned());
    }
    engine::listen()
}

/// Notes something that happens now.
pub(crate) fn note(what: impl FnOnce() -> What) {
    if let Some(sink) = sink() {
        sink.write(&Line { t: Boottime::now().as_nanos(), what: what() });
    }
}

/// Notes something that happened at an instant.
pub(crate) fn note_at(at: Boottime, what: What) {
    if let Some(sink) = sink() {
        sink.write(&Line { t: at.as_nanos(), what });
    }
}

/// Notes that a fault happens.
pub(crate) fn strikes(on: Target, name: &str) {
    note(|| What::Fault { on, name: name.to_owned(), state: State::Event });
}

/// Notes that a fault lasts from now on.
pub(crate) fn begins(on: Target, name: &str) {
    note(|| What::Fault { on, name: name.to_owned(), state: State::Begins });
}

/// Notes that all that lasts there ends.
pub(crate) fn ends(on: Target) {
    note(|| What::Fault { on, name: String::new(), state: State::Ends });
}

/// That of this process. A forked child has a copy of its parent's, and is to be silent.
fn sink() -> Option<&'static Sink> {
    SINK.get()?.as_ref().filter(|sink| sink.pid == std::process::id())
}

fn part_of(base: &std::path::Path, pid: u32, number: u64) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".{pid}.{}", number % 2));
    name.into()
}

impl Sink {
    #[expect(
        clippy::print_stderr,
        reason = "it is shown if the case fails, and nothing depends on it otherwise"
    )]
    fn write(&self, line: &Line) {
        let mut text = serde_json::to_vec(line).expect("a line has no map keys that could fail");
        text.push(b'\n');
        let mut part = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if part.bytes > PART {
            // A case may have used up all descriptors, on purpose: then this file grows on.
            if let Ok(file) = File::create(part_of(&self.base, self.pid, part.number + 1)) {
                *part = Part { file, number: part.number + 1, bytes: 0 };
            }
        }
        part.bytes += text.len() as u64;
        if let Err(error) = part.file.write_all(&text) {
            eprintln!("a line of the record is lost: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back() {
        let hold = HoldId { lock: "a".into(), instance: "1f".into(), token: Some(7) };
        for what in [
            What::Began,
            What::Granted { hold, mode: "exclusive".into(), waited: 3, handed_on: false, valid_for: None },
            What::Fault { on: Target::Line(80), name: "silent".into(), state: State::Begins },
            What::Fault { on: Target::Store, name: String::new(), state: State::Ends },
        ] {
            let line = Line { t: u64::MAX, what };
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line, "{text}");
        }
    }
}
