//! The rules of this repository that no compiler knows, checked on what cargo and the files say.
//!
//! Each rule is a function over a [`Tree`], so that its tests can show it a small broken repository.

use std::fmt;

use anyhow::{Result, bail};

use crate::workspace;

mod backends;
mod dependencies;
mod documents;
#[cfg(test)]
mod fixture;
mod manifests;
mod proven;
mod readme;
mod sources;
mod tree;

pub(crate) use dependencies::is_database_client;
pub(crate) use readme::is_run_elsewhere;
pub(crate) use tree::Tree;

/// Checks this repository.
///
/// # Errors
///
/// If a rule is broken, or the repository can't be read.
pub(crate) fn run() -> Result<()> {
    let complaints = check(&Tree::load(workspace::root())?);
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} complaints", complaints.len());
    }
    println!("tidy: {} rules kept", RULES.len());
    Ok(())
}

/// All that is wrong.
pub(crate) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut list = Vec::new();
    for &(rule, check) in RULES {
        check(tree, &mut Complaints { rule, list: &mut list });
    }
    list
}

type Rule = fn(&Tree, &mut Complaints<'_>);

/// All rules with the names that complaints and ARCHITECTURE.md call them by.
const RULES: &[(&str, Rule)] = &[
    ("dependency-direction", dependencies::directions),
    ("database-client", dependencies::no_database_client),
    ("foreign-reexport", dependencies::no_foreign_reexport),
    ("internal-version", dependencies::versions),
    ("third-party-example", dependencies::third_party_examples),
    ("inheritance", manifests::inherited),
    ("dependency-reason", manifests::reasons),
    ("backend", backends::complete),
    ("file-length", sources::length),
    ("module-name", sources::module_names),
    ("module-doc", sources::module_docs),
    ("white-space", sources::white_space),
    ("link", documents::links),
    ("invariant-guard", documents::guards),
    ("snippet", readme::snippets),
    ("command", readme::commands),
    ("proven", proven::shown),
];

/// Something that is wrong, and where.
#[derive(Debug)]
pub(crate) struct Complaint {
    rule: &'static str,
    place: String,
    what: String,
}

/// Reads as "place: rule: what".
impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.rule, self.what)
    }
}

/// Where a rule complains.
struct Complaints<'a> {
    rule: &'static str,
    list: &'a mut Vec<Complaint>,
}

impl Complaints<'_> {
    fn add(&mut self, place: impl fmt::Display, what: impl Into<String>) {
        self.list.push(Complaint { rule: self.rule, place: place.to_string(), what: what.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::Fixture;
    use super::*;

    #[test]
    fn this_repository_is_tidy() {
        let complaints = check(&Tree::load(workspace::root()).unwrap());
        assert!(complaints.is_empty(), "{complaints:#?}");
    }

    #[test]
    fn the_repository_that_the_tests_of_the_rules_break_is_tidy() {
        Fixture::new().expect_tidy();
    }
}
