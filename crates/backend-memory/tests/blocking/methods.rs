//! Every method does what its asynchronous namesake does.

use std::thread;
use std::time::Duration;

use locks_api::blocking::Locks;
use locks_api::{ErrorKind, LossReason, Mode, Outcome};
use locks_backend_memory::MemoryStore;

use crate::{MS, emulated, memory, within_time};

const LONG: Duration = Duration::from_secs(20);

/// Over both stores, each in time.
fn over_both(test: fn(&Locks)) {
    within_time(move || test(&memory()));
    within_time(move || test(&emulated().0));
}

#[test]
fn the_exclusive_lock() {
    over_both(|locks| {
        let lock = locks.lock("x").label("a test");
        assert_eq!(lock.name(), "x");
        let guard = lock.acquire().unwrap();
        assert_eq!((guard.name(), guard.mode(), guard.is_held()), ("x", Mode::Exclusive, true));
        assert!(lock.try_acquire().unwrap().is_none());
        for timeout in [Duration::ZERO, 20 * MS] {
            let late = lock.acquire_timeout(timeout).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::Timeout);
            assert!(late.to_string().contains("held by"), "{late}");
        }
        let Outcome::Skipped(busy) = lock.try_run(|| 7).unwrap() else {
            panic!("it ran");
        };
        assert!(busy.holder().is_some());
        let token = guard.fencing_token();
        guard.release().unwrap();
        let guard = lock.try_acquire().unwrap().unwrap();
        assert!(guard.fencing_token() > token);
        drop(guard);
        assert_eq!(lock.try_run(|| 7).unwrap(), Outcome::Ran(7));
        assert_eq!(lock.run(|| 7).unwrap(), 7);
        drop(lock.acquire_timeout(LONG).unwrap());
    });
}

