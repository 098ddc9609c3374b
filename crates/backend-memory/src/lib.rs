#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
pub mod emulated;

pub use backend::{MemoryBackend, MemoryStore};
