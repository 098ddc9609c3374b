//! What is heard of a lock, and what is noticed when nothing is.

use std::time::{Duration, Instant};

use locks_api::LossReason;
use locks_test_servers::{Etcd, gateway};

use super::{PROMPT, TTL, connect, pause, wait_for, within};

/// Forgets all that was before this moment, of which there is something.
fn compact(server: &Etcd) {
    for _ in 0..20 {
        gateway::call(server.address(), "kv/put", "{\"key\":\"eA==\",\"value\":\"MQ==\"}").unwrap();
    }
    let answer = gateway::call(server.address(), "kv/range", "{\"key\":\"eA==\"}").unwrap();
    let revision = gateway::fields(&answer, "revision")[0].to_owned();
    let message = format!("{{\"revision\":\"{revision}\",\"physical\":true}}");
    gateway::call(server.address(), "kv/compaction", &message).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_costs_no_turn() {
    let server = Etcd::start().unwrap();
    let (one, two) = (connect(server.url()), connect(server.url()));
    let guard = one.lock("a").ttl(TTL).acquire().await.unwrap();
    let waiter = wait_for(&two, "a").await;
    for round in 0..3 {
        compact(&server);
        if round == 1 {
            // The watch has to begin again, in a past that is not there any more.
            server.kill().unwrap();
            server.start_again().unwrap();
            assert!(two.lock("a").try_acquire().await.unwrap().is_none());
        }
    }
    assert!(guard.is_held() && !waiter.is_finished());
    guard.release().await.unwrap();
    within("the turn", waiter).await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_observes_survives_a_compaction() {
    let server = Etcd::start().unwrap();
    let (one, two) = (connect(server.url()), connect(server.url()));
    let leader = one.election("e").campaign("one").await.unwrap();
    let mut observer = two.election("e").observe();
    let first = within("the first leader", observer.next()).await.unwrap().unwrap();
    assert_eq!(first.token, leader.fencing_token());
    compact(&server);
    // Its watch begins again, after a change that is not kept.
    server.kill().unwrap();
    server.start_again().unwrap();
    leader.resign().await.unwrap();
    let next = one.election("e").campaign("next").await.unwrap();
    compact(&server);
    let until = Instant::now() + PROMPT;
    loop {
        let seen = within("the next leader", observer.next()).await.unwrap();
        if seen.is_some_and(|seen| seen.token == next.fencing_token()) {
            break;
        }
        assert!(Instant::now() < until, "the next leader was never seen");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_deleted_by_hand_is_a_loss_at_once() {
    let server = Etcd::start().unwrap();
    let (one, two) = (connect(server.url()), connect(server.url()));
    let guard = one.lock("a").acquire().await.unwrap();
    let waiter = wait_for(&two, "a").await;
    // Longer than a hold goes unwatched, and far shorter than until its first renewal.
    pause(Duration::from_millis(500)).await;
    let key = gateway::keys(server.address(), "locks/1/lock/a@").unwrap().remove(0);
    let began = Instant::now();
    gateway::delete(server.address(), &key).unwrap();
    assert_eq!(within("the loss", guard.lost()).await, LossReason::Revoked);
    let next = within("the turn", waiter).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(next.fencing_token() > guard.fencing_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_and_loses_its_key_gets_in_line_again() {
    let server = Etcd::start().unwrap();
    let (one, two) = (connect(server.url()), connect(server.url()));
    let guard = one.lock("a").acquire().await.unwrap();
    let waiter = wait_for(&two, "a").await;
    let key = gateway::keys(server.address(), "locks/1/lock/a@").unwrap().remove(1);
    gateway::delete(server.address(), &key).unwrap();
    within("getting in line again", async {
        while two.inspect("a").await.unwrap().waiters.unwrap().is_empty() {
            pause(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_ne!(gateway::keys(server.address(), "locks/1/lock/a@").unwrap().remove(1), "");
    guard.release().await.unwrap();
    within("the turn", waiter).await.unwrap().unwrap().release().await.unwrap();
}
