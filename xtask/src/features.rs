//! The facade builds with any of its features on or off, and the default build is free of database clients.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use crate::lint::DENY_WARNINGS;
use crate::process::{cargo, output, run};
use crate::tidy::is_database_client;
use crate::workspace::{FACADE, members, root};

/// Builds sets of features with the tests that go with them, warnings denied, and looks at what the default build pulls in.
///
/// # Errors
///
/// If a set does not build, or a database client is in the default build.
pub(crate) fn check() -> Result<()> {
    for set in sets(&single_features()?) {
        let features = set.join(",");
        let mut clippy = cargo(["clippy", "--locked", "--package", FACADE, "--all-targets"]);
        clippy.args(["--no-default-features", "--features", &features]);
        run(clippy.args(DENY_WARNINGS))?;
    }
    default_build_is_small()
}

/// The facade's features that are not just names for several others.
fn single_features() -> Result<Vec<String>> {
    let packages = members(root())?.packages;
    let facade = packages
        .into_iter()
        .find(|package| package.name.as_str() == FACADE)
        .with_context(|| format!("no package {FACADE}"))?;
    let names: BTreeSet<String> = facade.features.keys().cloned().collect();
    let is_single = |(name, enables): (String, Vec<String>)| {
        (enables.is_empty() || !enables.iter().all(|enabled| names.contains(enabled))).then_some(name)
    };
    Ok(facade.features.into_iter().filter_map(is_single).collect())
}

/// Above this many features not every set is built, since their number doubles with each.
const MOST_FOR_ALL_SETS: usize = 5;

/// All sets of these features; of many features none, each, all but each, and all.
fn sets(features: &[String]) -> Vec<Vec<String>> {
    let chosen = |mask: u32| features.iter().enumerate().filter(move |(index, _)| mask >> index & 1 == 1);
    let all = (1 << features.len()) - 1;
    let built = |mask: &u32| {
        features.len() <= MOST_FOR_ALL_SETS || mask.count_ones() <= 1 || (all ^ mask).count_ones() <= 1
    };
    (0..=all).filter(built).map(|mask| chosen(mask).map(|(_, name)| name.clone()).collect()).collect()
}

/// What an operator builds who never asked for a database.
const DEFAULT_BUILD: &str = "locks-cli";

fn default_build_is_small() -> Result<()> {
    let tree = output(&mut cargo([
        "tree",
        "--locked",
        "--package",
        DEFAULT_BUILD,
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]))?;
    let crates = crates_of(&tree);
    let clients: Vec<&str> = crates.iter().copied().filter(|name| is_database_client(name)).collect();
    if !clients.is_empty() {
        bail!("the default build of {DEFAULT_BUILD} has database clients: {}", clients.join(", "));
    }
    if !crates.contains(DEFAULT_BUILD) {
        bail!("cargo tree does not show {DEFAULT_BUILD} itself: its output has changed");
    }
    println!("the default build of {DEFAULT_BUILD} has {} crates and no database client", crates.len());
    Ok(())
}

/// The names in what `cargo tree` prints, each once.
fn crates_of(tree: &str) -> BTreeSet<&str> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("f{index}")).collect()
    }

    #[test]
    fn few_features_are_built_in_every_set() {
        let sets: BTreeSet<Vec<String>> = sets(&names(4)).into_iter().collect();
        assert_eq!(sets.len(), 16);
        assert!(sets.contains(&Vec::new()) && sets.contains(&names(4)));
    }

    #[test]
    fn each_crate_of_a_tree_counts_once_and_clients_are_seen() {
        let crates = crates_of(
            "locks-cli v0.1.0 (/x)\nsqlx-core v0.8.0\nserde v1.0.0 (proc-macro)\nserde v1.0.0 (*)\n\n",
        );
        assert_eq!(crates, BTreeSet::from(["locks-cli", "serde", "sqlx-core"]));
        assert!(crates.iter().any(|name| is_database_client(name)));
    }

    #[test]
    fn many_features_are_built_alone_without_each_and_together() {
        let sets = sets(&names(8));
        assert_eq!(sets.len(), 1 + 8 + 8 + 1);
        assert!(sets.contains(&names(8)));
    }
}
