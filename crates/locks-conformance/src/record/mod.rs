//! What came of the cases and how it came about, for machines: what a report is drawn from.
//!
//! With `LOCKS_CONFORMANCE_RECORD` set to a directory, a test binary made with the kit writes a [`Record`] for each case to
//! `HARNESS/GROUP--NAME.json` below it, and, while it runs, [`Progress`] to `progress.jsonl`, one object a line. All times are microseconds, counted from the
//! beginning of the last run of the case.

mod distil;
mod latency;
mod lines;
mod write;

use serde::{Deserialize, Serialize};

use crate::report::Outcome;

pub(crate) use write::Writer;

/// Counts up when a reader of old records would misunderstand new ones.
pub const VERSION: u32 = 1;

/// All about one case against one backend.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// The harness's name.
    pub harness: String,
    /// The first part of the case's id.
    pub group: String,
    /// The case's id.
    pub case: String,
    /// What the case asserts.
    pub about: String,
    /// What came of it: `"outcome"` and, unless it passed, `"why"`.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// If it was ignored: the case that ran instead, which shows what follows from what is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<String>,
    /// How often it was run.
    pub runs: u32,
    /// How long all runs took.
    pub seconds: f64,
    /// What happened in the last run; none if it was not run, or could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
}

/// What happened in a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Timeline {
    /// How long it took.
    pub length: u64,
    /// The locks, by their names without what all names of the run begin with.
    pub locks: Vec<String>,
    /// Who took part: each `Locks` of each process.
    pub lanes: Vec<Lane>,
    /// What they held, in the order in which it began.
    pub holds: Vec<Hold>,
    /// What was done to processes, lines and the store.
    pub marks: Vec<Mark>,
    /// What was seen to be wrong.
    pub violations: Vec<Sighting>,
    /// How long things took.
    pub latencies: Latencies,
    /// Threads, descriptors and tasks before and after; none if the run did not get that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub census: Option<Census>,
    /// How much there was before it was thinned out to what is above.
    pub recorded: Recorded,
}

/// One `Locks` of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lane {
    /// The process: 0 is the one that runs the case.
    pub process: u32,
    /// Which `Locks` of that process, from 0.
    pub instance: u32,
    /// When the process was first heard of.
    pub from: u64,
    /// When it was killed, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<u64>,
}

/// Something held.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Hold {
    /// By whom: an index into the lanes.
    pub lane: u32,
    /// What: an index into the locks.
    pub lock: u32,
    /// Under which fencing token.
    pub token: u64,
    /// How, unless exclusively.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Since when.
    pub from: u64,
    /// Until when; none if it lasted longer than the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// How it ended.
    pub end: End,
    /// Why it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it had been waited for.
    pub waited: u64,
    /// Whether it came from the holder before, inside the process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_on: bool,
    /// Until when it counted as held, as its holder learnt it: pairs of when it learnt that and the deadline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub valid: Vec<(u64, u64)>,
    /// When its holder was told that it is at risk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_risk: Vec<u64>,
    /// What the guard answered when it was asked whether it holds, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<(u64, bool)>,
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum End {
    /// Its holder gave it back.
    Released,
    /// Its holder was told that it is lost.
    Lost,
    /// Its holder was killed.
    Died,
    /// It did not end before the run did.
    Open,
}

/// Something done to a process, a line or the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mark {
    /// To what: `process`, `line`, `messages` or `store`.
    pub on: String,
    /// Which process, as lanes number them, or which line, from 0.
    pub number: u32,
    /// What.
    pub name: String,
    /// Since when.
    pub from: u64,
    /// Until when; none for what takes no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// Something that was seen to be wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sighting {
    /// When it was seen.
    pub at: u64,
    /// What.
    pub message: String,
    /// Where in the kit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<String>,
    /// At which lock: an index into the locks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<u32>,
    /// The fencing tokens of the holds that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u64>,
}

/// How long things took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Latencies {
    /// From a release to the grant of somebody who waited meanwhile, through the store.
    pub wake: Vec<u64>,
    /// From the latest fault to the moment when a holder was told that its lock is lost.
    pub loss: Vec<u64>,
    /// From the death of a holder to the next grant.
    pub takeover: Vec<u64>,
}

/// What a process had.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Census {
    /// In words, before the run.
    pub before: String,
    /// And after it.
    pub after: String,
    /// What was left behind.
    pub leaks: Vec<String>,
}

/// How much was recorded, where a record has only some of it: everything about violations, losses and deaths, and of the rest
/// as much as there is room for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recorded {
    /// Holds.
    pub holds: u64,
    /// Answers of guards.
    pub answers: u64,
    /// Faults.
    pub marks: u64,
    /// Whether a process had more to say than was kept, so that the beginning is missing.
    pub beginning_is_missing: bool,
}

/// A line of `progress.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "progress", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Progress {
    /// These cases will run.
    Planned {
        /// The harness's name.
        harness: String,
        /// Their ids.
        cases: Vec<String>,
    },
    /// A case begins.
    Began {
        /// The harness's name.
        harness: String,
        /// The case's id.
        case: String,
    },
    /// There is a record.
    Ended {
        /// The harness's name.
        harness: String,
        /// The case's id.
        case: String,
        /// What came of it.
        #[serde(flatten)]
        outcome: Outcome,
        /// How long it took.
        seconds: f64,
    },
}
