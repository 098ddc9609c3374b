//! Decorated functions: what they return, which lock they take, and what holds inside of them.
#![cfg(all(feature = "macros", feature = "memory", feature = "file"))]
#![expect(clippy::unwrap_used, reason = "tests; clippy knows only the functions that are marked as such")]

mod bodies;
mod boxed;
mod defaults;
mod losses;
mod methods;
mod names;
mod nesting;
mod processes;
mod returns;

use locks::{Locks, with_default};

/// Locks of its own for one test.
async fn memory() -> Locks {
    locks::connect("memory:").await.unwrap()
}

/// Runs a test with a default of its own.
async fn alone<B: Future>(body: B) -> B::Output {
    with_default(&memory().await, body).await
}
