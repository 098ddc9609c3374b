//! Plain threads, and the bodies of `run`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use locks_api::blocking::Locks;
use locks_api::{ErrorKind, LossReason, Outcome, current};

use crate::{MS, current_thread, emulated, memory, within_time};

/// A counter that loses increments unless one thread at a time has it.
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn increment(&self) {
        let seen = self.0.load(Ordering::Relaxed);
        std::hint::spin_loop();
        self.0.store(seen + 1, Ordering::Relaxed);
    }
}

fn count(locks: &Locks, threads: u64, times: u64) {
    let counter = Counter::default();
    thread::scope(|scope| {
        for number in 0..threads {
            let (lock, counter) = (locks.lock("x"), &counter);
            scope.spawn(move || {
                for _ in 0..times {
                    if number % 2 == 0 {
                        lock.run(|| counter.increment()).unwrap();
                    } else {
                        let guard = lock.acquire().unwrap();
                        counter.increment();
                        drop(guard);
                    }
                }
            });
        }
    });
    assert_eq!(counter.0.into_inner(), threads * times);
}

#[test]
fn many_threads_count_right() {
    within_time(|| count(&memory(), 16, 1_000));
    within_time(|| count(&emulated().0, 8, 100));
}

#[test]
fn no_more_threads_than_permits() {
    within_time(|| {
        let (locks, inside) = (memory(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..12 {
                let (semaphore, inside) = (locks.semaphore("x", 3), &inside);
                scope.spawn(move || {
                    for _ in 0..100 {
                        let now = || {
                            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                            thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            now
                        };
                        assert!(semaphore.run(now).unwrap() <= 3);
                    }
                });
            }
        });
    });
}

#[test]
fn a_thread_waits_for_another_one_and_is_not_woken_by_strangers() {
    within_time(|| {
        let locks = memory();
        let guard = locks.lock("x").acquire().unwrap();
        let waiting = locks.lock("x").enqueue().wait_timeout(Duration::ZERO).unwrap().unwrap_err();
        let waiter = thread::spawn(move || waiting.wait().unwrap().fencing_token());
        for _ in 0..100 {
            waiter.thread().unpark();
        }
        assert!(!waiter.is_finished());
        let token = guard.fencing_token();
        drop(guard);
        assert!(waiter.join().unwrap() > token);
    });
}

/// A raw guard is no reason to refuse: it may be dropped elsewhere.
#[test]
fn a_thread_may_wait_for_its_own_guard() {
    within_time(|| {
        let locks = memory();
        let guard = locks.lock("x").acquire().unwrap();
        let keeper = thread::spawn(move || {
            thread::park_timeout(30 * MS);
            drop(guard);
        });
        assert!(locks.lock("x").acquire().unwrap().is_held());
        keeper.join().unwrap();
    });
}

#[test]
fn a_panic_in_the_body_releases_the_lock() {
    within_time(|| {
        let locks = memory();
        let quiet = || std::panic::resume_unwind(Box::new("on purpose"));
        let bodies: [(&str, &dyn Fn()); 4] = [
            ("lock", &|| locks.lock("x").run(quiet).unwrap()),
            ("try", &|| drop(locks.lock("x").try_run(quiet).unwrap())),
            ("write", &|| locks.rw_lock("x").run_write(quiet).unwrap()),
            ("all", &|| locks.lock_all(["x", "y"]).run(quiet).unwrap()),
        ];
        for (what, body) in bodies {
            assert!(catch_unwind(AssertUnwindSafe(body)).is_err(), "{what}");
            assert!(current().is_none(), "{what}");
            assert!(locks.lock("x").try_acquire().unwrap().is_some(), "{what}");
        }
    });
}

