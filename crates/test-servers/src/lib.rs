#![doc = include_str!("../README.md")]
#![cfg(unix)]

mod error;
mod keeper;
mod port;
mod process;
mod redis;
mod source;
mod technology;

pub use error::{Error, ErrorKind};
pub use redis::{Options, Redis};
pub use source::{Mode, SERVERS_VARIABLE, Source};
pub use technology::Technology;
