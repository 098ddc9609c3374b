//! Real servers: how they live, and that they end with the process that started them.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "this is a test")]

mod client;
mod docker;
mod ends;
mod etcd;
mod eventually;
mod life;
mod mariadb;
mod postgres;
mod remains;

#[test]
#[ignore = "the processes that other tests end"]
fn child_process() {
    ends::play();
}
