#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod address;
mod backend;
mod error;
mod inspect;
mod keys;
mod kinds;
mod known;
mod leases;
mod link;
mod messages;
mod options;
mod owner;
mod queue;
mod record;
mod renewals;
mod rpc;
mod schedule;
mod store;
mod txns;
mod values;
mod view;
mod watcher;
mod watches;

use locks_api::{Locks, Result};

pub use backend::EtcdBackend;
pub use options::EtcdOptions;
pub use owner::{OwnedInEtcd, OwnerCheck};
/// The transport of the client, whose channel [`EtcdBackend::from_channel`] takes.
pub use tonic;

/// Locks in this cluster, with what its URL says: `etcd://host`, `etcds://host` (feature `rustls`).
///
/// # Errors
///
/// As [`EtcdBackend::from_url`].
pub fn open(url: &str) -> Result<Locks> {
    Ok(Locks::new(EtcdBackend::from_url(url)?))
}

/// Asks a cluster who it is. See [`EtcdBackend::set_up`].
///
/// # Errors
///
/// As [`EtcdBackend::set_up`].
pub async fn set_up(url: &str) -> Result<()> {
    EtcdBackend::from_url(url)?.set_up().await
}
