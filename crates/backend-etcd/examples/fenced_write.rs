//! A transaction of etcd that relies on a lock: it does something only while the lock is held, whatever any clock says.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io::Write as _;
use std::process::{Command, Stdio};

use locks_api::LockGuard;
use locks_test_servers::Etcd;

// region: check
use locks_backend_etcd::OwnedInEtcd as _;

/// Puts a value if the lock is still held, in one transaction. Any client can do that; here it is etcdctl.
fn put(server: &Etcd, guard: &LockGuard, key: &str, value: &str) -> Result<bool, Box<dyn Error>> {
    let check = guard.owner_check()?;
    let transaction = format!(
        "create({:?}) = \"{}\"\n\nput {key} {value}\n\n\n",
        String::from_utf8(check.key)?,
        check.create_revision
    );
    Ok(etcdctl(server, &["txn"], &transaction)?.starts_with("SUCCESS"))
}
// endregion

fn etcdctl(server: &Etcd, arguments: &[&str], input: &str) -> Result<String, Box<dyn Error>> {
    let mut child = Command::new("etcdctl")
        .arg(format!("--endpoints={}", server.address()))
        .args(arguments)
        .env("ETCDCTL_API", "3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Etcd::start()?;
    let locks = locks_backend_etcd::open(server.url())?;
    let guard = locks.lock("report").acquire().await?;
    assert!(put(&server, &guard, "report/state", "running")?);

    // Somebody takes the lock away. Whatever the guard believes now, no transaction of its succeeds any more.
    let check = guard.owner_check()?;
    etcdctl(&server, &["del", std::str::from_utf8(&check.key)?], "")?;
    let written = put(&server, &guard, "report/state", "done").unwrap_or(false);
    println!("written after the lock was taken away: {written}");
    assert!(!written);
    let state = etcdctl(&server, &["get", "--print-value-only", "report/state"], "")?;
    assert_eq!(state.trim(), "running");
    locks.close().await?;
    Ok(())
}
