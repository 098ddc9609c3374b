//! Waiting for what nobody tells.

use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

/// Polls until it is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        std::thread::yield_now();
    }
}
