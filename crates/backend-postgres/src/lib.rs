#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod address;
mod backend;
mod bound;
mod contention;
mod error;
mod inspect;
mod kinds;
mod link;
mod listener;
mod options;
mod record;
mod schema;
mod session;
mod values;
mod verify;

use locks_api::{Locks, LocksBuilder, Result};

use address::Mode;
pub use backend::PostgresBackend;
pub use options::PostgresOptions;
pub use session::{AcquireIn, PostgresSessionBackend};
/// The client whose transactions [`VerifyIn`] and [`AcquireIn`] take, and whose pools [`PostgresBackend::from_pool`].
pub use sqlx;
pub use verify::VerifyIn;

/// Locks in this database, with what its URL says: `postgres://host/database`, in the mode that it says.
///
/// # Errors
///
/// As [`PostgresBackend::from_url`].
pub fn open(url: &str) -> Result<Locks> {
    Ok(builder(url)?.build())
}

/// The same, for those who have something to choose.
///
/// # Errors
///
/// As [`PostgresBackend::from_url`].
pub fn builder(url: &str) -> Result<LocksBuilder> {
    let address = address::parse(url)?;
    Ok(match address.mode {
        Mode::Lease => Locks::builder(PostgresBackend::new(address)),
        Mode::Session => Locks::builder(PostgresSessionBackend::new(address)),
    })
}

/// Makes the tables if they are not there, and ends a grace: see [`PostgresBackend::set_up`]. With `mode=session` there is nothing to make, and
/// nothing is done.
///
/// # Errors
///
/// As [`PostgresBackend::set_up`].
pub async fn set_up(url: &str) -> Result<()> {
    let address = address::parse(url)?;
    match address.mode {
        Mode::Lease => PostgresBackend::new(address).set_up().await,
        Mode::Session => Ok(()),
    }
}

/// The SQL that makes the tables: see [`PostgresBackend::set_up_script`]. `None` with `mode=session`, which has none.
///
/// # Errors
///
/// As [`PostgresBackend::from_url`].
pub fn set_up_script(url: &str) -> Result<Option<String>> {
    let address = address::parse(url)?;
    Ok(match address.mode {
        Mode::Lease => Some(PostgresBackend::new(address).set_up_script()),
        Mode::Session => None,
    })
}
