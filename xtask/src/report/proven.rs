//! What runs of the kit have shown, as the documents tell it: numbers of cases without times, kept in `docs/conformance.json`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::data::{Outcome, Record};
use super::matrix::Count;
use crate::markdown::with_part;
use crate::workspace::{backends, root};

/// Where it is kept.
pub(crate) const FILE: &str = "docs/conformance.json";

/// The marks of the parts of documents that are made from it.
pub(crate) const PART: &str = "proven";

const INTO_STRING: &str = "writing to a String can't fail";

/// By harness, what the kit has shown of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Proven(BTreeMap<String, OfHarness>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OfHarness {
    /// By group, how many cases passed.
    passed: BTreeMap<String, usize>,
    /// By reason, the cases that were left out.
    left_out: BTreeMap<String, Vec<String>>,
}

/// What people want to know, and the groups of cases that show it. Each group is in one row.
const ROWS: [(&str, &[&str]); 11] = [
    ("one holder at a time, waiting, names, options", &["exclusive", "waiting", "names", "options"]),
    ("fencing tokens", &["tokens"]),
    (
        "readers and writers, permits, several locks, elections, schedules",
        &["rw", "semaphore", "lock_all", "election", "schedule"],
    ),
    ("other processes, killed and stopped", &["process", "crash"]),
    ("expiry, renewal and loss", &["lease"]),
    ("futures dropped at every poll", &["cancellation"]),
    ("bad lines: lost, doubled, late, cut, silent", &["faults", "wire"]),
    ("restarts, fail-overs, lost and restored data", &["restart"]),
    ("anything at any time", &["soak"]),
    ("leaks, starved runtimes, forks, inspection", &["resources", "inspection", "offers"]),
    ("the steps of the SPI", &["spi"]),
];

impl Proven {
    /// Reads what was kept.
    ///
    /// # Errors
    ///
    /// If it makes no sense.
    pub(crate) fn read(json: &str) -> Result<Self> {
        serde_json::from_str(json).with_context(|| format!("{FILE} makes no sense"))
    }

    /// What these records show.
    ///
    /// # Errors
    ///
    /// If a case failed: that shows nothing.
    fn of(records: &[Record]) -> Result<Self> {
        let mut proven = Self::default();
        for record in records {
            let of_harness = proven.0.entry(record.harness.clone()).or_default();
            match record.outcome {
                Outcome::Passed => *of_harness.passed.entry(record.group.clone()).or_default() += 1,
                Outcome::Failed => bail!("{} failed on {}", record.case, record.harness),
                Outcome::Ignored => {
                    let reason = record.why.clone().unwrap_or_default();
                    let reason = reason.split(';').next().unwrap_or_default().to_owned();
                    of_harness.left_out.entry(reason).or_default().push(record.case.clone());
                }
            }
        }
        Ok(proven)
    }

