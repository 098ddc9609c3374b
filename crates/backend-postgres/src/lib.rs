#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod backend;
mod bound;
mod error;
mod inspect;
mod kinds;
mod link;
mod listener;
mod options;
mod record;
mod schema;
mod values;
mod verify;

use locks_api::{Locks, Result};

pub use backend::PostgresBackend;
pub use options::PostgresOptions;
/// The client whose transactions [`VerifyIn`] takes, and whose pools [`PostgresBackend::from_pool`].
pub use sqlx;
pub use verify::VerifyIn;

/// Locks in this database, with what its URL says: `postgres://host/database`.
///
/// # Errors
///
/// As [`PostgresBackend::from_url`].
pub fn open(url: &str) -> Result<Locks> {
    Ok(Locks::new(PostgresBackend::from_url(url)?))
}

/// Makes the tables if they are not there, and ends a grace. See [`PostgresBackend::set_up`].
///
/// # Errors
///
/// As [`PostgresBackend::set_up`].
pub async fn set_up(url: &str) -> Result<()> {
    PostgresBackend::from_url(url)?.set_up().await
}

/// The SQL that makes the tables. See [`PostgresBackend::set_up_script`].
///
/// # Errors
///
/// As [`PostgresBackend::from_url`].
pub fn set_up_script(url: &str) -> Result<String> {
    Ok(PostgresBackend::from_url(url)?.set_up_script())
}
