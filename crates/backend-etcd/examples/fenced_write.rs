//! A transaction of etcd that relies on a lock: it does something only while the lock is held, whatever any clock says.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use locks_api::LockGuard;
use locks_test_servers::{Etcd, gateway};

// region: check
use locks_backend_etcd::OwnedInEtcd as _;

/// Puts a value if the lock is still held, in one transaction. Any client can do that; here it is a request to the member's JSON gateway.
fn put(server: &Etcd, guard: &LockGuard, key: &str, value: &str) -> Result<bool, Box<dyn Error>> {
    let check = guard.owner_check()?;
    let (owner, created) = (gateway::encode(&check.key), check.create_revision);
    let (key, value) = (gateway::encode(key.as_bytes()), gateway::encode(value.as_bytes()));
    let transaction = format!(
        r#"{{"compare":[{{"key":"{owner}","target":"CREATE","create_revision":"{created}"}}],
            "success":[{{"request_put":{{"key":"{key}","value":"{value}"}}}}]}}"#
    );
    let answer = gateway::call(server.address(), "kv/txn", &transaction)?;
    Ok(answer.contains(r#""succeeded":true"#))
}
// endregion

fn get(server: &Etcd, key: &str) -> Result<String, Box<dyn Error>> {
    let range = format!(r#"{{"key":"{}"}}"#, gateway::encode(key.as_bytes()));
    let answer = gateway::call(server.address(), "kv/range", &range)?;
    let value = gateway::fields(&answer, "value").first().copied().unwrap_or_default();
    Ok(String::from_utf8(gateway::decode(value)?)?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Etcd::start()?;
    let locks = locks_backend_etcd::open(server.url())?;
    let guard = locks.lock("report").acquire().await?;
    assert!(put(&server, &guard, "report/state", "running")?);

    // Somebody takes the lock away. Whatever the guard believes now, no transaction of its succeeds any more.
    let check = guard.owner_check()?;
    gateway::delete(server.address(), &gateway::encode(&check.key))?;
    let written = match put(&server, &guard, "report/state", "done") {
        // The guard has heard of it already, and has no check to offer.
        Err(_) if !guard.is_held() => false,
        written => written?,
    };
    println!("written after the lock was taken away: {written}");
    assert!(!written);
    assert_eq!(get(&server, "report/state")?, "running");
    locks.close().await?;
    Ok(())
}
