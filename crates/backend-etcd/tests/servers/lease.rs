//! Leases: how short they may be, and what their end is to holders and waiters.

use std::time::Duration;

use locks_api::{ErrorKind, LossReason};
use locks_test_servers::{Etcd, gateway};

use super::{TTL, connect, eventually, pause, wait_for, within};

fn leases(server: &Etcd) -> Vec<String> {
    let answer = gateway::call(server.address(), "lease/leases", "{}").unwrap();
    gateway::fields(&answer, "ID").into_iter().map(str::to_owned).collect()
}

fn revoke(server: &Etcd, lease: &str) {
    gateway::call(server.address(), "lease/revoke", &format!("{{\"ID\":\"{lease}\"}}")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_below_the_clusters_minimum_is_an_error_that_names_it() {
    let server = Etcd::options().timing(Duration::from_millis(100), Duration::from_secs(2)).start().unwrap();
    let locks = connect(server.url());
    let error = locks.lock("a").ttl(Duration::from_secs(2)).try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("3 s is the least"), "{error}");
    assert!(leases(&server).is_empty(), "the lease of a refused lock is left");
    let guard = locks.lock("a").ttl(Duration::from_secs(3)).acquire().await.unwrap();
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_lease_is_a_loss_for_holders_and_a_new_beginning_for_those_who_wait() {
    let server = Etcd::start().unwrap();
    let (one, two) = (connect(server.url()), connect(server.url()));
    let guard = one.lock("a").ttl(TTL).acquire().await.unwrap();
    let first = leases(&server);
    let waiter = wait_for(&two, "a").await;
    let second: Vec<String> = leases(&server).into_iter().filter(|lease| !first.contains(lease)).collect();
    assert_eq!((first.len(), second.len()), (1, 1));
    // Of the one that waits: it has to get in line with another one.
    revoke(&server, &second[0]);
    eventually("another lease", || {
        leases(&server).iter().any(|lease| !first.contains(lease) && !second.contains(lease))
    })
    .await;
    assert!(guard.is_held() && !waiter.is_finished());
    revoke(&server, &first[0]);
    let reason = within("the loss", guard.lost()).await;
    assert!(matches!(reason, LossReason::Revoked | LossReason::SessionGone), "{reason:?}");
    let next = within("the turn", waiter).await.unwrap().unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_renewed_ends_though_its_lease_lives_on() {
    let server = Etcd::start().unwrap();
    let (one, two) = (connect(server.url()), connect(server.url()));
    let renewed = one.lock("renewed").ttl(TTL).acquire().await.unwrap();
    let by_hand = one.lock("by-hand").ttl(TTL).renew(false).acquire().await.unwrap();
    assert_eq!(leases(&server).len(), 1);
    within("the loss", by_hand.lost()).await;
    let next = within("the end of what nobody renews", two.lock("by-hand").ttl(TTL).acquire()).await.unwrap();
    assert!(renewed.is_held() && next.is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_after_closing() {
    let server = Etcd::start().unwrap();
    let locks = connect(server.url());
    let guard = locks.lock("a").acquire().await.unwrap();
    locks.semaphore("b", 3).ttl(TTL).acquire().await.unwrap().release().await.unwrap();
    guard.release().await.unwrap();
    locks.close().await.unwrap();
    assert!(gateway::keys(server.address(), "locks/").unwrap().is_empty());
    assert!(leases(&server).is_empty());
    pause(Duration::ZERO).await;
}
