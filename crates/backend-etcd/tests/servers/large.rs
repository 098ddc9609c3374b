//! Very many locks.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use locks_api::{LockGuard, Locks};
use locks_backend_etcd::EtcdBackend;
use locks_test_servers::{Etcd, gateway};
use tokio::task::JoinSet;

use super::pause;

const LOCKS: usize = 10_000;

/// A number that the member tells of itself.
fn metric(server: &Etcd, name: &str) -> f64 {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_lease_and_one_stream_carry_ten_thousand_locks() {
    let ttl = Duration::from_secs(10);
    let server = Etcd::start().unwrap();
    // As long as it takes on a busy machine.
    let locks = Locks::new(EtcdBackend::from_url(server.url()).unwrap());
    let mut tasks = JoinSet::new();
    for number in 0..LOCKS {
        let lock = locks.lock(format!("lock/{number}")).ttl(ttl);
        tasks.spawn(async move { lock.acquire().await });
    }
    let mut guards: Vec<LockGuard> = Vec::with_capacity(LOCKS);
    while let Some(guard) = tasks.join_next().await {
        guards.push(guard.unwrap().unwrap());
    }
    let until = Instant::now() + ttl * 2;
    while Instant::now() < until {
        assert!(guards.iter().all(LockGuard::is_held), "some of many locks were lost");
        pause(Duration::from_millis(200)).await;
    }
    let leases = gateway::call(server.address(), "lease/leases", "{}").unwrap();
    assert_eq!(gateway::fields(&leases, "ID").len(), 1, "{leases}");
    assert_eq!(metric(&server, "etcd_debugging_mvcc_watch_stream_total"), 1.0);
    assert_eq!(metric(&server, "etcd_debugging_mvcc_watcher_total"), 10_000.0);
    let (last, rest) = guards.split_last().unwrap();
    let key = gateway::keys(server.address(), &format!("locks/1/lock/{}@", last.name())).unwrap().remove(0);
    gateway::delete(server.address(), &key).unwrap();
    super::within("the loss of one of many", last.lost()).await;
    assert!(rest.iter().all(LockGuard::is_held));
    let mut tasks = JoinSet::new();
    guards.pop();
    for guard in guards {
        tasks.spawn(guard.release());
    }
    while let Some(released) = tasks.join_next().await {
        released.unwrap().unwrap();
    }
    locks.close().await.unwrap();
    assert!(gateway::keys(server.address(), "locks/").unwrap().is_empty());
}
