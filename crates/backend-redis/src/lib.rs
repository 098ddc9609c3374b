#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod backend;
mod error;
mod inspect;
mod kinds;
mod link;
mod listener;
mod options;
mod record;
mod scripts;
mod server;
mod values;

use locks_api::{Locks, Result};

pub use backend::RedisBackend;
pub use options::{Durability, RedisOptions};
/// The client that [`RedisBackend::from_client`] takes.
pub use redis;

/// Locks on this server, with what its URL says: `redis://host`, `redis+unix:/path`, `rediss://host` (feature `rustls`).
///
/// # Errors
///
/// As [`RedisBackend::from_url`].
pub fn open(url: &str) -> Result<Locks> {
    Ok(Locks::new(RedisBackend::from_url(url)?))
}

/// Makes a server ready that is known to be new, so that it needs no grace. See [`RedisBackend::set_up`].
///
/// # Errors
///
/// As [`RedisBackend::set_up`].
pub async fn set_up(url: &str) -> Result<()> {
    RedisBackend::from_url(url)?.set_up().await
}
