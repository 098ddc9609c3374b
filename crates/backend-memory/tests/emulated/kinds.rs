//! All kinds of locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use locks_api::{Busy, ErrorKind, Locks, LossReason, Outcome};
use locks_backend_memory::MemoryStore;
use locks_backend_memory::emulated::{Carrier, Crash, EmulatedStore, Emulation};
use tokio::time::timeout;

use super::{MS, connect, store, until};

/// Five hundred tasks want a permit each, and the store sees some of them at a time.
#[tokio::test]
async fn a_crowd_at_a_semaphore_is_no_crowd_in_the_store() {
    let store = store();
    let (locks, _line) = connect(&store);
    let (inside, most, claims) =
        (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), store.clone());
    let tasks: Vec<_> = (0..500)
        .map(|_| {
            let (semaphore, inside, most) = (locks.semaphore("x", 3), Arc::clone(&inside), Arc::clone(&most));
            let store = claims.clone();
            tokio::spawn(async move {
                let permit = semaphore.acquire().await.unwrap();
                let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                assert!(store.claims() <= 3 + 64, "{} claims are in the store", store.claims());
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                permit.release().await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    until("claims are left", || store.claims() == 0).await;
}

#[tokio::test]
async fn several_locks_come_together_over_a_line_that_loses_and_doubles() {
    for trouble in 0..6 {
        let store = store();
        let (locks, line) = connect(&store);
        match trouble {
            0 => line.lose_requests(1),
            1 => line.lose_replies(1),
            2 => line.lose_replies(3),
            3 => line.double(1),
            4 => line.lose_requests(2),
            _ => line.delay(20 * MS),
        }
        let all = locks.lock_all(["b", "a", "c"]);
        let guard = timeout(Duration::from_secs(10), all.acquire()).await.unwrap().unwrap();
        assert!(guard.is_held());
        assert_eq!(store.claims(), 3, "trouble {trouble}");
        guard.release().await.unwrap();
        until("claims are left", || store.claims() == 0).await;
    }
}

#[tokio::test]
async fn several_locks_are_all_or_nothing() {
    let store = store();
    let [(here, line), (there, _)] = [connect(&store), connect(&store)];
    let held = there.lock("b").acquire().await.unwrap();
    assert!(here.lock_all(["a", "b", "c"]).try_acquire().await.unwrap().is_none());
    assert_eq!(store.claims(), 1, "something stayed held");
    let late = here.lock_all(["a", "b", "c"]).acquire_timeout(50 * MS).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert!(late.to_string().contains("\"b\""), "it does not say for what it waited: {late}");
    until("something stayed held", || store.claims() == 1).await;
    line.lose_replies(1);
    drop(held);
    let guard = here.lock_all(["a", "b", "c"]).acquire().await.unwrap();
    drop(guard);
    until("claims are left", || store.claims() == 0).await;
}

#[tokio::test]
async fn a_reader_that_dies_frees_its_part_alone() {
    let store = store();
    let (locks, line) = connect(&store);
    let (other, _line) = connect(&store);
    let dead = locks.rw_lock("x").ttl(400 * MS).read().await.unwrap();
    let alive = other.rw_lock("x").ttl(400 * MS).read().await.unwrap();
    line.silence();
    assert_eq!(timeout(Duration::from_secs(5), dead.lost()).await.unwrap(), LossReason::Expired);
    until("the dead reader stays", || store.claims() == 1).await;
    assert!(alive.is_held());
    assert!(other.rw_lock("x").try_write().await.unwrap().is_none());
    alive.release().await.unwrap();
    let writer = timeout(Duration::from_secs(5), other.rw_lock("x").write()).await.unwrap().unwrap();
    assert!(writer.is_held());
}

#[tokio::test]
async fn a_downgrade_survives_lost_replies_of_others_and_says_when_its_own_is_lost() {
    let store = store();
    let (locks, line) = connect(&store);
    let (other, _line) = connect(&store);
    let writer = locks.rw_lock("x").write().await.unwrap();
    let token = writer.fencing_token();
    let waits = tokio::spawn({
        let lock = other.rw_lock("x");
        async move { lock.read().await }
    });
    until("nobody waits", || store.claims() == 2).await;
    let reader = writer.downgrade().await.unwrap();
    assert_eq!(reader.fencing_token(), token);
    let second = timeout(Duration::from_secs(5), waits).await.unwrap().unwrap().unwrap();
    assert!(second.fencing_token() > token && reader.is_held());
    drop((reader, second));

    let writer = timeout(Duration::from_secs(5), locks.rw_lock("x").write()).await.unwrap().unwrap();
    line.lose_replies(1);
    assert_eq!(writer.downgrade().await.unwrap_err().kind(), ErrorKind::Unavailable);
    // Whatever the store did, it is given back.
    until("it stayed held", || store.claims() == 0).await;
}

#[tokio::test]
async fn a_hold_that_is_renewed_by_hand_ends_by_itself() {
    for carrier in [Carrier::Grant, Carrier::Lease] {
        let store = EmulatedStore::new(Emulation { carrier, ..Emulation::default() });
        let (locks, _line) = connect(&store);
        let lock = locks.lock("x").ttl(600 * MS).renew(false);
        let guard = lock.acquire().await.unwrap();
        let first = guard.deadline().unwrap();
        for _ in 0..4 {
            assert!(timeout(200 * MS, guard.lost()).await.is_err(), "it was extended in time");
            guard.extend().await.unwrap();
        }
        assert!(guard.deadline().unwrap() > first, "{carrier:?}");
        assert_eq!(timeout(Duration::from_secs(5), guard.lost()).await.unwrap(), LossReason::Expired);
        assert_eq!(guard.extend().await.unwrap_err().kind(), ErrorKind::Lost);
    }
}

#[tokio::test]
async fn a_maximum_hold_ends_and_the_next_one_gets_the_lock() {
    let store = store();
    let (locks, _line) = connect(&store);
    let guard = locks.lock("x").max_hold(50 * MS).acquire().await.unwrap();
    let next = timeout(Duration::from_secs(5), locks.lock("x").acquire()).await.unwrap().unwrap();
    assert_eq!(guard.lost().await, LossReason::MaxHold);
    assert!(!guard.is_held() && next.fencing_token() > guard.fencing_token());
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
}

#[tokio::test]
async fn a_minimum_hold_outlives_its_holder_and_those_who_wait_get_it_when_it_is_due() {
    let store = store();
    let [(here, _a), (there, _b)] = [connect(&store), connect(&store)];
    let waits = {
        let guard = here.lock("x").min_hold(500 * MS).acquire().await.unwrap();
        let start = Instant::now();
        let lock = there.lock("x");
        let waits = tokio::spawn(async move {
            let guard = lock.acquire().await.unwrap();
            (guard, start.elapsed())
        });
        until("nobody waits", || store.claims() == 2).await;
        drop(guard);
        waits
    };
    let Outcome::Skipped(Busy::NotDue { remaining }) = here.lock("x").try_run(async {}).await.unwrap() else {
        panic!("it is due");
    };
    assert!(remaining <= 500 * MS);
    let (guard, waited) = timeout(Duration::from_secs(5), waits).await.unwrap().unwrap();
    assert!(waited >= 490 * MS, "it came after {waited:?}");
    drop(guard);
    until("claims are left", || store.claims() == 0).await;
}

/// What a dropped future was granted unseen leaves no minimum hold behind.
#[tokio::test]
async fn a_minimum_hold_that_nobody_got_is_undone() {
    let store = store();
    let (locks, line) = connect(&store);
    line.delay(30 * MS);
    assert!(timeout(40 * MS, locks.lock("x").min_hold(60_000 * MS).acquire()).await.is_err());
    line.delay(Duration::ZERO);
    until("it stayed held", || store.claims() == 0).await;
    let next = timeout(Duration::from_secs(5), locks.lock("x").acquire()).await;
    assert!(next.is_ok(), "the minimum hold of nobody keeps everybody out");
}

#[tokio::test]
async fn once_per_counts_what_was_completed() {
    let store = store();
    let [(here, line), (there, _b)] = [connect(&store), connect(&store)];
    let hourly = |locks: &Locks| locks.lock("report").once_per(Duration::from_secs(3_600));
    // Given up, dropped: not done.
    hourly(&here).acquire().await.unwrap().release().await.unwrap();
    drop(hourly(&there).acquire().await.unwrap());
    let guard = hourly(&here).acquire().await.unwrap();
    line.lose_replies(1);
    guard.complete().await.unwrap();
    assert!(matches!(hourly(&there).try_run(async {}).await.unwrap(), Outcome::Skipped(Busy::NotDue { .. })));
    // Whoever does not ask for an interval is not held up by it.
    assert!(there.lock("report").try_acquire().await.unwrap().is_some());
}

#[tokio::test]
async fn an_observer_sees_every_change_over_a_bad_line() {
    let store = store();
    let [(leads, line), (sees, sight)] = [connect(&store), connect(&store)];
    let mut observer = sees.election("e").observe();
    assert_eq!(observer.next().await.unwrap(), None);
    let leadership = leads.election("e").ttl(400 * MS).campaign("one").await.unwrap();
    let leader = timeout(Duration::from_secs(5), observer.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((&*leader.value, leader.token), ("one", leadership.fencing_token()));

    // What is published while the observer's line is down is seen when it is up again.
    sight.silence();
    leadership.publish("two").await.unwrap();
    sight.restore();
    let leader = timeout(Duration::from_secs(5), observer.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(&*leader.value, "two");

    // A leader that is cut off leads no more, for itself and for others.
    line.silence();
    assert_eq!(timeout(Duration::from_secs(5), leadership.lost()).await.unwrap(), LossReason::Expired);
    assert_eq!(timeout(Duration::from_secs(5), observer.next()).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_store_that_forgets_grants_no_kind_in_its_grace() {
    let store = store();
    let (locks, _line) = connect(&store);
    let reader = locks.rw_lock("x").read().await.unwrap();
    let permit = locks.semaphore("y", 2).acquire().await.unwrap();
    store.crash(Crash::Forgetting);
    let (other, _line) = connect(&store);
    for outcome in [
        other.rw_lock("x").try_run_write(async {}).await.unwrap(),
        other.semaphore("y", 2).try_run(async {}).await.unwrap(),
        other.lock_all(["x", "z"]).try_run(async {}).await.unwrap(),
    ] {
        assert!(matches!(outcome, Outcome::Skipped(Busy::Grace { .. })), "{outcome:?}");
    }
    assert_eq!(timeout(Duration::from_secs(5), reader.lost()).await.unwrap(), LossReason::StoreReset);
    assert_eq!(timeout(Duration::from_secs(5), permit.lost()).await.unwrap(), LossReason::StoreReset);
}

#[tokio::test]
async fn an_operator_breaks_and_asks() {
    let store = MemoryStore::default();
    let [here, there] = [(); 2].map(|()| Locks::new(store.connect()));
    let guard = here.lock("x").label("the first").acquire().await.unwrap();
    let waits = tokio::spawn({
        let lock = there.lock("x").label("the second");
        async move { lock.acquire().await }
    });
    let start = Instant::now();
    let state = loop {
        let state = there.inspect("x").await.unwrap();
        if state.waiters.as_ref().is_some_and(|waiters| !waiters.is_empty()) {
            break state;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "nobody waits");
        tokio::task::yield_now().await;
    };
    assert_eq!(state.holders[0].token, Some(guard.fencing_token()));
    assert_eq!(state.holders[0].holder.as_ref().unwrap().label.as_deref(), Some("the first"));
    assert_eq!(state.waiters.unwrap()[0].holder.as_ref().unwrap().label.as_deref(), Some("the second"));

    assert_eq!(there.revoke("x").await.unwrap(), 1);
    timeout(Duration::from_secs(5), guard.asked()).await.unwrap();
    assert!(guard.is_held(), "a request takes nothing");
    assert_eq!(there.break_lock("x").await.unwrap(), 1);
    assert_eq!(timeout(Duration::from_secs(5), guard.lost()).await.unwrap(), LossReason::Revoked);
    let next = timeout(Duration::from_secs(5), waits).await.unwrap().unwrap().unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
    assert_eq!(there.break_lock("nobody has it").await.unwrap(), 0);
}
