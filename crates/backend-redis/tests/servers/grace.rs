//! A server that may have forgotten its grants grants nothing until they have expired.

use std::sync::Arc;
use std::time::{Duration, Instant};

use locks_api::{Busy, LossReason};
use locks_backend_redis::redis::{Value, cmd};
use locks_backend_redis::set_up;
use locks_test_servers::Redis;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{PROMPT, ask, connect, ready};

fn epoch(server: &Redis) -> String {
    match ask(server, cmd("GET").arg("{locks}:1:epoch")) {
        Value::BulkString(record) => String::from_utf8(record).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_vouched_for_is_in_grace_and_says_how_to_end_it() {
    let server = Redis::start().unwrap();
    let url = format!("{}?max_ttl=4s", server.url());
    let locks = connect(&url);
    assert!(locks.lock("a").try_acquire().await.unwrap().is_none());
    let error = locks.lock("a").acquire_timeout(Duration::from_millis(100)).await.unwrap_err();
    let Some(Busy::Grace { remaining }) = error.busy() else { panic!("{error:?}") };
    assert!(*remaining <= Duration::from_secs(4));
    assert!(error.to_string().contains("locks setup"), "{error}");
    // An operator knows that it is new.
    set_up(&url).await.unwrap();
    assert!(locks.lock("a").try_acquire().await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_race_for_a_new_epoch_agree_on_one() {
    const RACERS: usize = 8;
    for _ in 0..5 {
        let server = Redis::start().unwrap();
        let began = Instant::now();
        let barrier = Arc::new(Barrier::new(RACERS));
        let mut racers = JoinSet::new();
        for _ in 0..RACERS {
            let (barrier, locks) = (Arc::clone(&barrier), connect(&format!("{}?max_ttl=1s", server.url())));
            racers.spawn(async move {
                barrier.wait().await;
                let guard =
                    locks.lock("a").ttl(Duration::from_secs(1)).acquire_timeout(PROMPT).await.unwrap();
                let token = guard.fencing_token();
                guard.release().await.unwrap();
                token
            });
        }
        let first = epoch_once(&server).await;
        let mut tokens = racers.join_all().await;
        assert!(began.elapsed() >= Duration::from_secs(1), "granted without a grace");
        assert_eq!(epoch(&server), first, "there were two epochs");
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), RACERS, "a token was given twice");
    }
}

async fn epoch_once(server: &Redis) -> String {
    super::eventually("the first epoch", || {
        ask(server, cmd("EXISTS").arg("{locks}:1:epoch")) == Value::Int(1)
    })
    .await;
    epoch(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_noticed_by_holders_and_costs_a_grace() {
    let (server, url) = ready().await;
    let (locks, other) = (connect(&url), connect(&url));
    let guard = locks.lock("a").ttl(Duration::from_secs(4)).acquire().await.unwrap();
    let deadline = guard.deadline().unwrap();
    ask(&server, &cmd("FLUSHALL"));
    let lock = other.lock("a");
    let next = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    let reason = tokio::time::timeout(PROMPT, guard.lost()).await.unwrap();
    assert_eq!(reason, LossReason::StoreReset);
    let next = next.await.unwrap().unwrap();
    assert!(deadline.has_passed(), "granted while the forgotten holder could still rely on it");
    assert!(next.fencing_token() > guard.fencing_token());
}

/// A record that is deleted alone, by hand, is a new epoch too, and holders whose grants are still known keep them.
#[tokio::test(flavor = "multi_thread")]
async fn holders_that_the_server_still_knows_go_on() {
    let (server, url) = ready().await;
    let (locks, other) = (connect(&url), connect(&url));
    let guard = locks.lock("a").ttl(Duration::from_secs(2)).acquire().await.unwrap();
    ask(&server, cmd("DEL").arg("{locks}:1:epoch"));
    assert!(other.lock("b").try_acquire().await.unwrap().is_none(), "granted without an epoch");
    super::pause(Duration::from_secs(5)).await;
    assert!(guard.is_held());
    other.lock("b").acquire_timeout(PROMPT).await.unwrap().release().await.unwrap();
    guard.release().await.unwrap();
}
