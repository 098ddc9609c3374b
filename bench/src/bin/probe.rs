//! The command that the queued wrappers run: as cheap as `true`, but it sees when another one is inside.

use std::fs::{self, File};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(marker) = std::env::var_os("PROBE_MARKER") else { return ExitCode::from(2) };
    if File::create_new(&marker).is_err() {
        return ExitCode::from(3);
    }
    if fs::remove_file(&marker).is_err() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}