#[test]
fn the_reader_writer_lock() {
    over_both(|locks| {
        let lock = locks.rw_lock("x");
        let (one, two) = (lock.read().unwrap(), lock.read_timeout(LONG).unwrap());
        assert_eq!(one.mode(), Mode::Shared);
        assert!(lock.try_read().unwrap().is_some());
        assert!(lock.try_write().unwrap().is_none());
        assert_eq!(lock.write_timeout(20 * MS).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(lock.try_run_write(|| ()).unwrap().is_skipped());
        assert_eq!(lock.run_read(|| 7).unwrap(), 7);
        assert_eq!(lock.try_run_read(|| 7).unwrap(), Outcome::Ran(7));
        one.release().unwrap();
        drop(two);
        let writer = lock.write().unwrap();
        assert!(lock.try_read().unwrap().is_none());
        assert!(lock.try_run_read(|| ()).unwrap().is_skipped());
        let token = writer.fencing_token();
        let reader = writer.downgrade().unwrap();
        assert_eq!((reader.mode(), reader.fencing_token()), (Mode::Shared, token));
        assert!(lock.try_read().unwrap().is_some());
        drop(reader);
        assert_eq!(lock.run_write(|| 7).unwrap(), 7);
        assert_eq!(lock.try_run_write(|| 7).unwrap(), Outcome::Ran(7));
        lock.try_write().unwrap().unwrap().release().unwrap();
        drop(lock.enqueue_write().wait().unwrap());
        drop(lock.enqueue_read().wait().unwrap());
    });
}

#[test]
fn the_semaphore() {
    over_both(|locks| {
        let semaphore = locks.semaphore("x", 3);
        assert_eq!(semaphore.limit(), 3);
        let two = semaphore.acquire_many(2).unwrap();
        assert_eq!(two.count(), 2);
        assert!(semaphore.try_acquire_many(2).unwrap().is_none());
        assert_eq!(semaphore.acquire_many_timeout(2, 20 * MS).unwrap_err().kind(), ErrorKind::Timeout);
        let one = semaphore.try_acquire().unwrap().unwrap();
        assert_eq!(semaphore.acquire_timeout(20 * MS).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(semaphore.try_run(|| ()).unwrap().is_skipped());
        assert_eq!(locks.semaphore("x", 4).try_acquire().unwrap_err().kind(), ErrorKind::LimitMismatch);
        one.release().unwrap();
        drop(semaphore.acquire().unwrap());
        drop(semaphore.enqueue(1).wait().unwrap());
        drop(two);
        assert_eq!(semaphore.run(|| 7).unwrap(), 7);
        assert_eq!(semaphore.try_run(|| 7).unwrap(), Outcome::Ran(7));
        assert_eq!(semaphore.acquire_many(4).unwrap_err().kind(), ErrorKind::Config);
    });
}

#[test]
fn several_locks() {
    over_both(|locks| {
        let all = locks.lock_all(["b", "a"]);
        assert_eq!(all.names().collect::<Vec<_>>(), ["a", "b"]);
        let guard = all.acquire().unwrap();
        assert!(guard.is_held());
        assert_eq!(guard.fencing_token("b"), Some(guard.guards()[1].fencing_token()));
        assert_eq!(guard.deadline().is_some(), locks.guarantees().ttl.is_some());
        assert!(all.try_acquire().unwrap().is_none());
        assert!(all.try_run(|| ()).unwrap().is_skipped());
        assert_eq!(all.acquire_timeout(20 * MS).unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(guard.lost_timeout(20 * MS), None);
        guard.release().unwrap();
        assert_eq!(all.run(|| 7).unwrap(), 7);
        assert_eq!(all.try_run(|| 7).unwrap(), Outcome::Ran(7));
        drop(all.acquire_timeout(LONG).unwrap());
        drop(all.try_acquire().unwrap().unwrap());
        assert_eq!(locks.lock_all([""; 0]).acquire().unwrap_err().kind(), ErrorKind::Config);
    });
}

#[test]
fn the_election() {
    over_both(|locks| {
        let election = locks.election("e");
        let mut observer = election.observe();
        assert_eq!(observer.next_timeout(LONG).unwrap(), Some(None));
        let leadership = election.campaign("one").unwrap();
        assert!(election.try_campaign("two").unwrap().is_none());
        assert_eq!(election.campaign_timeout("two", 20 * MS).unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(&*observer.next().unwrap().unwrap().value, "one");
        assert_eq!(observer.next_timeout(20 * MS).unwrap(), None);
        leadership.publish("three").unwrap();
        assert_eq!(&*observer.next_timeout(LONG).unwrap().unwrap().unwrap().value, "three");
        assert_eq!(&*election.leader().unwrap().unwrap().value, "three");
        let long = "x".repeat(locks_api::blocking::Election::MAX_VALUE_BYTES + 1);
        assert_eq!(leadership.publish(&long).unwrap_err().kind(), ErrorKind::Config);
        leadership.resign().unwrap();
        assert_eq!(election.leader().unwrap(), None);
        drop(election.try_campaign("four").unwrap().unwrap());
        drop(election.campaign_timeout("five", LONG).unwrap());
    });
}

#[test]
fn inspection_and_what_it_can_do() {
    within_time(|| {
        let locks = memory();
        let guard = locks.lock("jobs/a").label("import").acquire().unwrap();
        let state = locks.inspect("jobs/a").unwrap();
        assert_eq!(state.holders[0].holder.as_ref().unwrap().label.as_deref(), Some("import"));
        assert_eq!(locks.list("jobs/").unwrap(), [state]);
        assert!(!guard.asked_timeout(Duration::ZERO));
        assert_eq!(locks.revoke("jobs/a").unwrap(), 1);
        assert!(guard.asked_timeout(LONG));
        guard.asked();
        assert_eq!(locks.revoke_claim("jobs/a", guard.claim_id()).unwrap(), 1);
        assert_eq!(guard.lost_timeout(Duration::ZERO), None);
        assert_eq!(guard.at_risk_timeout(Duration::ZERO), None);
        assert_eq!(locks.break_claim("jobs/a", guard.export()).unwrap(), 1);
        assert_eq!(guard.lost(), LossReason::Revoked);
        assert!(guard.at_risk_timeout(Duration::ZERO).unwrap().has_passed());
        assert_eq!(guard.release().unwrap_err().kind(), ErrorKind::Lost);
        let guard = locks.lock("jobs/a").acquire().unwrap();
        assert_eq!(locks.break_lock("jobs/a").unwrap(), 1);
        assert_eq!(guard.lost_timeout(LONG), Some(LossReason::Revoked));
        let all = locks.lock_all(["a", "b"]).acquire().unwrap();
        locks.break_lock("b").unwrap();
        assert_eq!(all.lost(), ("b", LossReason::Revoked));
    });
}

#[test]
fn guards_that_expire() {
    within_time(|| {
        let (locks, line) = emulated();
        let lock = locks.lock("x").ttl(600 * MS).renew(false);
        let guard = lock.acquire().unwrap();
        let first = guard.deadline().unwrap();
        assert!(guard.extend().unwrap().unwrap() > first);
        assert_eq!(guard.lost(), LossReason::Expired);
        assert_eq!(guard.extend().unwrap_err().kind(), ErrorKind::Lost);
        let guard = locks.lock("y").ttl(900 * MS).acquire().unwrap();
        line.silence();
        let left = guard.at_risk();
        assert!(guard.is_held() && left.remaining() > Duration::ZERO);
        assert_eq!(guard.lost_timeout(LONG), Some(LossReason::Expired));
        assert!(guard.at_risk().has_passed());
        line.restore();
    });
}

#[test]
fn completed_is_not_due_again() {
    over_both(|locks| {
        let hourly = locks.lock("report").once_per(Duration::from_secs(3_600));
        hourly.acquire().unwrap().release().unwrap();
        hourly.acquire().unwrap().complete().unwrap();
        assert!(hourly.try_run(|| ()).unwrap().is_skipped());
        let run = locks.lock("other").once_per(Duration::from_secs(3_600));
        run.run(|| ()).unwrap();
        assert!(run.try_run(|| ()).unwrap().is_skipped());
    });
}

#[test]
fn a_wait_in_steps_keeps_its_place() {
    over_both(|locks| {
        let held = locks.lock("x").acquire().unwrap();
        let waiting = locks.lock("x").enqueue();
        assert_eq!(waiting.status(), Default::default());
        let waiting = waiting.wait_timeout(Duration::ZERO).unwrap().unwrap_err();
        let second = locks.lock("x").enqueue().wait_timeout(20 * MS).unwrap().unwrap_err();
        assert_eq!((waiting.status().position, second.status().position), (Some(0), Some(1)));
        assert!(waiting.status().busy.is_some());
        drop(held);
        // It came while nobody looked.
        let second = second.wait_timeout(20 * MS).unwrap().unwrap_err();
        let first = waiting.wait().unwrap();
        assert!(first.is_held());
        // Whoever is dropped lets the next one in, whether or not it had the lock already.
        let third = locks.lock("x").enqueue().wait_timeout(Duration::ZERO).unwrap().unwrap_err();
        drop(first);
        drop(second);
        assert!(third.wait_timeout(LONG).unwrap().unwrap().is_held());
        let bad = locks.lock("").enqueue().wait_timeout(LONG);
        assert_eq!(bad.unwrap_err().kind(), ErrorKind::InvalidName);
    });
}

#[test]
fn both_ways_of_asking_share_one_connection() {
    within_time(|| {
        let store = MemoryStore::default();
        let locks = Locks::builder(store.connect()).label("both").store_timeout(LONG).hand_on(true).build();
        let awaited = locks_api::Locks::from(locks.clone());
        let guard = locks.lock("x").acquire().unwrap();
        let crossed = locks_api::LockGuard::from(guard);
        assert!(crate::current_thread().block_on(awaited.lock("x").try_acquire()).unwrap().is_none());
        drop(crossed);
        // Handed on inside the process, so it is one connection.
        let guard = Locks::from(awaited.clone()).lock("x").acquire().unwrap();
        let (claim, name) = (guard.claim_id(), "x");
        let waiting = locks.lock(name).enqueue().wait_timeout(Duration::ZERO).unwrap().unwrap_err();
        drop(guard);
        assert_eq!(waiting.wait().unwrap().claim_id(), claim);
        let permit = locks_api::Permit::from(locks.semaphore("s", 2).acquire().unwrap());
        assert_eq!(locks_api::blocking::Permit::from(permit).count(), 1);
        assert_eq!(locks.inspect("x").unwrap().holders, []);
        assert!(locks.backend().guarantees().ttl.is_none());
    });
}

#[test]
fn close_ends_waits_and_guards() {
    over_both(|locks| {
        let guard = locks.lock("x").acquire().unwrap();
        let waiter = {
            let lock = locks.lock("x");
            let waiting = lock.enqueue().wait_timeout(Duration::ZERO).unwrap().unwrap_err();
            thread::spawn(move || waiting.wait().unwrap_err().kind())
        };
        locks.close().unwrap();
        assert_eq!(waiter.join().unwrap(), ErrorKind::Closed);
        assert_eq!(guard.lost(), LossReason::Closed);
        assert_eq!(locks.lock("x").acquire().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(locks.inspect("x").unwrap_err().kind(), ErrorKind::Closed);
    });
}
