//! A store with a ttl, restarts and a bad line, in memory and under the control of a test.
//!
//! It behaves like a store behind a network: grants expire, waiters queue and are served by a push, a crash may
//! forget or bring back grants, and then nothing is granted until all that was forgotten has surely
//! expired. [`Line`] is one process's way to it, on which requests and replies can be lost, doubled and delayed.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use locks_api::{Locks, LossReason};
//! use locks_backend_memory::emulated::{EmulatedStore, Emulation};
//!
//! let store = EmulatedStore::new(Emulation::default());
//! let (backend, line) = store.connect();
//! let locks = Locks::new(backend);
//! line.lose_replies(1);
//! let guard = locks.lock("x").acquire().await?;   // asked again, granted once
//! store.revoke("x");
//! assert_eq!(guard.lost().await, LossReason::Revoked);
//! # Ok::<(), locks_api::Error>(())
//! # }).unwrap();
//! ```

mod abilities;
mod backend;
mod data;
mod line;
mod store;

pub use backend::EmulatedBackend;
pub use line::Line;
pub use store::{Carrier, Crash, EmulatedStore, Emulation, Snapshot};
