//! Where records go.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::distil::timeline;
use super::{Progress, Record, VERSION, lines};
use crate::cases::Case;
use crate::recording;
use crate::report::{CaseReport, Outcome};

/// The directory for records.
const DIRECTORY: &str = "LOCKS_CONFORMANCE_RECORD";

/// Writes records, if the environment asks for them.
#[derive(Clone, Debug)]
pub(crate) struct Writer(Option<PathBuf>);

impl Writer {
    pub(crate) fn from_env() -> Self {
        Self(std::env::var_os(DIRECTORY).map(PathBuf::from))
    }

    /// Says which cases will run.
    pub(crate) fn planned(&self, harness: &str, cases: Vec<String>) -> io::Result<()> {
        self.progress(&Progress::Planned { harness: harness.to_owned(), cases })
    }

    /// Has the processes that `command` starts write down what happens.
    pub(crate) fn begin(&self, harness: &str, case: &Case, command: &mut Command) -> io::Result<()> {
        let Some(dir) = self.directory_of(harness)? else { return Ok(()) };
        let base = base(&dir, case.id());
        // What an interrupted run has left.
        lines::take(&base)?;
        recording::ask(command, &base);
        self.progress(&Progress::Began { harness: harness.to_owned(), case: case.id().to_owned() })
    }

    /// Writes the record of a case that has ended, or was not run.
    pub(crate) fn end(&self, report: &CaseReport, case: &Case, twin: Option<&str>) -> io::Result<()> {
        let Some(dir) = self.directory_of(&report.harness)? else { return Ok(()) };
        let ran = !matches!(report.outcome, Outcome::Ignored(_));
        let timeline =
            if ran { timeline(lines::take(&base(&dir, case.id()))?, &report.outcome) } else { None };
        let record = Record {
            version: VERSION,
            harness: report.harness.clone(),
            group: case.id().split("::").next().unwrap_or_default().to_owned(),
            case: report.case.clone(),
            about: case.about().to_owned(),
            outcome: report.outcome.clone(),
            twin: twin.map(str::to_owned),
            runs: report.runs,
            seconds: report.seconds,
            timeline,
        };
        fs::write(dir.join(format!("{}.json", file_name(case.id()))), serde_json::to_vec(&record)?)?;
        self.progress(&Progress::Ended {
            harness: record.harness,
            case: record.case,
            outcome: record.outcome,
            seconds: record.seconds,
        })
    }

    fn directory_of(&self, harness: &str) -> io::Result<Option<PathBuf>> {
        let Some(dir) = &self.0 else { return Ok(None) };
        let dir = dir.join(harness);
        fs::create_dir_all(&dir)?;
        Ok(Some(dir))
    }

    /// Adds a line with a single write, so that readers see whole ones.
    fn progress(&self, progress: &impl Serialize) -> io::Result<()> {
        let Some(dir) = &self.0 else { return Ok(()) };
        fs::create_dir_all(dir)?;
        let mut line = serde_json::to_vec(progress)?;
        line.push(b'\n');
        File::options().create(true).append(true).open(dir.join("progress.jsonl"))?.write_all(&line)
    }
}

fn base(dir: &Path, case: &str) -> PathBuf {
    dir.join(format!("{}.events", file_name(case)))
}

fn file_name(case: &str) -> String {
    case.replace("::", "--")
}
