//! Every piece of Rust in the README and the guide, run on a lock directory of its own.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::time::Duration;

use locks::spi::Scope;
use locks::{Busy, ErrorKind, FenceGate, Lock, LockGuard, Locks, Outcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let locks = locks::connect(&format!("file:{}", directory.path().display())).await?;
    verbs(&locks).await?;
    bodies(&locks).await?;
    contention(&locks).await?;
    overview(&locks).await?;
    kinds(&locks).await?;
    holding(&locks).await?;
    position(&locks).await?;
    inspection(&locks).await?;
    fencing(&locks).await?;
    watching(&locks.lock("watched")).await?;
    synchronous(&locks)?;
    promises(&locks);
    // region: close
    locks.close().await?;
    // endregion
    Ok(())
}

async fn verbs(locks: &Locks) -> locks::Result<()> {
    // region: verbs
    let lock = locks.lock("reports/nightly");

    let guard = lock.acquire().await?; // waits, first come, first served
    guard.release().await?;

    if let Some(guard) = lock.try_acquire().await? {
        guard.release().await?; // it was free
    }

    let guard = lock.acquire_timeout(Duration::from_secs(5)).await?; // or ErrorKind::Timeout
    guard.release().await?;
    // endregion
    Ok(())
}

async fn bodies(locks: &Locks) -> locks::Result<()> {
    // region: bodies
    let sum = locks.lock("sums").run(async { 1 + 2 }).await?; // the body is dropped if the lock is lost
    assert_eq!(sum, 3);

    match locks.lock("sums").try_run(async { 1 + 2 }).await? {
        Outcome::Ran(sum) => assert_eq!(sum, 3),
        Outcome::Skipped(busy) => println!("skipped: {busy}"), // held by pid 4711 on db1, for 3m 2s
    }
    // endregion
    Ok(())
}

async fn overview(locks: &Locks) -> locks::Result<()> {
    // region: overview
    let reader = locks.rw_lock("settings").read().await?;
    let permit = locks.semaphore("downloads", 3).acquire().await?;
    let both = locks.lock_all(["account/7", "account/3"]).acquire().await?;
    let leader = locks.election("scheduler").campaign("10.0.0.7:8080").await?;
    // endregion
    drop((reader, permit, both, leader));
    Ok(())
}

async fn kinds(locks: &Locks) -> locks::Result<()> {
    // region: readers
    let settings = locks.rw_lock("settings");
    let (one, two) = (settings.read().await?, settings.read().await?); // together
    assert!(settings.try_write().await?.is_none());
    drop((one, two));

    let writer = settings.write().await?; // alone
    let reader = writer.downgrade().await?; // and on as a reader, without letting go
    reader.release().await?;
    // endregion

    // region: permits
    let downloads = locks.semaphore("downloads", 3);
    let one = downloads.acquire().await?;
    let two = downloads.acquire_many(2).await?;
    assert!(downloads.try_acquire().await?.is_none());
    // endregion
    drop((one, two));

    // region: several
    let transfer = locks.lock_all(["account/7", "account/3"]).acquire().await?; // both or none
    println!("account/7 under token {:?}", transfer.fencing_token("account/7"));
    transfer.release().await?;
    // endregion

    // region: election
    let election = locks.election("scheduler");
    let leadership = election.campaign("10.0.0.7:8080").await?; // waits until it leads

    let mut observer = locks.election("scheduler").observe(); // in any process
    if let Some(leader) = observer.next().await? {
        println!("the scheduler is at {}", leader.value);
    }

    leadership.publish("10.0.0.7:9090").await?;
    let moved = observer.next().await?; // waits for the next change
    assert_eq!(moved.map(|leader| leader.token), Some(leadership.fencing_token()));
    leadership.resign().await
    // endregion
}

async fn holding(locks: &Locks) -> locks::Result<()> {
    // region: holding
    let report = locks.lock("reports/hourly").once_per(Duration::from_secs(3_600));
    let guard = report.acquire().await?;
    // … the work …
    guard.complete().await?; // done: nobody does it again before the hour is over

    let again = report.try_run(async { "done twice" }).await?;
    assert!(matches!(again, Outcome::Skipped(Busy::NotDue { .. })));
    // endregion
    Ok(())
}

async fn position(locks: &Locks) -> locks::Result<()> {
    let lock = locks.lock("busy");
    let held = lock.acquire().await?;
    tokio::spawn(async move { held.release().await });
    // region: position
    let mut waiting = lock.enqueue();
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    let guard = loop {
        tokio::select! {
            guard = &mut waiting => break guard?,
            _ = every_second.tick() => println!("{:?}", waiting.status()), // how many before us, who holds it
        }
    };
    // endregion
    guard.release().await
}

async fn inspection(locks: &Locks) -> locks::Result<()> {
    let guard = locks.lock("reports/nightly").label("from the guide").acquire().await?;
    // region: inspection
    for state in locks.list("reports/").await? {
        for held in &state.holders {
            println!("{} is held ({}) by {:?}", state.name, held.mode, held.holder);
        }
    }
    // endregion
    guard.release().await
}

async fn contention(locks: &Locks) -> locks::Result<()> {
    let lock = locks.lock("contended");
    let held = lock.acquire().await?;
    // region: contention
    match lock.acquire_timeout(Duration::from_millis(50)).await {
        Ok(guard) => guard.release().await?,
        Err(error) if error.kind() == ErrorKind::Timeout => {
            let holder = error.busy().and_then(|busy| busy.holder());
            println!("still held by process {:?}", holder.and_then(|holder| holder.pid));
        }
        Err(error) => return Err(error),
    }
    // endregion
    held.release().await
}

async fn fencing(locks: &Locks) -> Result<(), Box<dyn std::error::Error>> {
    // region: fencing
    let log = FenceGate::new(Vec::new());

    let first = locks.lock("log").acquire().await?;
    let stale = first.fencing_token();
    first.release().await?;

    let second = locks.lock("log").acquire().await?;
    log.apply(second.fencing_token(), |log| log.push("from the second holder"))?;
    assert!(log.apply(stale, |log| log.push("from the first, who was paused")).is_err());
    // endregion
    assert_eq!(log.into_inner().len(), 1);
    second.release().await?;
    Ok(())
}

async fn watching(lock: &Lock) -> locks::Result<()> {
    let guard = lock.acquire().await?;
    // region: watching
    async fn work_until_lost(guard: LockGuard, work: impl Future<Output = ()>) -> locks::Result<()> {
        tokio::select! {
            () = work => guard.release().await, // Err(ErrorKind::Lost) if it was lost just before
            why = guard.lost() => {
                eprintln!("stopped working: {why}");
                Ok(())
            }
        }
    }
    // endregion
    work_until_lost(guard, async {}).await
}

fn synchronous(locks: &Locks) -> Result<(), Box<dyn std::error::Error>> {
    let locks = locks::blocking::Locks::from(locks.clone());
    let worker = std::thread::spawn(move || -> locks::Result<()> {
        // region: synchronous
        let guard = locks.lock("from a thread").acquire()?;
        assert!(guard.is_held());
        drop(guard); // gives it back, without blocking

        let sum = locks.lock("sums").run(|| 1 + 2)?;
        assert_eq!(sum, 3);
        // endregion
        Ok(())
    });
    worker.join().map_err(|_| "the thread panicked")??;
    Ok(())
}

fn promises(locks: &Locks) {
    // region: promises
    let guarantees = locks.guarantees();
    assert_eq!(guarantees.scope, Scope::Host);
    assert_eq!(guarantees.ttl, None); // held until it is released or the process ends
    // endregion
}
