//! Inside runtimes: what would block for ever is an error, and nothing else is.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use locks_api::blocking::{LockGuard, Locks, Waiting};
use locks_api::{Error, ErrorKind};
use locks_backend_memory::MemoryStore;
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_blocking, yield_now};

use crate::{MS, current_thread, emulated, memory, within_time};

const LONG: Duration = Duration::from_secs(20);

/// Runs `test` as a task of a current-thread runtime, over both stores, each in time.
fn on_one_thread<F: Future<Output = ()> + 'static>(test: fn(Locks, locks_api::Locks) -> F) {
    for emulates in [false, true] {
        within_time(move || {
            let locks = if emulates { emulated().0 } else { memory() };
            let local = LocalSet::new();
            let (first, second) = (locks.clone(), locks.clone());
            current_thread().block_on(test(first, locks.clone().into()));
            // And as a task that was spawned, not the one that is blocked on.
            local.block_on(&current_thread(), async move {
                tokio::task::spawn_local(test(second, locks.into())).await.unwrap();
            });
        });
    }
}

fn refused<T>(got: Result<T, Error>) {
    let error = got.err().expect("it was not refused");
    assert_eq!(error.kind(), ErrorKind::WouldDeadlock, "{error}");
    assert!(error.to_string().contains("spawn_blocking"), "{error}");
}

/// A thread that has the lock and lets it go a moment after it was told to.
struct Elsewhere {
    holder: thread::JoinHandle<()>,
    go: mpsc::Sender<()>,
}

impl Elsewhere {
    fn holds(locks: &Locks, name: &'static str) -> Self {
        let (has, had) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let lock = locks.lock(name);
        let holder = thread::spawn(move || {
            let guard = lock.acquire().unwrap();
            has.send(()).unwrap();
            may_go.recv().unwrap();
            thread::park_timeout(20 * MS);
            drop(guard);
        });
        had.recv().unwrap();
        Self { holder, go }
    }

    fn goes_soon(self) -> thread::JoinHandle<()> {
        self.go.send(()).unwrap();
        self.holder
    }
}

#[test]
fn a_lock_that_the_own_runtime_holds() {
    on_one_thread(|locks, awaited| async move {
        let lock = locks.lock("x");
        let guards: [LockGuard; 2] = [
            awaited.lock("x").acquire().await.unwrap().into(),
            awaited.lock("y").acquire().await.unwrap().into(),
        ];
        for name in ["x", "y"] {
            let lock = locks.lock(name);
            refused(lock.acquire());
            refused(lock.acquire_timeout(LONG));
            refused(lock.run(|| ()));
            refused(lock.enqueue().wait());
            refused(lock.enqueue().wait_timeout(MS));
            refused(locks.rw_lock(name).read());
            refused(locks.rw_lock(name).write());
            refused(locks.semaphore(name, 7).acquire());
            refused(locks.election(name).campaign("me"));
            refused(locks.lock_all(["a", name]).acquire());
            // What does not wait.
            assert!(lock.try_acquire().unwrap().is_none());
            assert_eq!(lock.acquire_timeout(Duration::ZERO).unwrap_err().kind(), ErrorKind::Timeout);
            assert!(lock.try_run(|| ()).unwrap().is_skipped());
            assert!(locks.lock_all(["a", name]).try_acquire().unwrap().is_none());
        }
        drop(guards);
        drop(locks.lock_all(["a", "x"]).acquire().unwrap());
        // A guard that was had by blocking is as much in the way.
        let guard = lock.acquire().unwrap();
        refused(lock.acquire());
        let other = lock.clone();
        spawn_blocking(move || assert!(other.try_acquire().unwrap().is_none())).await.unwrap();
        drop(guard);
        lock.run(|| ()).unwrap();
        // And one that another task has.
        let held = awaited.lock("x");
        let holder = tokio::spawn(async move {
            let guard = held.acquire().await.unwrap();
            yield_now().await;
            drop(guard);
        });
        while lock.try_acquire().unwrap().is_some() {
            yield_now().await;
        }
        refused(lock.acquire());
        holder.await.unwrap();
        lock.run(|| ()).unwrap();
    });
}

#[test]
fn a_task_of_the_own_runtime_that_waits_before_it() {
    on_one_thread(|locks, awaited| async move {
        let elsewhere = Elsewhere::holds(&locks, "x");
        let mut first = awaited.lock("x").enqueue();
        tokio::select! {
            biased;
            _ = &mut first => panic!("it is held"),
            () = std::future::ready(()) => {}
        }
        refused(locks.lock("x").acquire());
        // Having the lock and being told so are two things: it stays the first one's.
        elsewhere.goes_soon().join().unwrap();
        refused(locks.lock("x").acquire());
        // It goes, and nobody is before us any more.
        drop(first);
        locks.lock("x").acquire().unwrap().release().unwrap();
    });
}

