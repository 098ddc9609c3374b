//! Every piece of Rust in the README and the guide, run on a lock directory of its own.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::time::Duration;

use locks::spi::Scope;
use locks::{ErrorKind, FenceGate, Lock, LockGuard, Locks, Outcome};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let locks = locks::connect(&format!("file:{}", directory.path().display())).await?;
    verbs(&locks).await?;
    bodies(&locks).await?;
    contention(&locks).await?;
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
    let locks = locks.clone();
    let worker = std::thread::spawn(move || -> std::io::Result<()> {
        // region: synchronous
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let guard = runtime.block_on(locks.lock("from a thread").acquire()).map_err(std::io::Error::other)?;
        assert!(guard.is_held());
        drop(guard); // gives it back, without blocking and without a runtime
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
