//! The paths of the exclusive lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use locks_api::{Busy, ErrorKind, Locks, LossReason, Outcome};
use locks_backend_memory::MemoryBackend;
use locks_backend_memory::emulated::{Carrier, Crash, EmulatedStore, Emulation};
use tokio::time::timeout;

use super::{MS, connect, store, until};

#[tokio::test]
async fn renewal_keeps_a_lock_past_its_ttl() {
    let store = store();
    let (locks, line) = connect(&store);
    let guard = locks.lock("x").ttl(400 * MS).acquire().await.unwrap();
    let before = line.requests();
    assert!(timeout(1_600 * MS, guard.lost()).await.is_err(), "it was lost");
    assert!(guard.is_held());
    assert!(line.requests() - before >= 8, "four ttls take a dozen renewals");
    guard.release().await.unwrap();
    assert_eq!(store.claims(), 0);
}

#[tokio::test]
async fn a_silent_store_puts_the_lock_at_risk_and_then_it_is_lost_for_ever() {
    let store = store();
    let (locks, line) = connect(&store);
    let guard = locks.lock("x").ttl(600 * MS).acquire().await.unwrap();
    line.silence();
    let deadline = timeout(2_000 * MS, guard.at_risk()).await.expect("at risk");
    assert!(guard.is_held(), "at risk comes before lost");
    assert!(!deadline.has_passed());
    assert_eq!(timeout(2_000 * MS, guard.lost()).await.expect("lost"), LossReason::Expired);
    assert!(!guard.is_held());
    line.restore();
    let (other, _line) = connect(&store);
    let next = timeout(5_000 * MS, other.lock("x").acquire()).await.unwrap().unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(!guard.is_held(), "it came back to life");
    let error = guard.release().await.unwrap_err();
    assert_eq!((error.kind(), error.loss()), (ErrorKind::Lost, Some(LossReason::Expired)));
    assert!(next.is_held(), "the late release hit the new holder");
}

#[tokio::test]
async fn a_short_outage_is_no_loss() {
    let store = store();
    let (locks, line) = connect(&store);
    let guard = locks.lock("x").ttl(1_500 * MS).acquire().await.unwrap();
    line.refuse();
    assert!(timeout(500 * MS, guard.lost()).await.is_err());
    line.restore();
    assert!(timeout(2_500 * MS, guard.lost()).await.is_err(), "one failed renewal is not a loss");
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_broken_lock_is_told_at_once() {
    let store = store();
    let (locks, _line) = connect(&store);
    let guard = locks.lock("x").acquire().await.unwrap();
    store.revoke("x");
    assert_eq!(timeout(200 * MS, guard.lost()).await.expect("told"), LossReason::Revoked);
    assert!(locks.lock("x").try_acquire().await.unwrap().is_some());
}

#[tokio::test]
async fn lost_and_doubled_messages_grant_once() {
    let store = store();
    let (locks, line) = connect(&store);
    for (requests, replies, doubled) in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 2, 1)] {
        line.lose_requests(requests);
        line.lose_replies(replies);
        line.double(doubled);
        let guard = locks.lock("x").acquire().await.unwrap();
        assert_eq!(store.holder_of("x"), Some(guard.claim_id()));
        line.lose_replies(replies.min(1));
        guard.release().await.unwrap();
        assert_eq!(store.claims(), 0);
    }
}

#[tokio::test]
async fn a_store_that_forgot_grants_nothing_until_the_forgotten_have_expired() {
    let emulation = Emulation::default();
    let grace = emulation.ttl.max;
    let store = EmulatedStore::new(emulation);
    let (first, line) = connect(&store);
    let (second, _line) = connect(&store);
    let guard = first.lock("x").acquire().await.unwrap();
    line.silence();
    store.crash(Crash::Forgetting);
    let start = Instant::now();
    match second.lock("x").try_run(async {}).await.unwrap() {
        Outcome::Skipped(Busy::Grace { remaining }) => assert!(remaining <= grace),
        other => panic!("{other:?}"),
    }
    let next = timeout(2 * grace, second.lock("x").acquire()).await.unwrap().unwrap();
    assert!(!guard.is_held(), "two holders");
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(start.elapsed() >= grace - 100 * MS, "the grace was cut short");
}

#[tokio::test]
async fn a_holder_hears_that_the_store_forgot_it() {
    let store = store();
    let (locks, _line) = connect(&store);
    let guard = locks.lock("x").acquire().await.unwrap();
    store.crash(Crash::Forgetting);
    assert_eq!(timeout(3_000 * MS, guard.lost()).await.expect("told"), LossReason::StoreReset);
}

