//! Three members, of which some die, stand still or lose the others, and lines to them that break.

use std::time::{Duration, Instant};

use locks_api::{ErrorKind, LockGuard, Locks, LossReason};
use locks_backend_etcd::EtcdBackend;
use locks_conformance::proxy::Proxy;
use locks_test_servers::{Etcd, EtcdCluster};
use tokio::task::JoinHandle;

use super::{TTL, connect, eventually, pause, wait_for, within};

/// With the patience that users have by default. An election may be repeated.
fn connect_for_long(url: &str) -> Locks {
    Locks::new(EtcdBackend::from_url(url).unwrap())
}

/// Two processes, of which one holds a lock that the other waits for.
struct User {
    locks: [Locks; 2],
    guard: LockGuard,
    waiter: JoinHandle<locks_api::Result<LockGuard>>,
}

impl User {
    async fn of(url: &str) -> Self {
        let locks = [connect_for_long(url), connect_for_long(url)];
        let guard = locks[0].lock("a").ttl(Duration::from_secs(10)).acquire().await.unwrap();
        let waiter = wait_for(&locks[1], "a").await;
        Self { locks, guard, waiter }
    }

    /// Holds for nearly a ttl while the other can't have it, gives it back, and the other has it.
    async fn notices_nothing(self) {
        let until = Instant::now() + Duration::from_secs(9);
        while Instant::now() < until {
            assert!(self.guard.is_held(), "the lock was lost");
            assert!(!self.waiter.is_finished(), "the waiter has it too, or has given up");
            pause(Duration::from_millis(20)).await;
        }
        let before = self.guard.fencing_token();
        within("a release", self.guard.release()).await.unwrap();
        let next = within("the turn", self.waiter).await.unwrap().unwrap();
        assert!(next.fencing_token() > before);
        next.release().await.unwrap();
        for locks in self.locks {
            within("an end", locks.close()).await.unwrap();
        }
    }
}

/// The member that leads, once there is one.
async fn leader(cluster: &EtcdCluster) -> &Etcd {
    eventually("an election", || cluster.leader().is_some()).await;
    cluster.leader().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_the_leader_costs_nobody_a_lock_or_a_turn() {
    let cluster = EtcdCluster::start().unwrap();
    for _ in 0..2 {
        let user = User::of(&cluster.url()).await;
        leader(&cluster).await.kill().unwrap();
        user.notices_nothing().await;
        cluster.start_again().unwrap();
    }
}

/// Whichever member a process talks to: it goes on with another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_stands_still_is_left() {
    let cluster = EtcdCluster::start().unwrap();
    for member in cluster.nodes() {
        let user = User::of(&cluster.url()).await;
        member.pause().unwrap();
        user.notices_nothing().await;
        member.resume().unwrap();
        leader(&cluster).await;
    }
}

/// The cluster is whole, but not for us.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_can_not_be_reached_is_left() {
    let cluster = EtcdCluster::start().unwrap();
    let lines: Vec<Proxy> =
        cluster.nodes().iter().map(|member| Proxy::start(member.address()).unwrap()).collect();
    let members: Vec<String> = lines.iter().map(|line| line.address().to_string()).collect();
    let url = format!("etcd://{}", members.join(","));
    for line in &lines {
        let user = User::of(&url).await;
        line.black_hole();
        user.notices_nothing().await;
        line.restore();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_is_left() {
    let cluster = EtcdCluster::start().unwrap();
    for _ in 0..2 {
        let leader = leader(&cluster).await;
        let user = User::of(&cluster.url()).await;
        let cut = leader.disconnect();
        if let Err(error) = &cut {
            // A program of this machine can't be cut off. To the others it is the same if it stands still.
            assert_eq!(error.kind(), locks_test_servers::ErrorKind::Unsupported, "{error}");
            leader.pause().unwrap();
        }
        user.notices_nothing().await;
        if cut.is_ok() { leader.reconnect().unwrap() } else { leader.resume().unwrap() }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_granted_and_holders_end_in_time() {
    let cluster = EtcdCluster::start().unwrap();
    let (one, two) = (connect(&cluster.url()), connect(&cluster.url()));
    let guard = one.lock("a").ttl(Duration::from_secs(4)).acquire().await.unwrap();
    let leader = leader(&cluster).await;
    for member in cluster.nodes().iter().filter(|member| member.port() != leader.port()) {
        member.kill().unwrap();
    }
    let ended = async {
        pause(Duration::from_secs(4)).await;
        assert!(!guard.is_held(), "held for longer than its ttl after the last renewal");
        within("the loss", guard.lost()).await
    };
    let other = two.lock("b");
    let (tried, reason) = tokio::join!(within("a try without a quorum", other.try_acquire()), ended);
    let error = tried.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(reason, LossReason::Expired);
    cluster.start_again().unwrap();
    let next = within("the lock after the quorum is back", two.lock("a").ttl(TTL).acquire()).await.unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
}