#[test]
fn readers_and_permits_of_the_own_runtime() {
    on_one_thread(|locks, awaited| async move {
        let reader = awaited.rw_lock("r").read().await.unwrap();
        drop(locks.rw_lock("r").read().unwrap());
        refused(locks.rw_lock("r").write());
        drop(reader);
        let writer = locks.rw_lock("r").write().unwrap();
        refused(locks.rw_lock("r").read());
        let reader = writer.downgrade().unwrap();
        drop(locks.rw_lock("r").read().unwrap());
        drop(reader);

        let two = awaited.semaphore("s", 3).acquire_many(2).await.unwrap();
        drop(locks.semaphore("s", 3).acquire().unwrap());
        refused(locks.semaphore("s", 3).acquire_many(2));
        // The one that is missing is elsewhere and comes back.
        let (has, had) = mpsc::channel();
        let elsewhere = locks.semaphore("s", 3);
        let holder = thread::spawn(move || {
            let permit = elsewhere.acquire().unwrap();
            has.send(()).unwrap();
            thread::park_timeout(30 * MS);
            drop(permit);
        });
        had.recv().unwrap();
        drop(locks.semaphore("s", 3).acquire().unwrap());
        holder.join().unwrap();
        drop(two);
    });
}

/// Steps without a wait are allowed; the next one that waits is judged by how things stand then.
#[test]
fn a_wait_in_steps_between_which_the_runtime_gets_on() {
    on_one_thread(|locks, awaited| async move {
        let step = |time| move |waiting: Waiting| waiting.wait_timeout(time).unwrap().unwrap_err();
        let guard = awaited.lock("x").acquire().await.unwrap();
        let [first, second, third] = [(); 3].map(|()| step(Duration::ZERO)(locks.lock("x").enqueue()));
        refused(second.wait());
        let first = step(Duration::ZERO)(first);
        assert_eq!((first.status().position, third.status().position), (Some(0), Some(1)));
        drop(guard);
        // What is behind it is in nobody's way.
        let guard = first.wait().unwrap();
        refused(third.wait_timeout(MS));
        drop(guard);
        // Begun on a thread of its own, and what is before it is on another one.
        let elsewhere = Elsewhere::holds(&locks, "x");
        let lock = locks.lock("x");
        let waiting = spawn_blocking(move || step(MS)(lock.enqueue())).await.unwrap();
        let behind = awaited.lock("x");
        let behind = tokio::spawn(async move { behind.acquire().await.unwrap() });
        yield_now().await;
        let holder = elsewhere.goes_soon();
        assert!(waiting.wait().unwrap().is_held());
        holder.join().unwrap();
        assert!(behind.await.unwrap().is_held());
    });
}

/// The reader's own thread is what the writer waits for, who is in the reader's way. It shows only once the store has answered.
#[test]
fn a_reader_behind_a_writer_who_waits_for_the_own_runtime() {
    within_time(|| {
        let store = MemoryStore::default();
        let [here, there] = [(); 2].map(|()| Locks::new(store.connect()));
        let awaited = locks_api::Locks::from(here.clone());
        current_thread().block_on(async {
            let reader = awaited.rw_lock("x").read().await.unwrap();
            let writer = there.rw_lock("x").enqueue_write();
            let writer = writer.wait_timeout(Duration::ZERO).unwrap().unwrap_err();
            refused(here.rw_lock("x").read());
            assert!(here.rw_lock("x").try_read().unwrap().is_none());
            assert_eq!(here.inspect("x").unwrap().waiters.unwrap().len(), 1, "who was refused still waits");
            // Whoever reads elsewhere waits as always.
            let waits = here.rw_lock("x");
            let waits = spawn_blocking(move || waits.read().unwrap().fencing_token());
            drop(reader);
            writer.wait().unwrap().release().unwrap();
            waits.await.unwrap();
        });
    });
}

#[test]
fn holds_that_end_by_themselves_are_waited_for() {
    on_one_thread(|locks, awaited| async move {
        let short = awaited.lock("x").max_hold(50 * MS).acquire().await.unwrap();
        assert!(locks.lock("x").acquire().unwrap().is_held());
        assert!(!short.is_held());
        if locks.guarantees().ttl.is_some() {
            let by_hand = awaited.lock("y").ttl(600 * MS).renew(false).acquire().await.unwrap();
            assert!(locks.lock("y").acquire().unwrap().is_held());
            assert!(!by_hand.is_held());
        }
        // One that is lost is in nobody's way.
        let lost = awaited.lock("z").acquire().await.unwrap();
        if locks.guarantees().ttl.is_none() {
            locks.break_lock("z").unwrap();
            assert!(locks.lock("z").acquire().unwrap().is_held());
        }
        drop(lost);
    });
}

