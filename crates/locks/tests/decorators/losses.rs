//! A lock that is lost under a decorated function.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use locks::{ErrorKind, Locks, LossReason, current, customlock};

use crate::memory;

/// Says when it is dropped, and whether the body had come to its end.
struct Dropped<'a>(&'a OnceLock<bool>, bool);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        assert_eq!(self.0.set(self.1), Ok(()), "dropped once");
    }
}

#[customlock("x", locks = locks)]
async fn stopped(locks: &Locks, ended: &OnceLock<bool>) -> u32 {
    let mut dropped = Dropped(ended, false);
    lose(locks).await;
    tokio::task::yield_now().await;
    dropped.1 = true;
    7
}

#[customlock("x", locks = locks, on_lost = "continue")]
async fn goes_on(locks: &Locks, ended: &OnceLock<bool>) -> Result<u32, locks::Error> {
    let mut dropped = Dropped(ended, false);
    assert!(current().is_some_and(|lock| lock.is_held()));
    lose(locks).await;
    tokio::task::yield_now().await;
    assert!(!current().is_some_and(|lock| lock.is_held()));
    dropped.1 = true;
    Ok(7)
}

#[customlock("x", locks = locks)]
fn now(locks: &Locks, ended: &OnceLock<bool>) -> u32 {
    let mut dropped = Dropped(ended, false);
    assert!(current().is_some_and(|lock| lock.is_held()));
    std::thread::scope(|scope| {
        let lost = scope
            .spawn(|| tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(lose(locks)));
        lost.join().unwrap();
    });
    assert!(!current().is_some_and(|lock| lock.is_held()));
    dropped.1 = true;
    7
}

/// Somebody closes the connection to the store, which ends all that is held over it.
async fn lose(locks: &Locks) {
    locks.close().await.unwrap();
}

#[tokio::test]
async fn a_lost_lock_stops_the_body_or_not_and_is_told_either_way() {
    for (ends, on_lost) in [(false, "stopped"), (true, "goes on"), (true, "now")] {
        let locks = memory().await;
        let ended = OnceLock::new();
        let result = match on_lost {
            "stopped" => stopped(&locks, &ended).await,
            "goes on" => goes_on(&locks, &ended).await,
            _ => now(&locks, &ended),
        };
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.loss()), (ErrorKind::Lost, Some(LossReason::Closed)), "{on_lost}");
        assert_eq!(ended.get(), Some(&ends), "{on_lost}");
    }
}

#[customlock("x", locks = locks)]
async fn endless(locks: &Locks, guard: Arc<()>) {
    std::future::pending::<()>().await;
    drop(guard);
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_its_lock_back() {
    let locks = memory().await;
    let held = Arc::new(());
    let late = tokio::time::timeout(Duration::from_millis(5), endless(&locks, Arc::clone(&held))).await;
    assert!(late.is_err());
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(locks.lock("x").acquire_timeout(Duration::from_secs(10)).await.is_ok());
}
