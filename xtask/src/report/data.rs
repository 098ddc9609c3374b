//! Records as the kit writes them: what `locks_conformance::record` documents.
//!
//! Read by their JSON alone, so that this tool need not be built with the kit; a test holds the two together.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The version of the records that are understood.
const VERSION: u32 = 1;

/// All about one case against one backend.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) harness: String,
    pub(crate) group: String,
    pub(crate) case: String,
    pub(crate) about: String,
    pub(crate) outcome: Outcome,
    pub(crate) why: Option<String>,
    pub(crate) twin: Option<String>,
    pub(crate) runs: u32,
    pub(crate) seconds: f64,
    pub(crate) timeline: Option<Timeline>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Ignored,
}

/// What happened in a run; times are microseconds.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Timeline {
    pub(crate) length: u64,
    pub(crate) locks: Vec<String>,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) holds: Vec<Hold>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) violations: Vec<Sighting>,
    pub(crate) latencies: Latencies,
    pub(crate) census: Option<Census>,
    pub(crate) recorded: Recorded,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Lane {
    pub(crate) process: u32,
    pub(crate) instance: u32,
    pub(crate) from: u64,
    pub(crate) killed: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Hold {
    pub(crate) lane: u32,
    pub(crate) lock: u32,
    pub(crate) token: u64,
    pub(crate) mode: Option<String>,
    pub(crate) from: u64,
    pub(crate) to: Option<u64>,
    pub(crate) end: End,
    pub(crate) reason: Option<String>,
    pub(crate) waited: u64,
    #[serde(default)]
    pub(crate) handed_on: bool,
    #[serde(default)]
    pub(crate) valid: Vec<(u64, u64)>,
    #[serde(default)]
    pub(crate) at_risk: Vec<u64>,
    #[serde(default)]
    pub(crate) answers: Vec<(u64, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    Released,
    Lost,
    Died,
    Open,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Mark {
    pub(crate) on: String,
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) from: u64,
    pub(crate) to: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Sighting {
    pub(crate) at: u64,
    pub(crate) message: String,
    pub(crate) seen_at: Option<String>,
    pub(crate) lock: Option<u32>,
    #[serde(default)]
    pub(crate) tokens: Vec<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Latencies {
    pub(crate) wake: Vec<u64>,
    pub(crate) loss: Vec<u64>,
    pub(crate) takeover: Vec<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Census {
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) leaks: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Recorded {
    pub(crate) holds: u64,
    pub(crate) marks: u64,
    pub(crate) beginning_is_missing: bool,
}

impl Record {
    /// The case's id without its group.
    pub(crate) fn name(&self) -> &str {
        self.case.split_once("::").map_or(&*self.case, |(_, name)| name)
    }
}

/// The records below a directory, as they are and as they are understood, by harness and in the order of the cases' ids.
///
/// # Errors
///
/// If there are none, or one can't be read, or is of another version.
pub(crate) fn read(dir: &Path) -> Result<Vec<(serde_json::Value, Record)>> {
    let mut records = BTreeMap::new();
    for harness in list(dir)?.into_iter().filter(|path| path.is_dir()) {
        let is_record =
            |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "json");
        for path in list(&harness)?.into_iter().filter(is_record) {
            let text = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
            let wrong = || format!("{} is no record of a case", path.display());
            let value: serde_json::Value = serde_json::from_slice(&text).with_context(wrong)?;
            let record = Record::deserialize(&value).with_context(wrong)?;
            if record.version != VERSION {
                bail!("{}: version {} instead of {VERSION}", path.display(), record.version);
            }
            records.insert((record.harness.clone(), record.case.clone()), (value, record));
        }
    }
    if records.is_empty() {
        bail!("there is no record in {}", dir.display());
    }
    Ok(records.into_values().collect())
}

fn list(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("can't list {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