#[tokio::test]
async fn a_release_that_a_restore_undid_is_done_again() {
    let store = store();
    let (locks, _line) = connect(&store);
    let kept = locks.lock("kept").acquire().await.unwrap();
    let guard = locks.lock("x").acquire().await.unwrap();
    let snapshot = store.snapshot();
    let claim = guard.claim_id();
    guard.release().await.unwrap();
    store.crash(Crash::Restoring(snapshot));
    assert_eq!(store.holder_of("x"), Some(claim), "the restore brought it back");
    until("the grant is still there", || store.holder_of("x").is_none()).await;
    assert!(kept.is_held(), "what is in use was given back too");
    kept.release().await.unwrap();
}

#[tokio::test]
async fn a_crash_that_kept_everything_changes_nothing() {
    let store = store();
    let (locks, _line) = connect(&store);
    let guard = locks.lock("x").acquire().await.unwrap();
    store.crash(Crash::Keeping);
    assert!(timeout(2_000 * MS, guard.lost()).await.is_err());
    assert!(locks.lock("y").try_acquire().await.unwrap().is_some(), "no grace is needed");
}

#[tokio::test]
async fn an_unreachable_store_ends_a_wait_and_leaves_nothing_behind() {
    let store = store();
    let (backend, line) = store.connect();
    let locks = Locks::builder(backend).store_timeout(300 * MS).build();
    line.refuse();
    let start = Instant::now();
    let error = locks.lock("x").acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("emulated: acquire \"x\""), "{error}");
    assert!(start.elapsed() >= 300 * MS);
    line.silence();
    let error = locks.lock("x").acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = locks.lock("x").acquire_timeout(50 * MS).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error}");
    line.restore();
    until("claims are left", || store.claims() == 0).await;
}

#[tokio::test]
async fn a_release_that_could_not_be_delivered_is_paid_later() {
    let store = store();
    let (locks, line) = connect(&store);
    let guard = locks.lock("x").ttl(5_000 * MS).acquire().await.unwrap();
    line.refuse();
    let error = guard.release().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(store.claims(), 1);
    line.restore();
    let (other, _line) = connect(&store);
    let start = Instant::now();
    let next = timeout(4_000 * MS, other.lock("x").acquire()).await.unwrap().unwrap();
    assert!(start.elapsed() < 4_000 * MS, "only the ttl freed it");
    drop(next);
}

#[tokio::test]
async fn a_debt_that_cannot_be_paid_moves_new_claims_to_another_lease() {
    let store = EmulatedStore::new(Emulation { carrier: Carrier::Lease, ..Emulation::default() });
    let (locks, line) = connect(&store);
    let kept = locks.lock("kept").ttl(300 * MS).acquire().await.unwrap();
    let owed = locks.lock("owed").ttl(300 * MS).acquire().await.unwrap();
    line.keep_releases();
    assert_eq!(owed.release().await.unwrap_err().kind(), ErrorKind::Unavailable);
    // The lease that `kept` renews keeps the orphan alive, past any ttl.
    assert!(timeout(1_200 * MS, kept.lost()).await.is_err());
    assert!(store.holder_of("owed").is_some());
    let later = locks.lock("later").ttl(300 * MS).acquire().await.unwrap();
    line.restore();
    kept.release().await.unwrap();
    // The old lease has no live grant any more, so nobody renews it; the new one goes on.
    let (other, _line) = connect(&store);
    let freed =
        timeout(3_000 * MS, other.lock("owed").acquire()).await.expect("the orphan is immortal").unwrap();
    assert!(later.is_held());
    drop(freed);
}

#[tokio::test]
async fn a_push_that_was_lost_is_made_up_for() {
    let store = store();
    let (first, _line) = connect(&store);
    let (second, line) = connect(&store);
    let guard = first.lock("x").acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = second.lock("x");
        async move { lock.acquire().await }
    });
    until("nobody queues", || store.claims() == 2).await;
    line.silence();
    guard.release().await.unwrap();
    line.restore();
    let next = timeout(3_000 * MS, waiting).await.expect("a lost wake-up").unwrap().unwrap();
    assert!(next.is_held());
}

