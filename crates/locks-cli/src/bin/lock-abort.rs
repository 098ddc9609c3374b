//! Runs a command under a named lock, or not at all if the lock is taken.

use std::process::ExitCode;

fn main() -> ExitCode {
    locks_cli::main(locks_cli::Tool::Abort)
}
