//! A part of the tests on servers that are had in the other way than those of all tests: on installed programs, or in containers.

use anyhow::Result;
use locks_test_servers::{Mode, Technology, availability};

use crate::conformance::AT_A_TIME;
use crate::containers;
use crate::process::{cargo, run_tests};
use crate::servers::{self, Servers};
use crate::totals::Totals;

/// Each with the target that has it: what outlives a server, whose death and return is what another way to have it changes, and the nodes of a cluster, which can be
/// cut off in containers only. Crowds take long and are about the backends.
const TESTS: [(&str, &[&str]); 2] =
    [("conformance", &["restart::", "--skip", "crowd"]), ("servers", &["cluster::"])];

/// The whole of the servers' own tests, and what is about deaths and cuts of servers, in the other way, if there is one.
///
/// # Errors
///
/// If its servers can't be had, or a test fails.
pub(crate) fn test(servers: &Servers) -> Result<()> {
    let mode = match servers.mode() {
        Mode::Docker => Mode::Native,
        Mode::Native => {
            if let Err(reason) = availability(Technology::Redis) {
                eprintln!("not run in containers: {reason}");
                return Ok(());
            }
            Mode::Docker
        }
        mode => {
            eprintln!("nothing to be done: the tests run on servers of mode {mode}");
            return Ok(());
        }
    };
    let others = servers.in_mode(mode).prepare_all()?;
    let mut totals = Totals::default();
    if others.are_in_containers() {
        totals += containers::test_keeper()?;
    }
    let mut own = cargo(["test", "--locked", "--no-fail-fast", "--package", "locks-test-servers"]);
    totals += run_tests(own.envs(others.environment()))?;
    for (target, filter) in TESTS {
        // With the features of the tests that come next, so that nothing is built twice.
        let mut tests = cargo(["test", "--locked", "--workspace", "--all-features", "--no-fail-fast"]);
        for backend in servers::backends_without()? {
            tests.args(["--exclude".to_owned(), format!("locks-backend-{backend}")]);
        }
        tests.args(["--test", target, "--"]).args(filter);
        tests.envs(others.environment()).env(AT_A_TIME.0, AT_A_TIME.1);
        totals += run_tests(&mut tests)?;
    }
    totals.close()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    #[test]
    fn the_tests_are_there() {
        let files = ["crates/locks-conformance/src/cases", "crates/backend-etcd/tests/servers"];
        for ((_, filter), dir) in TESTS.iter().zip(files) {
            let module = filter[0].trim_end_matches(':');
            assert!(root().join(dir).join(format!("{module}.rs")).exists(), "{module}");
        }
    }
}
