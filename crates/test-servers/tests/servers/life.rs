//! The lives of a private Redis server: settings, deaths, returns, pauses.

use std::net::TcpStream;
use std::time::Duration;

use locks_test_servers::{ErrorKind, Redis};

use crate::client::Client;
use crate::eventually::eventually;
use crate::remains::processes_of;

#[test]
fn it_answers_and_is_gone_when_dropped() {
    let redis = Redis::start().unwrap();
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{}", redis.port()));
    let mut client = Client::of(&redis);
    assert_eq!(client.ask("PING"), "+PONG");
    assert!(client.ask("INFO server").contains(&format!("process_id:{}\r\n", redis.pid().unwrap())));
    assert!(client.ask("CONFIG GET appendonly").contains("no"));
    let (address, directory) = (redis.address(), redis.directory().unwrap().to_owned());
    assert!(directory.join("data").is_dir());
    drop(redis);
    TcpStream::connect(address).unwrap_err();
    assert!(!directory.exists());
}

#[test]
fn settings_files_and_further_ports_are_taken() {
    let redis = Redis::options()
        .config("maxmemory", "5mb")
        .config("client-output-buffer-limit", "pubsub 1mb 1mb 3")
        .config("aclfile", "{directory}/users.acl")
        .config("unixsocket", "{directory}/redis.sock")
        .config("cluster-enabled", "yes")
        .further_port("cluster-port")
        .file("users.acl", "user default on nopass ~* &* +@all\nuser alice on >secret ~* &* +@all\n")
        .start()
        .unwrap();
    let mut client = Client::of(&redis);
    assert!(client.ask("CONFIG GET maxmemory").contains("5242880"));
    assert!(client.ask("CONFIG GET client-output-buffer-limit").contains("pubsub 1048576 1048576 3"));
    assert_eq!(client.ask("AUTH alice secret"), "+OK");
    assert!(redis.directory().unwrap().join("redis.sock").exists());
    let bus = redis.further_port("cluster-port").unwrap();
    TcpStream::connect(("127.0.0.1", bus)).unwrap();
    assert_eq!(redis.further_port("tls-port"), None);
}

#[test]
fn a_server_that_wants_a_password_counts_as_up() {
    let redis = Redis::options().config("requirepass", "secret").start().unwrap();
    assert!(Client::of(&redis).ask("GET x").starts_with("-NOAUTH"));
}

#[test]
fn a_replica_follows() {
    let primary = Redis::options().config("repl-diskless-sync-delay", "0").start().unwrap();
    let of = format!("127.0.0.1 {}", primary.port());
    let replica = Redis::options().config("replicaof", &of).start().unwrap();
    assert_eq!(Client::of(&primary).ask("SET x 1"), "+OK");
    eventually("replication", || Client::of(&replica).ask("GET x") == "$1\r\n1");
}

#[test]
fn it_comes_back_on_its_port_with_its_files() {
    let redis = Redis::options().config("appendonly", "yes").config("appendfsync", "always").start().unwrap();
    let (port, pid) = (redis.port(), redis.pid().unwrap());
    assert_eq!(Client::of(&redis).ask("SET x 1"), "+OK");
    redis.kill().unwrap();
    TcpStream::connect(redis.address()).unwrap_err();
    assert_eq!(redis.pid().unwrap_err().kind(), ErrorKind::Failed);
    redis.kill().unwrap();
    redis.start_again().unwrap();
    assert_eq!(redis.port(), port);
    assert_ne!(redis.pid().unwrap(), pid);
    assert_eq!(Client::of(&redis).ask("GET x"), "$1\r\n1");
    redis.start_again().unwrap_err();
    redis.wipe().unwrap_err();
    redis.kill().unwrap();
    redis.wipe().unwrap();
    redis.start_again().unwrap();
    assert_eq!(Client::of(&redis).ask("GET x"), "$-1");
}

#[test]
fn without_settings_it_forgets_everything() {
    let redis = Redis::start().unwrap();
    assert_eq!(Client::of(&redis).ask("SET x 1"), "+OK");
    redis.kill().unwrap();
    redis.start_again().unwrap();
    assert_eq!(Client::of(&redis).ask("GET x"), "$-1");
}

#[test]
fn a_port_that_is_asked_for_is_had_or_refused() {
    let first = Redis::start().unwrap();
    let error = Redis::options().port(first.port()).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("Address already in use"), "{error}");
    let port = first.port();
    drop(first);
    assert_eq!(Redis::options().port(port).start().unwrap().port(), port);
}

#[test]
fn one_that_does_not_come_up_says_why() {
    let error = Redis::options().config("no-such-setting", "1").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    let error = error.to_string();
    assert!(error.starts_with("the server ended instead of coming up; its log ends with:\n"), "{error}");
    assert!(error.contains("no-such-setting"), "{error}");
}

#[test]
fn one_that_ends_by_itself_is_noticed_and_comes_back() {
    let redis = Redis::start().unwrap();
    Client::of(&redis).send("SHUTDOWN NOSAVE");
    eventually("the end", || redis.pid().is_err());
    let error = redis.pause().unwrap_err().to_string();
    assert!(error.contains("does not run; its log ends with:"), "{error}");
    redis.start_again().unwrap();
    assert_eq!(Client::of(&redis).ask("PING"), "+PONG");
}

#[test]
fn a_paused_server_is_silent_until_it_goes_on() {
    let redis = Redis::start().unwrap();
    let mut client = Client::of(&redis);
    redis.pause().unwrap();
    client.send("PING");
    assert_eq!(client.reply_within(Duration::from_millis(100)), None);
    redis.resume().unwrap();
    assert_eq!(client.reply_within(Duration::from_secs(20)).unwrap(), "+PONG");
    redis.pause().unwrap();
    redis.kill().unwrap();
    redis.start_again().unwrap();
    assert_eq!(Client::of(&redis).ask("PING"), "+PONG");
}

#[test]
fn its_children_die_with_it() {
    let redis = Redis::options().config("rdb-key-save-delay", "1000000").start().unwrap();
    let mut client = Client::of(&redis);
    for key in 0..100 {
        assert_eq!(client.ask(&format!("SET {key} 1")), "+OK");
    }
    assert!(client.ask("BGSAVE").starts_with('+'));
    let directory = redis.directory().unwrap().to_owned();
    eventually("the child", || processes_of(&directory).len() == 2);
    redis.kill().unwrap();
    assert_eq!(processes_of(&directory), [0; 0]);
}
