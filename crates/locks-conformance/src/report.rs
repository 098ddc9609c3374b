//! What came of the cases, as text and as JSON lines.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What came of one case against one backend: one line of the JSON report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// The harness's name.
    pub harness: String,
    /// The case's id.
    pub case: String,
    /// What came of it: `"outcome"` and, unless it passed, `"why"`.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How often it was run.
    pub runs: u32,
    /// How long that took.
    pub seconds: f64,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome", content = "why")]
#[non_exhaustive]
pub enum Outcome {
    /// All runs passed.
    Passed,
    /// A run failed, for this reason.
    Failed(String),
    /// It was not run, for this reason.
    Ignored(String),
}

impl Outcome {
    /// Whether it failed.
    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// Reads as "ignored memory::crash::a_killed_holder_frees_the_lock: needs locks that reach further than one process".
impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { harness, case, outcome, runs, seconds } = self;
        match outcome {
            Outcome::Passed if *runs == 1 => write!(f, "passed {harness}::{case} in {seconds:.2} s"),
            Outcome::Passed => write!(f, "passed {harness}::{case}, {runs} times in {seconds:.2} s"),
            Outcome::Failed(why) => write!(f, "failed {harness}::{case}: {why}"),
            Outcome::Ignored(why) => write!(f, "ignored {harness}::{case}: {why}"),
        }
    }
}

/// Adds the report to a file, as one JSON object a line.
///
/// Adding line by line lets runners that start the test binary once for each case gather all of them in one file.
pub(crate) fn append(path: &Path, report: &CaseReport) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    File::options().create(true).append(true).open(path)?.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_flat_line_of_json_and_comes_back() {
        let report = CaseReport {
            harness: "memory".into(),
            case: "a::b".into(),
            outcome: Outcome::Failed("two\nlines".into()),
            runs: 3,
            seconds: 0.5,
        };
        let line = serde_json::to_string(&report).unwrap();
        assert_eq!(
            line,
            r#"{"harness":"memory","case":"a::b","outcome":"failed","why":"two\nlines","runs":3,"seconds":0.5}"#
        );
        assert_eq!(serde_json::from_str::<CaseReport>(&line).unwrap(), report);
    }
}
