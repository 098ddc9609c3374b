//! The programs from the outside: real binaries, real processes, real signals, real files.
#![cfg_attr(
    feature = "file",
    expect(clippy::unwrap_used, reason = "tests; clippy knows only the functions that are marked as such")
)]

#[cfg(feature = "file")]
mod contract;
#[cfg(feature = "file")]
mod exclusion;
#[cfg(not(feature = "file"))]
mod feature_off;
#[cfg(feature = "file")]
mod flags;
#[cfg(feature = "file")]
mod limits;
#[cfg(all(
    feature = "file",
    any(feature = "etcd", feature = "postgres", feature = "redis"),
    target_os = "linux"
))]
mod loss;
#[cfg(all(feature = "file", feature = "postgres"))]
mod postgres;
#[cfg(all(feature = "file", feature = "postgres", target_os = "linux"))]
mod postgres_session;
#[cfg(all(feature = "file", target_os = "linux"))]
mod pty;
#[cfg(all(feature = "file", feature = "redis"))]
mod redis;
#[cfg(feature = "file")]
mod signals;
#[cfg(all(feature = "file", any(feature = "etcd", feature = "postgres", feature = "redis")))]
mod stores;
#[cfg(feature = "file")]
mod support;
#[cfg(all(feature = "file", target_os = "linux"))]
mod terminal;
#[cfg(all(
    feature = "file",
    any(feature = "etcd", feature = "postgres", feature = "redis"),
    target_os = "linux"
))]
mod terminal_and_ttl;
#[cfg(feature = "file")]
mod toolbox;
#[cfg(feature = "file")]
mod trouble;
#[cfg(all(feature = "file", any(feature = "etcd", feature = "postgres", feature = "redis")))]
mod ttl;
