//! Exit codes. The command's own code passes unchanged; these are what the wrapper says for itself.

/// The command line, or the URL or name on it, makes no sense (`EX_USAGE`). Nothing was locked and nothing ran.
pub const USAGE: u8 = 64;

/// The store can't be reached, is full or refuses to serve (`EX_UNAVAILABLE`). Nothing ran.
pub const UNAVAILABLE: u8 = 69;

/// A bug in the wrapper (`EX_SOFTWARE`).
pub const BUG: u8 = 70;

/// The lock is taken, or was not had in time (`EX_TEMPFAIL`). Nothing ran. `--conflict-exit-code` changes it.
pub const BUSY: u8 = 75;

/// The lock was lost while the command ran, or could not be kept. The command and its process group are gone.
pub const LOST: u8 = 79;

/// The command ran for longer than `--max-run`. It and its process group were ended.
pub const RAN_TOO_LONG: u8 = 124;

/// The command was found and could not be run.
pub const NOT_EXECUTABLE: u8 = 126;

/// There is no such command.
pub const NOT_FOUND: u8 = 127;

/// The command, or the wait for the lock, was ended by the signal with this number: 128 + n.
pub const fn signal(number: i32) -> u8 {
    128_u8.wrapping_add(number.to_le_bytes()[0])
}