#[tokio::test]
async fn without_a_queue_everybody_is_served_all_the_same() {
    let store = EmulatedStore::new(Emulation { queue: false, ..Emulation::default() });
    let holders = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let (locks, _line) = connect(&store);
        for _ in 0..5 {
            let (lock, holders) = (locks.lock("x"), Arc::clone(&holders));
            tasks.push(tokio::spawn(async move {
                for _ in 0..5 {
                    let guard = lock.acquire().await.unwrap();
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                    tokio::task::yield_now().await;
                    holders.fetch_sub(1, Ordering::SeqCst);
                    drop(guard);
                }
            }));
        }
    }
    for task in tasks {
        timeout(20_000 * MS, task).await.expect("somebody starves").unwrap();
    }
}

#[tokio::test]
async fn a_grant_that_arrives_late_is_renewed_before_anybody_gets_it() {
    let store = store();
    let (locks, line) = connect(&store);
    let ttl = 1_200 * MS;
    // 600 ms there and back leave 100 ms of a validity of 700 ms: not worth having.
    line.delay(300 * MS);
    let waiting = tokio::spawn({
        let lock = locks.lock("x").ttl(ttl);
        async move { lock.acquire().await }
    });
    until("nothing arrives", || store.claims() == 1).await;
    line.delay(Duration::ZERO);
    let guard = waiting.await.unwrap().unwrap();
    let left = guard.deadline().expect("it expires").remaining();
    assert!(left >= 500 * MS, "handed out with {left:?} to go");
    assert!(timeout(ttl * 2, guard.lost()).await.is_err());
}

#[tokio::test]
async fn a_store_that_is_too_slow_for_the_ttl_is_told_apart_from_a_busy_one() {
    let (backend, line) = store().connect();
    let locks = Locks::builder(backend).store_timeout(1_000 * MS).build();
    line.delay(300 * MS);
    let error =
        timeout(8_000 * MS, locks.lock("x").ttl(800 * MS).acquire()).await.expect("it ends").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("too slowly"), "{error}");
}

#[tokio::test]
async fn claims_and_renewals_travel_together() {
    let store = store();
    let (locks, line) = connect(&store);
    // A store that answers at once leaves nothing time to gather.
    line.delay(50 * MS);
    let tasks: Vec<_> = (0..1_000)
        .map(|number| {
            let lock = locks.lock(format!("lock {number}")).ttl(3_000 * MS);
            tokio::spawn(async move { lock.acquire().await.unwrap() })
        })
        .collect();
    let mut guards = Vec::new();
    for task in tasks {
        guards.push(task.await.unwrap());
    }
    let claimed = line.requests();
    assert!(claimed <= 40, "1,000 claims took {claimed} requests");
    line.delay(Duration::ZERO);
    assert!(timeout(3_000 * MS, guards[0].lost()).await.is_err());
    let renewals = line.requests() - claimed;
    assert!((3..=40).contains(&renewals), "a ttl of 1,000 locks took {renewals} requests");
    assert!(guards.iter().all(locks_api::LockGuard::is_held));
    drop(guards);
    drop(locks);
    assert_eq!(store.claims(), 0, "dropping the last Locks delivers the releases");
}

#[tokio::test]
async fn a_body_is_stopped_when_the_lock_is_lost() {
    let store = store();
    let (locks, _line) = connect(&store);
    let lock = locks.lock("x");
    let body = async {
        store.revoke("x");
        std::future::pending::<()>().await;
    };
    let error = timeout(1_000 * MS, lock.run(body)).await.expect("stopped").unwrap_err();
    assert_eq!((error.kind(), error.loss()), (ErrorKind::Lost, Some(LossReason::Revoked)));
    assert_eq!(lock.run(async { 7 }).await.unwrap(), 7);
}

#[tokio::test]
async fn asking_for_the_same_lock_inside_its_body_is_an_error() {
    let (locks, _line) = connect(&store());
    let outer = locks.lock("x");
    let (inner, other) = (outer.clone(), locks.lock("y"));
    outer
        .run(async {
            let error = inner.acquire().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldDeadlock, "{error}");
            other
                .run(async {
                    assert_eq!(inner.try_acquire().await.unwrap_err().kind(), ErrorKind::WouldDeadlock)
                })
                .await
        })
        .await
        .unwrap()
        .unwrap();
    assert!(inner.try_acquire().await.unwrap().is_some(), "afterwards it is free to ask");
}

