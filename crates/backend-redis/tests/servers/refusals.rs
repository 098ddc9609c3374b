//! Servers on which locks can't be relied on are refused in words, and full ones say that they are full.

use std::time::{Duration, Instant};

use locks_api::{Busy, ErrorKind, LossReason};
use locks_backend_redis::redis::{Client, ConnectionLike as _, Value, cmd};
use locks_backend_redis::{RedisBackend, set_up};
use locks_test_servers::Redis;

use super::{PROMPT, ask, connect, eventually, pause, ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_evicts_is_refused_unless_allowed() {
    for policy in ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"] {
        let server = Redis::options().config("maxmemory-policy", policy).start().unwrap();
        let error = connect(server.url()).lock("a").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error.to_string().contains(policy) && error.to_string().contains("allow_eviction"),
            "{error}"
        );
        let allowed = format!("{}?allow_eviction=on", server.url());
        set_up(&allowed).await.unwrap();
        connect(&allowed).lock("a").acquire().await.unwrap().release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_changes_later_is_noticed() {
    let (server, url) = ready().await;
    let locks = connect(&url);
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    ask(&server, cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("allkeys-lru"));
    pause(Duration::from_secs(15)).await;
    assert_eq!(locks.lock("a").try_acquire().await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_lock_is_lost_and_told() {
    let (server, url) = ready().await;
    let url = format!("{url}&allow_eviction=on");
    let locks = connect(&url);
    let guard = locks.lock("victim").ttl(Duration::from_secs(2)).acquire().await.unwrap();
    ask(&server, cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("allkeys-random"));
    ask(&server, cmd("CONFIG").arg("SET").arg("maxmemory").arg("1"));
    // Every write evicts, until nothing is left to evict.
    let write = cmd("SET").arg("pressure").arg("x").to_owned();
    let mut connection = Client::open(server.url()).unwrap().get_connection().unwrap();
    eventually("evicting a lock", || {
        // It fails once nothing is left, which is what is wanted.
        drop(connection.req_command(&write));
        ask(&server, cmd("EXISTS").arg("{locks}:1:l:victim")) == Value::Int(0)
    })
    .await;
    ask(&server, cmd("CONFIG").arg("SET").arg("maxmemory").arg("0"));
    let reason = tokio::time::timeout(PROMPT, guard.lost()).await.unwrap();
    assert!(
        matches!(reason, LossReason::Revoked | LossReason::StoreReset | LossReason::Expired),
        "{reason:?}"
    );
    let token = guard.fencing_token();
    let next = locks.lock("victim").acquire_timeout(PROMPT).await.unwrap();
    assert!(next.fencing_token() > token);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_says_so_and_keeps_what_is_held() {
    let (server, url) = ready().await;
    let (locks, other) = (connect(&url), connect(&url));
    let guard = locks.lock("held").ttl(Duration::from_secs(2)).acquire().await.unwrap();
    ask(&server, cmd("CONFIG").arg("SET").arg("maxmemory").arg("1"));
    let error = other.lock("new").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreFull);
    assert!(error.to_string().contains("maxmemory"), "{error}");
    // Renewals and releases need no room.
    pause(Duration::from_secs(3)).await;
    assert!(guard.is_held());
    guard.release().await.unwrap();
    ask(&server, cmd("CONFIG").arg("SET").arg("maxmemory").arg("0"));
    other.lock("held").acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_refused() {
    let (primary, _) = ready().await;
    let replica =
        Redis::options().config("replicaof", &format!("127.0.0.1 {}", primary.port())).start().unwrap();
    let error = connect(replica.url()).lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("replica"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_becomes_a_replica_grants_nothing() {
    let (server, url) = ready().await;
    let locks = connect(&url);
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    ask(&server, cmd("REPLICAOF").arg("127.0.0.1").arg("1"));
    let error = locks.lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    // It is promoted again, perhaps with other data: that takes a grace.
    ask(&server, cmd("REPLICAOF").arg("NO").arg("ONE"));
    let busy = locks.lock("a").acquire_timeout(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(busy.busy(), Some(Busy::Grace { .. })), "{busy:?}");
    locks.lock("a").acquire_timeout(PROMPT).await.unwrap().release().await.unwrap();
}

/// Nobody uses the connection while the server changes its role and its data, and no message says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_role_behind_an_idle_connection_is_noticed() {
    let (server, url) = ready().await;
    let locks = connect(&url);
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
    ask(&server, cmd("REPLICAOF").arg("127.0.0.1").arg("1"));
    ask(&server, cmd("REPLICAOF").arg("NO").arg("ONE"));
    pause(Duration::from_millis(1_100)).await;
    assert!(
        locks.lock("a").try_acquire().await.unwrap().is_none(),
        "granted by another primary without a grace"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_share_a_namespace_ask_for_the_same_largest_ttl() {
    let (server, url) = ready().await;
    connect(&url).lock("a").acquire().await.unwrap().release().await.unwrap();
    for other in ["max_ttl=5s", "max_ttl=3s", ""] {
        let error = connect(&format!("{}?{other}", server.url())).lock("a").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("max_ttl"), "{error}");
        let error = set_up(&format!("{}?{other}", server.url())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn durability_needs_its_replicas() {
    let (primary, url) = ready().await;
    let locks = connect(&format!("{url}&durability=replicated(1)"));
    let error = locks.lock("a").acquire_timeout(PROMPT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("0 of 1"), "{error}");
    let _replica =
        Redis::options().config("replicaof", &format!("127.0.0.1 {}", primary.port())).start().unwrap();
    let guard = loop {
        match locks.lock("b").acquire().await {
            Ok(guard) => break guard,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
    };
    let other = connect(&format!("{url}&durability=replicated(1)"));
    let lock = other.lock("b");
    let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    pause(Duration::from_millis(100)).await;
    guard.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

/// What is handed over counts no sooner than what is granted: its replicas are asked first.
#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_needs_its_replicas_too() {
    let (primary, url) = ready().await;
    let url = format!("{url}&durability=replicated(1)");
    let replica =
        Redis::options().config("replicaof", &format!("127.0.0.1 {}", primary.port())).start().unwrap();
    let (locks, other) = (connect(&url), connect(&url));
    let guard = loop {
        match locks.lock("a").acquire().await {
            Ok(guard) => break guard,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
    };
    let lock = other.lock("a");
    let waiter = tokio::spawn(async move { lock.acquire_timeout(Duration::from_secs(2)).await });
    pause(Duration::from_millis(200)).await;
    replica.kill().unwrap();
    drop(guard);
    assert!(waiter.await.unwrap().is_err(), "handed over without a replica");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_told_in_time() {
    let port = {
        let server = Redis::start().unwrap();
        server.port()
    };
    let locks = connect(&format!("redis://127.0.0.1:{port}"));
    let began = Instant::now();
    let error = locks.lock("a").acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    drop(RedisBackend::from_url("redis://127.0.0.1").unwrap());
}
