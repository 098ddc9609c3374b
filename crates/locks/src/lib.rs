// The README's program needs a backend; without one its text is still the first thing to read on docs.rs, but it isn't compiled.
#![cfg_attr(feature = "file", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "file"), doc = "Named locks over the store you already run.")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod blocking;
mod connect;
#[cfg(feature = "macros")]
#[doc(hidden)]
pub mod decorated;
#[cfg(feature = "macros")]
mod decorators;
mod scheme;
mod set_up;

pub use connect::{builder, connect};
#[cfg(feature = "macros")]
#[doc(inline)]
pub use decorators::*;
#[doc(inline)]
pub use locks_api::*;
pub use set_up::{SetUp, set_up, set_up_script};

/// Locks between all machines that reach an etcd cluster: `etcd://host,host`, `etcds://host`.
#[cfg(feature = "etcd")]
pub mod etcd {
    #[doc(inline)]
    pub use locks_backend_etcd::*;
}

/// Locks between the processes of one machine: `file:`, `file:/a/directory`.
#[cfg(feature = "file")]
pub mod file {
    #[doc(inline)]
    pub use locks_backend_file::*;
}

/// Locks inside one `Locks`, for tests: `memory:`.
#[cfg(feature = "memory")]
pub mod memory {
    #[doc(inline)]
    pub use locks_backend_memory::*;
}

/// Locks between all machines that reach a PostgreSQL database: `postgres://host/database`.
#[cfg(feature = "postgres")]
pub mod postgres {
    #[doc(inline)]
    pub use locks_backend_postgres::*;
}

/// Locks between all machines that reach a Redis or Valkey server: `redis://host`, `rediss://host`, `redis+unix:/path`.
#[cfg(feature = "redis")]
pub mod redis {
    #[doc(inline)]
    pub use locks_backend_redis::*;
}
