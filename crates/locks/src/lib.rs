// The README's program needs a backend; without one its text is still the first thing to read on docs.rs, but it isn't compiled.
#![cfg_attr(feature = "file", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "file"), doc = "Named locks over the store you already run.")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connect;

pub use connect::connect;
#[doc(inline)]
pub use locks_api::*;

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
