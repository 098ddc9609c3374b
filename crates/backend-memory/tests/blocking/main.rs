//! The blocking API, over a store in memory and over one behind a line.

#![expect(clippy::unwrap_used, reason = "tests")]

mod methods;
mod runtimes;
mod threads;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use locks_api::blocking::Locks;
use locks_backend_memory::MemoryBackend;
use locks_backend_memory::emulated::{EmulatedStore, Emulation, Line};

const MS: Duration = Duration::from_millis(1);

fn memory() -> Locks {
    Locks::new(MemoryBackend::new())
}

fn emulated() -> (Locks, Line) {
    let (backend, line) = EmulatedStore::new(Emulation::default()).connect();
    (Locks::new(backend), line)
}

/// Runs `test` on a thread of its own: whatever blocks for ever is a failure and not a test that never ends.
fn within_time<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = mpsc::channel();
    let thread = thread::spawn(move || {
        let output = test();
        done.send(()).unwrap();
        output
    });
    if is_done.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it blocks for ever");
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
