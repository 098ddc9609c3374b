//! Decorated functions that call each other.

use std::panic::AssertUnwindSafe;

use locks::{ErrorKind, current, customlock, lock};

use crate::{alone, memory};

#[customlock("outer/{depth}")]
async fn outer(depth: u32) -> locks::Result<Vec<String>> {
    let mut names = match depth {
        0 => now(depth)?,
        _ => Box::pin(outer(depth - 1)).await?,
    };
    names.push(current().unwrap().name().to_owned());
    Ok(names)
}

#[lock]
fn now(_depth: u32) -> Vec<String> {
    vec![current().unwrap().name().to_owned()]
}

#[tokio::test]
async fn other_locks_nest_and_the_innermost_is_current() {
    alone(async {
        let names = outer(2).await.unwrap();
        assert_eq!(names, ["decorators::nesting::now", "outer/0", "outer/1", "outer/2"]);
        assert!(current().is_none());
    })
    .await;
}

#[lock]
async fn again(times: u32) -> locks::Result<u32> {
    match times {
        0 => Ok(0),
        _ => Box::pin(again(times - 1)).await,
    }
}

#[lock]
fn again_now(times: u32) -> locks::Result<u32> {
    if times == 0 { Ok(0) } else { again_now(times - 1) }
}

#[customlock("mixed")]
async fn mixed_outside() -> Result<(), locks::Error> {
    mixed_inside()
}

#[customlock("mixed")]
fn mixed_inside() {}

#[customlock("tried", wait = false)]
async fn tried(again: bool) -> locks::Result<bool> {
    if again {
        return Ok(Box::pin(tried(false)).await?.is_skipped());
    }
    Ok(false)
}

#[tokio::test]
async fn the_same_lock_again_is_an_error() {
    alone(async {
        for error in [
            again(1).await.unwrap_err(),
            again_now(1).unwrap_err(),
            mixed_outside().await.unwrap_err(),
            tried(true).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::WouldDeadlock, "{error}");
        }
        assert_eq!(again(0).await.unwrap() + again_now(0).unwrap(), 0);
    })
    .await;
}

#[customlock("spawned", locks = locks)]
async fn spawns(locks: &locks::Locks) -> (bool, bool) {
    let locks = locks.clone();
    let inside = tokio::spawn(async move {
        let held = current().is_some();
        let late = locks.lock("spawned").acquire_timeout(std::time::Duration::from_millis(1)).await;
        (held, late.unwrap_err().kind() == ErrorKind::Timeout)
    });
    inside.await.unwrap()
}

#[customlock("two tasks", locks = locks)]
async fn one_of_two(locks: &locks::Locks, at: &tokio::sync::Barrier) {
    at.wait().await;
}

#[tokio::test]
async fn a_task_is_inside_and_others_are_not() {
    let locks = memory().await;
    assert_eq!(spawns(&locks).await.unwrap(), (false, true));
    // Polled on one thread in turns, one of them inside, and none of them believes to be in the other.
    let at = tokio::sync::Barrier::new(1);
    let (first, second, third) =
        tokio::join!(one_of_two(&locks, &at), one_of_two(&locks, &at), one_of_two(&locks, &at));
    first.and(second).and(third).unwrap();
}

#[lock]
async fn panics() {
    panic!("on purpose");
}

#[lock]
fn panics_now(really: bool) -> Option<locks::Current> {
    assert!(!really, "on purpose");
    current()
}

#[tokio::test]
async fn a_panic_leaves_the_scope() {
    let locks = memory().await;
    let scoped = locks.clone();
    let ended = tokio::spawn(async move { locks::with_default(&scoped, panics()).await }).await;
    assert!(ended.unwrap_err().is_panic());
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
        locks::with_default_blocking(&locks, || panics_now(true))
    }));
    assert!(ended.is_err() && current().is_none());
    let late = locks::with_default_blocking(&locks, || panics_now(false)).unwrap().unwrap();
    assert!(!late.is_held() && late.deadline().is_none(), "the body is over");
    assert_eq!(late.name(), "decorators::nesting::panics_now");
    assert!(late.fencing_token().get() > 1, "the second grant");
}
