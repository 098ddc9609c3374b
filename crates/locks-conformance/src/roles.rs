//! What a process of the test binary is there for. The parent says it in the environment of the ones it starts.

use std::env;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// Where the parent says it.
const VARIABLE: &str = "LOCKS_CONFORMANCE_ROLE";

/// What this process is there for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Run one case.
    Case { harness: String, case: String, repeats: u32, url: Option<String> },
    /// Take orders from a case.
    Worker { harness: String, url: String },
}

impl Role {
    /// The role of this process, or `None` for the one that the user started.
    pub(crate) fn of_this_process() -> Option<Self> {
        let role = env::var(VARIABLE).ok()?;
        Some(serde_json::from_str(&role).expect("the role was written by another process of this binary"))
    }

    /// A process of this very binary that plays this role.
    pub(crate) fn command(&self) -> Command {
        // By this path it is found even after a new build has taken its place.
        let mut command = Command::new("/proc/self/exe");
        command.env(VARIABLE, serde_json::to_string(self).expect("a role is plain data"));
        command
    }
}
