//! The lives of private etcd servers, alone and in a cluster.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use locks_test_servers::{ErrorKind, Etcd, EtcdCluster};

use crate::eventually::eventually;

const LIMIT: Duration = Duration::from_secs(20);

/// The body of what the gateway for JSON answers, or `None` if it does not, or refuses.
fn ask(address: SocketAddr, path: &str, question: &str, limit: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).unwrap();
    let length = question.len();
    let request = format!("POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{question}");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// Sets x to 1.
fn put(etcd: &Etcd, limit: Duration) -> bool {
    ask(etcd.address(), "/v3/kv/put", r#"{"key":"eA==","value":"MQ=="}"#, limit).is_some()
}

/// Whether x is 1.
fn has(etcd: &Etcd) -> bool {
    range(etcd).unwrap().contains(X)
}

/// Whether it answers, and x is 1.
fn answers_with_x(etcd: &Etcd) -> bool {
    range(etcd).is_some_and(|answer| answer.contains(X))
}

const X: &str = "\"value\":\"MQ==\"";

fn range(etcd: &Etcd) -> Option<String> {
    ask(etcd.address(), "/v3/kv/range", r#"{"key":"eA=="}"#, LIMIT)
}

#[test]
fn it_answers_and_is_gone_when_dropped() {
    let etcd = Etcd::start().unwrap();
    assert_eq!(etcd.url(), format!("etcd://127.0.0.1:{}", etcd.port()));
    assert!(!has(&etcd));
    assert!(put(&etcd, LIMIT) && has(&etcd));
    let (address, directory) = (etcd.address(), etcd.directory().unwrap().to_owned());
    assert!(directory.join("data/member").is_dir());
    drop(etcd);
    TcpStream::connect(address).unwrap_err();
    assert!(!directory.exists());
}

#[test]
fn it_comes_back_on_its_port_with_its_data() {
    let etcd = Etcd::start().unwrap();
    assert!(put(&etcd, LIMIT));
    etcd.kill().unwrap();
    TcpStream::connect(etcd.address()).unwrap_err();
    assert_eq!(etcd.pid().unwrap_err().kind(), ErrorKind::Failed);
    etcd.start_again().unwrap();
    assert!(has(&etcd));
    etcd.wipe().unwrap_err();
    etcd.kill().unwrap();
    etcd.wipe().unwrap();
    etcd.start_again().unwrap();
    assert!(!has(&etcd));
}

#[test]
fn a_paused_server_is_silent_until_it_goes_on() {
    let etcd = Etcd::start().unwrap();
    etcd.pause().unwrap();
    assert!(!put(&etcd, Duration::from_millis(100)));
    etcd.resume().unwrap();
    assert!(put(&etcd, LIMIT));
    etcd.pause().unwrap();
    etcd.kill().unwrap();
    etcd.start_again().unwrap();
    assert!(has(&etcd));
}

#[test]
fn settings_are_taken() {
    let timing = (Duration::from_millis(30), Duration::from_millis(300));
    let etcd = Etcd::options()
        .timing(timing.0, timing.1)
        .config("unsafe-no-fsync", "false")
        .config("quota-backend-bytes", "20000000")
        .start()
        .unwrap();
    let log = etcd.log().unwrap();
    assert!(log.contains("heartbeat = 30ms") && log.contains("election = 300ms"), "{log}");
    let error = Etcd::options().timing(timing.1, timing.0).start().unwrap_err();
    assert!(error.to_string().starts_with("the server ended instead of coming up; its log ends with:\n"));
}

#[test]
fn a_cluster_survives_each_node_but_not_two() {
    let cluster = EtcdCluster::start().unwrap();
    let [first, second, third] = cluster.nodes() else { panic!("three nodes") };
    let expected = format!("etcd://{},{},{}", first.address(), second.address(), third.address());
    assert_eq!(cluster.url(), expected);
    assert!(put(first, LIMIT) && has(second) && has(third));
    for node in cluster.nodes() {
        node.kill().unwrap();
        let other = cluster.nodes().iter().find(|other| other.port() != node.port()).unwrap();
        eventually("a write without one node", || put(other, Duration::from_secs(5)));
        node.start_again().unwrap();
        eventually("what was written", || answers_with_x(node));
    }
    first.kill().unwrap();
    second.kill().unwrap();
    assert!(!put(third, Duration::from_millis(300)));
    cluster.start_again().unwrap();
    // Those that were started are healthy; this one may not have heard of a leader yet.
    eventually("a write with all nodes", || put(third, Duration::from_secs(5)));
    cluster.nodes().iter().for_each(|node| node.kill().unwrap());
    cluster.start_again().unwrap();
    eventually("what was written", || answers_with_x(first));
}

#[test]
fn a_leader_that_stands_still_is_replaced() {
    let cluster = EtcdCluster::start().unwrap();
    let mut leader = None;
    eventually("a leader", || {
        leader = cluster.leader();
        leader.is_some()
    });
    let old = leader.unwrap();
    old.pause().unwrap();
    eventually("another leader", || cluster.leader().is_some());
    let new = cluster.leader().unwrap();
    assert_ne!(new.port(), old.port());
    assert!(put(new, LIMIT));
    old.resume().unwrap();
    eventually("the old leader to follow", || put(old, Duration::from_secs(5)));
}

#[test]
fn what_has_no_network_of_its_own_can_not_be_cut_off() {
    let alone = Etcd::start().unwrap();
    for error in [alone.disconnect().unwrap_err(), alone.reconnect().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("LOCKS_TEST_SERVERS=docker"), "{error}");
    }
    assert!(put(&alone, LIMIT));
}
