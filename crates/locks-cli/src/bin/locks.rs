//! Looks after the stores that keep locks.

use std::process::ExitCode;

fn main() -> ExitCode {
    locks_cli::toolbox()
}