#[test]
fn a_loss_during_the_body_is_told_afterwards() {
    within_time(|| {
        let locks = memory();
        let mut ran = false;
        let outcome = locks.lock("x").run(|| {
            assert!(current().unwrap().is_held());
            locks.break_lock("x").unwrap();
            assert!(!current().unwrap().is_held());
            ran = true;
        });
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.loss()), (ErrorKind::Lost, Some(LossReason::Revoked)));
        assert!(ran, "a body can't be stopped");
        let error = locks.lock_all(["a", "b"]).run(|| locks.break_lock("b")).unwrap_err();
        assert_eq!((error.kind(), error.lock_name()), (ErrorKind::Lost, Some("b")));
        assert!(locks.lock("a").try_acquire().unwrap().is_some());
    });
}

#[test]
fn the_same_lock_inside_a_body_is_refused_however_it_is_asked_for() {
    within_time(|| {
        let locks = memory();
        let awaited = locks_api::Locks::from(locks.clone());
        let refused = |locks: &Locks| {
            let awaited = locks_api::Locks::from(locks.clone());
            assert_eq!(locks.lock("x").acquire().unwrap_err().kind(), ErrorKind::WouldDeadlock);
            assert_eq!(locks.lock("x").try_run(|| ()).unwrap_err().kind(), ErrorKind::WouldDeadlock);
            assert_eq!(locks.rw_lock("x").read().unwrap_err().kind(), ErrorKind::WouldDeadlock);
            assert_eq!(locks.lock_all(["a", "x"]).acquire().unwrap_err().kind(), ErrorKind::WouldDeadlock);
            locks.lock("y").run(|| ()).unwrap();
            awaited
        };
        // Blocking in blocking, asynchronous in blocking.
        locks
            .lock("x")
            .run(|| {
                let awaited = refused(&locks);
                let inner = current_thread().block_on(awaited.lock("x").acquire());
                assert_eq!(inner.unwrap_err().kind(), ErrorKind::WouldDeadlock);
            })
            .unwrap();
        assert!(locks.lock("x").try_run(|| refused(&locks)).unwrap().ran().is_some());
        locks.semaphore("x", 3).run(|| refused(&locks)).unwrap();
        locks.lock_all(["w", "x"]).run(|| refused(&locks)).unwrap();
        locks.rw_lock("x").run_read(|| refused(&locks)).unwrap();
        // Blocking in asynchronous.
        current_thread().block_on(awaited.lock("x").run(async { refused(&locks) })).unwrap();
        // Another thread is not inside, and neither is who has left.
        let other = locks.clone();
        let skipped = locks
            .lock("x")
            .run(|| thread::spawn(move || other.lock("x").try_run(|| ()).unwrap()).join().unwrap())
            .unwrap();
        assert!(matches!(skipped, Outcome::Skipped(_)));
        locks.lock("x").run(|| ()).unwrap();
    });
}

#[test]
fn dropping_a_guard_never_blocks() {
    within_time(|| {
        let (locks, line) = emulated();
        let guard = locks.lock("x").acquire().unwrap();
        let waiting = locks.lock("y").enqueue();
        line.silence();
        let waiting = waiting.wait_timeout(Duration::ZERO).unwrap().unwrap_err();
        let start = Instant::now();
        drop(guard);
        drop(waiting);
        assert!(start.elapsed() < 400 * MS, "it took {:?}", start.elapsed());
        line.restore();
    });
}

#[test]
fn a_store_out_of_reach_ends_the_wait() {
    within_time(|| {
        let store = locks_backend_memory::emulated::EmulatedStore::new(Default::default());
        let (backend, line) = store.connect();
        let locks = Locks::builder(backend).store_timeout(300 * MS).build();
        line.refuse();
        assert_eq!(locks.lock("x").acquire().unwrap_err().kind(), ErrorKind::Unavailable);
        line.restore();
        assert!(locks.lock("x").acquire().unwrap().is_held());
    });
}

/// The guards of many threads are dropped by others.
#[test]
fn guards_may_be_sent_to_other_threads() {
    within_time(|| {
        let locks = Arc::new(memory());
        let (give, take) = std::sync::mpsc::sync_channel(1);
        let taker = thread::spawn(move || take.iter().map(drop).count());
        for _ in 0..1_000 {
            give.send(locks.lock("x").acquire().unwrap()).unwrap();
        }
        drop(give);
        assert_eq!(taker.join().unwrap(), 1_000);
    });
}
