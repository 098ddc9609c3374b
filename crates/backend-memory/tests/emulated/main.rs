//! The engine over a store with a ttl, restarts and a bad line.

mod engine;
mod kinds;

use std::time::{Duration, Instant};

use locks_api::Locks;
use locks_backend_memory::emulated::{EmulatedStore, Emulation, Line};

const MS: Duration = Duration::from_millis(1);

fn store() -> EmulatedStore {
    EmulatedStore::new(Emulation::default())
}

fn connect(store: &EmulatedStore) -> (Locks, Line) {
    let (backend, line) = store.connect();
    (Locks::new(backend), line)
}

/// Waits until `done`, at most for 10 s.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        #[expect(clippy::disallowed_methods, reason = "the store's inner state has no event to wait for")]
        tokio::time::sleep(MS).await;
    }
}