#[test]
fn holders_on_other_threads_are_waited_for() {
    on_one_thread(|locks, awaited| async move {
        let holder = Elsewhere::holds(&locks, "x").goes_soon();
        assert!(locks.lock("x").acquire().unwrap().is_held());
        holder.join().unwrap();
        // Made inside `spawn_blocking`, of which the runtime's handle says the same as of its own thread.
        let lock = locks.lock("x");
        let guard = spawn_blocking(move || lock.acquire().unwrap()).await.unwrap();
        let keeper = thread::spawn(move || {
            thread::park_timeout(30 * MS);
            drop(guard);
        });
        assert!(locks.lock("x").acquire_timeout(LONG).unwrap().is_held());
        keeper.join().unwrap();
        // Made on another runtime, and awaited there.
        let (has, had) = mpsc::channel();
        let elsewhere = awaited.lock("x");
        let holder = thread::spawn(move || {
            current_thread().block_on(async {
                let guard = elsewhere.acquire().await.unwrap();
                has.send(()).unwrap();
                thread::park_timeout(30 * MS);
                drop(guard);
            });
        });
        had.recv().unwrap();
        assert!(locks.lock("x").acquire().unwrap().is_held());
        holder.join().unwrap();
    });
}

#[test]
fn spawn_blocking_waits_for_what_a_task_holds() {
    within_time(|| {
        let locks = memory();
        let awaited = locks_api::Locks::from(locks.clone());
        // One thread for all that blocks, so that it is the same one each time.
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let guard = awaited.lock("x").acquire().await.unwrap();
            let lock = locks.lock("x");
            let waits = spawn_blocking(move || lock.acquire().unwrap());
            yield_now().await;
            drop(guard);
            let guard = waits.await.unwrap();
            // The guard was made on the thread that waits next, and is not there any more.
            let lock = locks.lock("x");
            let late = spawn_blocking(move || lock.acquire_timeout(20 * MS)).await.unwrap();
            assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
            let lock = locks.lock("x");
            let waits = spawn_blocking(move || lock.acquire().unwrap());
            yield_now().await;
            drop(guard);
            waits.await.unwrap().release().unwrap();
        });
    });
}

#[test]
fn a_runtime_with_several_threads_never_gets_the_error() {
    within_time(|| {
        let locks = memory();
        let awaited = locks_api::Locks::from(locks.clone());
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            for _ in 0..100 {
                let guard = awaited.lock("x").acquire().await.unwrap();
                let lock = locks.lock("x");
                let waits = tokio::spawn(async move { lock.acquire().unwrap().fencing_token() });
                yield_now().await;
                let token = guard.fencing_token();
                drop(guard);
                assert!(waits.await.unwrap() > token);
            }
            // What this very thread holds may go to another one.
            let guard = awaited.lock("x").acquire().await.unwrap();
            let late = tokio::task::block_in_place(|| locks.lock("x").acquire_timeout(20 * MS));
            assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
            assert_eq!(locks.lock("x").acquire_timeout(20 * MS).unwrap_err().kind(), ErrorKind::Timeout);
            drop(guard);
            let task = async move {
                let guard = awaited.lock("x").acquire().await.unwrap();
                let late = locks.lock("x").acquire_timeout(20 * MS);
                assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
                drop(guard);
            };
            tokio::spawn(task).await.unwrap();
        });
    });
}

/// A task has a budget that nothing fills up while it blocks.
#[test]
fn a_task_may_block_ten_thousand_times() {
    on_one_thread(|locks, _| async move {
        let times = if locks.guarantees().ttl.is_some() { 1_000 } else { 10_000 };
        for _ in 0..times {
            let guard = locks.lock("x").acquire().unwrap();
            guard.release().unwrap();
        }
        for _ in 0..times / 10 {
            locks.lock("x").run(|| ()).unwrap();
            drop(locks.semaphore("s", 2).acquire().unwrap());
            locks.lock_all(["a", "b"]).acquire().unwrap().release().unwrap();
            assert_eq!(locks.inspect("x").unwrap().holders.len(), 0);
        }
    });
    within_time(|| {
        let locks = memory();
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let task = async move {
            for _ in 0..10_000 {
                locks.lock("x").acquire().unwrap().release().unwrap();
            }
        };
        runtime.block_on(async { tokio::spawn(task).await.unwrap() });
    });
}

/// Tasks that block and tasks that await, on one thread, with holders elsewhere.
#[test]
fn blocking_and_awaiting_in_turns() {
    within_time(|| {
        let locks = memory();
        let awaited = locks_api::Locks::from(locks.clone());
        let worker = {
            let locks = locks.clone();
            thread::spawn(move || (0..2_000).for_each(|_| locks.lock("x").run(|| ()).unwrap()))
        };
        current_thread().block_on(async {
            let tasks: Vec<_> = (0..20)
                .map(|number| {
                    let (locks, awaited) = (locks.clone(), awaited.clone());
                    tokio::spawn(async move {
                        let mut had = 0;
                        while had < 50 {
                            if number % 2 == 0 {
                                drop(awaited.lock("x").acquire().await.unwrap());
                                had += 1;
                            } else {
                                match locks.lock("x").acquire() {
                                    Ok(_) => had += 1,
                                    // Another task is before it, which has to get on first.
                                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldDeadlock),
                                }
                                yield_now().await;
                            }
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        worker.join().unwrap();
    });
}
