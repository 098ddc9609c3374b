//! A part of the tests on servers that are had in the other way than those of all tests: installed, or in containers.

use anyhow::Result;
use locks_test_servers::{Mode, Technology, availability};

use crate::containers;
use crate::process::{cargo, run_tests};
use crate::servers::Servers;
use crate::totals::Totals;

/// The servers' own tests, and those of nodes that are cut off, which containers alone can be, in the other way, if there is one.
///
/// # Errors
///
/// If its servers can't be had, or a test fails.
pub(crate) fn test(servers: &Servers) -> Result<()> {
    let mode = match servers.mode() {
        Mode::Url => {
            eprintln!("nothing to be done: no server may be started");
            return Ok(());
        }
        _ if servers.are_in_containers() => Mode::Native,
        _ => {
            if let Err(reason) = availability(Technology::Redis) {
                eprintln!("not run in containers: {reason}");
                return Ok(());
            }
            Mode::Docker
        }
    };
    let is_to_be_removed = mode == Mode::Docker && containers::is_without_image(Technology::Redis);
    let others = servers.in_mode(mode).prepare_all()?;
    let mut totals = Totals::default();
    if others.are_in_containers() {
        totals += containers::test_keeper()?;
    }
    let mut own = cargo(["test", "--locked", "--no-fail-fast", "--package", "locks-test-servers"]);
    totals += run_tests(own.envs(others.environment()))?;
    // With the features of the tests that come next, so that nothing is built twice.
    let mut clusters = cargo(["test", "--locked", "--workspace", "--all-features", "--no-fail-fast"]);
    clusters.args(["--test", "servers", "--", CLUSTERS]).envs(others.environment());
    totals += run_tests(&mut clusters)?;
    if is_to_be_removed {
        // The next run is to find what this one found: with an image it would have everything in containers.
        containers::remove_made()?;
    }
    totals.close()
}

/// The tests of clusters.
const CLUSTERS: &str = "cluster::";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    #[test]
    fn there_are_tests_of_clusters() {
        let module = format!("{}.rs", CLUSTERS.trim_end_matches(':'));
        assert!(root().join("crates/backend-etcd/tests/servers").join(module).exists());
    }
}
