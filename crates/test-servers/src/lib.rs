#![doc = include_str!("../README.md")]
#![cfg(unix)]

mod account;
mod error;
mod etcd;
mod keeper;
mod pgbouncer;
mod port;
mod postgres;
mod probe;
mod process;
mod redis;
mod server;
mod source;
mod technology;

pub use error::{Error, ErrorKind};
pub use etcd::{Etcd, EtcdCluster, EtcdOptions};
pub use pgbouncer::{PgBouncer, PgBouncerOptions, PoolMode};
pub use postgres::{BaseBackup, Postgres, PostgresOptions};
pub use redis::{Options, Redis};
pub use server::Server;
pub use source::{Mode, SERVERS_VARIABLE, Source};
pub use technology::Technology;