#[tokio::test]
async fn closing_ends_waits_and_takes_the_locks_back() {
    let store = store();
    let (locks, _line) = connect(&store);
    let guard = locks.lock("x").acquire().await.unwrap();
    let waiting = tokio::spawn({
        let lock = locks.lock("x");
        async move { lock.acquire().await }
    });
    tokio::task::yield_now().await;
    locks.close().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(guard.lost().await, LossReason::Closed);
    assert_eq!(store.claims(), 0);
    assert_eq!(locks.lock("y").acquire().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(guard.release().await.unwrap_err().loss(), Some(LossReason::Closed));
}

#[tokio::test]
async fn closing_says_what_could_not_be_given_back() {
    let (backend, line) = store().connect();
    let locks = Locks::builder(backend).store_timeout(200 * MS).build();
    let guard = locks.lock("x").acquire().await.unwrap();
    line.refuse();
    let error = locks.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!guard.is_held());
}

#[tokio::test]
async fn a_ttl_out_of_limits_is_an_error_before_anything_is_sent() {
    let (locks, line) = connect(&store());
    for ttl in [Duration::ZERO, 50 * MS, 6_000 * MS] {
        let error = locks.lock("x").ttl(ttl).acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    assert_eq!(locks.lock("").acquire().await.unwrap_err().kind(), ErrorKind::InvalidName);
    assert_eq!(line.requests(), 0);
}

/// A holder here, `tasks` that wait here, and one waiter of another process in the store's queue. What each of those who were here
/// is told is how many were served when it was its turn; the other process's number is returned.
async fn served_before_the_other_process(tasks: u32, exported: bool) -> u32 {
    let store = store();
    let (here, _line) = connect(&store);
    let (there, _other_line) = connect(&store);
    let first = here.lock("x").acquire().await.expect("a grant");
    let served = Arc::new(AtomicU32::new(0));
    let other = tokio::spawn({
        let (lock, served) = (there.lock("x"), Arc::clone(&served));
        async move {
            let guard = lock.acquire().await.expect("a grant");
            let before = served.load(Ordering::SeqCst);
            guard.release().await.expect("a release");
            before
        }
    });
    until("the other process does not queue", || store.claims() == 2).await;
    let mut waiting = Vec::new();
    for _ in 0..tasks {
        let (lock, served) = (here.lock("x"), Arc::clone(&served));
        waiting.push(tokio::spawn(async move {
            let guard = lock.acquire().await.expect("a grant");
            served.fetch_add(1, Ordering::SeqCst);
            drop(guard);
        }));
        tokio::task::yield_now().await;
    }
    if exported {
        first.export();
    }
    drop(first);
    let before = timeout(10_000 * MS, other).await.expect("the other process starves").expect("no panic");
    for task in waiting {
        timeout(10_000 * MS, task).await.expect("somebody here starves").expect("no panic");
    }
    before
}

#[tokio::test]
async fn hand_ons_stop_after_a_block_of_tokens() {
    let before = served_before_the_other_process(300, false).await;
    assert!(before < 64, "{before} were served here before the other process");
}

#[tokio::test]
async fn an_exported_grant_is_never_handed_on() {
    assert_eq!(served_before_the_other_process(5, true).await, 0);
}

#[tokio::test]
async fn hand_ons_cost_no_requests() {
    for (hand_on, requests) in [(true, 2..=100), (false, 200..=400)] {
        let (backend, line) = store().connect();
        let locks = Locks::builder(backend).hand_on(hand_on).build();
        let first = locks.lock("x").acquire().await.unwrap();
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let lock = locks.lock("x");
                tokio::spawn(async move { drop(lock.acquire().await.unwrap()) })
            })
            .collect();
        tokio::task::yield_now().await;
        // Tokens may not pass the store's clock: it is given time to be ahead of a whole block.
        assert!(timeout(2 * MS, first.lost()).await.is_err());
        drop(first);
        for task in tasks {
            timeout(10_000 * MS, task).await.unwrap().unwrap();
        }
        locks.close().await.unwrap();
        assert!(requests.contains(&line.requests()), "hand_on {hand_on}: {} requests", line.requests());
    }
}

/// A free lock in memory never waits, and a task that takes one after the other must let others run all the same.
#[tokio::test(flavor = "current_thread")]
async fn a_task_that_takes_free_locks_lets_others_run() {
    let locks = Locks::new(MemoryBackend::new());
    let ran = Arc::new(AtomicU32::new(0));
    let other = tokio::spawn({
        let ran = Arc::clone(&ran);
        async move { ran.store(1, Ordering::SeqCst) }
    });
    let lock = locks.lock("x");
    let turns = (0..10_000).take_while(|_| ran.load(Ordering::SeqCst) == 0);
    for _ in turns {
        drop(lock.acquire().await.unwrap());
    }
    assert_eq!(ran.load(Ordering::SeqCst), 1, "10,000 locks were taken and nobody else ran");
    other.await.unwrap();
}
