#![doc = include_str!("../README.md")]
#![cfg(unix)]

mod account;
mod engine;
mod error;
mod etcd;
pub mod gateway;
mod image;
mod keeper;
mod mariadb;
mod pgbouncer;
mod place;
mod port;
mod postgres;
mod probe;
mod process;
mod program;
mod redis;
mod server;
mod source;
mod technology;

pub use error::{Error, ErrorKind};
pub use etcd::{Etcd, EtcdCluster, EtcdOptions};
pub use image::{Availability, Image, LOCAL_IMAGE, availability, pull};
pub use mariadb::{MariaDb, MariaDbOptions};
pub use pgbouncer::{PgBouncer, PgBouncerOptions, PoolMode};
pub use postgres::{BaseBackup, Postgres, PostgresOptions};
pub use redis::{Options, Redis};
pub use server::Server;
pub use source::{Mode, SERVERS_VARIABLE, Source};
pub use technology::Technology;
