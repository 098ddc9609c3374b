#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod abilities;
mod backend;
pub mod emulated;
mod row;
mod watched;

pub use backend::{MemoryBackend, MemoryStore};