    /// The harnesses that it tells of.
    pub(crate) fn harnesses(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How many cases a harness has passed or left out.
    pub(crate) fn cases_of(&self, harness: &str) -> usize {
        self.0.get(harness).map_or(0, |of_harness| {
            let left_out: usize = of_harness.left_out.values().map(Vec::len).sum();
            of_harness.passed.values().sum::<usize>() + left_out
        })
    }

    /// The table of the README: how many cases were passed, by backend.
    pub(crate) fn table(&self, backends: &[&str]) -> String {
        let row = |first: &str, cells: Vec<String>| format!("| {first} | {} |\n", cells.join(" | "));
        let mut table = row("cases passed", backends.iter().map(|backend| (*backend).to_owned()).collect());
        table.push_str(&row("---", backends.iter().map(|_| "---:".to_owned()).collect()));
        let number = |number: usize| if number == 0 { "–".to_owned() } else { number.to_string() };
        for (about, groups) in ROWS {
            let cell = |backend: &&str| number(self.count(backend, groups).passed);
            table.push_str(&row(about, backends.iter().map(cell).collect()));
        }
        let all: Vec<&str> = ROWS.iter().flat_map(|(_, groups)| groups.iter().copied()).collect();
        let sums: Vec<Count> = backends.iter().map(|backend| self.count(backend, &all)).collect();
        table.push_str(&row("**all**", sums.iter().map(|sum| format!("**{}**", sum.passed)).collect()));
        table.push_str(&row("do not apply", sums.iter().map(|sum| number(sum.ignored)).collect()));
        table
    }

    /// The part of a backend's page: the numbers of each of its harnesses, and what does not apply to the first of them and why.
    pub(crate) fn page(&self, backend: &str) -> String {
        let is_of_it = |name: &&str| {
            name.strip_prefix(backend).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        let of_backend: Vec<&str> = self.harnesses().filter(is_of_it).collect();
        let mut part = self.table(&of_backend);
        let Some(of_harness) = self.0.get(backend).filter(|of_harness| !of_harness.left_out.is_empty())
        else {
            return part;
        };
        // Each offer has a case for stores that do not have it: one reason for all of them.
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (reason, cases) in &of_harness.left_out {
            let reason = reason.strip_prefix("needs ").unwrap_or(reason);
            let reason = if reason.starts_with(NOT_OFFERED) {
                "a store that does not offer what this one does"
            } else {
                reason
            };
            reasons.entry(reason).or_default().extend(cases.iter().map(String::as_str));
        }
        writeln!(part, "\nDo not apply to `{backend}`, since they need\n").expect(INTO_STRING);
        for (reason, cases) in reasons {
            writeln!(part, "- {reason}: {}", named(&cases)).expect(INTO_STRING);
        }
        part
    }

    fn count(&self, harness: &str, groups: &[&str]) -> Count {
        let Some(of_harness) = self.0.get(harness) else { return Count::default() };
        let left_out = of_harness.left_out.values().flatten();
        let is_here = |case: &&String| groups.iter().any(|group| group_of(case) == *group);
        Count {
            passed: groups.iter().filter_map(|group| of_harness.passed.get(*group)).sum(),
            failed: 0,
            ignored: left_out.filter(is_here).count(),
        }
    }
}

/// What the reason begins with where a store has an ability whose lack a case is about.
const NOT_OFFERED: &str = "a store that does not offer ";

/// A few cases by their ids, many by their groups.
fn named(cases: &[&str]) -> String {
    const FEW: usize = 3;
    if cases.len() <= FEW {
        return cases.iter().map(|case| format!("`{case}`")).collect::<Vec<_>>().join(", ");
    }
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for case in cases {
        *groups.entry(group_of(case)).or_default() += 1;
    }
    groups.iter().map(|(group, number)| format!("{number} of `{group}`")).collect::<Vec<_>>().join(", ")
}

fn group_of(case: &str) -> &str {
    case.split("::").next().unwrap_or_default()
}

/// The documents that have a part made from it, with what belongs there: the README and each backend's page.
pub(crate) fn documents(proven: &Proven, backends: &[&str]) -> Vec<(String, String)> {
    let page = |backend: &&str| (format!("docs/backends/{backend}.md"), proven.page(backend));
    let readme = ("README.md".to_owned(), proven.table(backends));
    std::iter::once(readme).chain(backends.iter().map(page)).collect()
}

/// Keeps what these records show, in place of what was known of their harnesses, and puts it into the documents.
///
/// # Errors
///
/// If a case failed, or a document has no place for it, or can't be written.
pub(crate) fn update(records: &[Record]) -> Result<()> {
    let path = root().join(FILE);
    let mut proven = match fs::read_to_string(&path) {
        Ok(json) => Proven::read(&json)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Proven::default(),
        Err(error) => return Err(error).with_context(|| format!("can't read {FILE}")),
    };
    proven.0.extend(Proven::of(records)?.0);
    let json = serde_json::to_string_pretty(&proven)?;
    fs::write(&path, format!("{json}\n")).with_context(|| format!("can't write {FILE}"))?;
    let backends = backends()?;
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    for (document, part) in documents(&proven, &backends) {
        let path = root().join(&document);
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {document}"))?;
        let text = with_part(&text, PART, &part).with_context(|| format!("in {document}"))?;
        fs::write(&path, text).with_context(|| format!("can't write {document}"))?;
        println!("{document} tells what was shown");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::matrix::ORDER;

    #[test]
    fn every_group_is_in_one_row() {
        let mut groups: Vec<&str> = ROWS.iter().flat_map(|(_, groups)| groups.iter().copied()).collect();
        let mut known = ORDER;
        groups.sort_unstable();
        known.sort_unstable();
        assert_eq!(groups, known);
    }

    #[test]
    fn pages_tell_of_all_ways_of_a_backend() {
        let json = r#"{
            "redis": { "passed": { "crash": 3 }, "left_out": {
                "needs x": ["crash::a", "spi::b"], "needs a store that does not offer y": ["offers::c", "offers::d"],
                "needs a store that does not offer z": ["crash::e", "offers::f"]
            } },
            "redis-old": { "passed": { "spi": 1 }, "left_out": {} },
            "rediscovered": { "passed": {}, "left_out": {} }
        }"#;
        let page = Proven::read(json).unwrap().page("redis");
        assert!(page.starts_with("| cases passed | redis | redis-old |\n"), "{page}");
        assert!(page.contains("| other processes, killed and stopped | 3 | – |"), "{page}");
        assert!(page.contains("| **all** | **3** | **1** |\n| do not apply | 6 | – |"), "{page}");
        assert!(page.contains("\n- x: `crash::a`, `spi::b`\n"), "{page}");
        assert!(
            page.contains(
                "\n- a store that does not offer what this one does: 1 of `crash`, 3 of `offers`\n"
            ),
            "{page}"
        );
    }
}
