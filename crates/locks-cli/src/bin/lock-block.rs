//! Runs a command under a named lock, and waits for the lock first.

use std::process::ExitCode;

fn main() -> ExitCode {
    locks_cli::main(locks_cli::Tool::Block)
}
