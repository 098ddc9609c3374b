//! Minimum holds and once-per intervals.

use std::time::Duration;

use locks_api::Busy;
use locks_api::spi::{Attempt, Claim, Mode, Released, Schedule as _};
use locks_backend_redis::redis::{Value, cmd};
use locks_backend_redis::set_up;
use locks_test_servers::Redis;

use super::{PROMPT, Process, ask, connect, pause, ready};

const SECOND: Duration = Duration::from_secs(1);

impl Process {
    async fn granted_after_grace(&self, claim: &Claim) {
        let until = std::time::Instant::now() + PROMPT;
        while !matches!(self.acquire(claim).await, Ok(Attempt::Granted(_))) {
            assert!(std::time::Instant::now() < until, "not granted within {PROMPT:?}");
            pause(SECOND / 20).await;
        }
    }

    /// Asks, and is told how long it is not due.
    async fn not_due(&self, claim: &Claim) -> Duration {
        match self.acquire(claim).await.unwrap() {
            Attempt::Busy(Busy::NotDue { remaining }) => remaining,
            other => panic!("due: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_it_before_the_minimum_hold_is_over() {
    let (server, url) = ready().await;
    let one = Process::new(&url);
    let grant = one.granted(&one.claim("a").with_min_hold(2 * SECOND)).await;
    assert!(one.is_held(&one.claim("a")).await);
    let waiting = one.claim("a").waiting();
    one.waits_behind(&waiting).await;
    assert_eq!(one.release(&grant).await, Released::Done);
    for mode in [Mode::Exclusive, Mode::Shared, Mode::Permits { count: 1, limit: 2 }] {
        assert!(one.not_due(&one.claim("a").with_mode(mode)).await <= 2 * SECOND);
    }
    // Whoever waits keeps its place, and is told when to ask.
    let Attempt::Queued { check_in: Some(check_in), by: None, .. } = one.acquire(&waiting).await.unwrap()
    else {
        panic!("not queued")
    };
    assert!(check_in <= 2 * SECOND + SECOND / 100);
    let remaining = one.not_due(&one.claim("a")).await;
    pause(remaining).await;
    let grant = one.granted(&waiting).await;
    one.release(&grant).await;
    // The record is a simple one again.
    let Value::BulkString(record) = ask(&server, cmd("GET").arg("{locks}:1:l:a")) else {
        panic!("no record")
    };
    assert!(!String::from_utf8(record).unwrap().contains('~'));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_its_holder_and_is_kept_for_as_long_as_it_takes() {
    let (server, url) = ready().await;
    let one = Process::new(&url);
    one.granted(&one.claim("a").with_ttl(SECOND).with_min_hold(3 * SECOND)).await;
    let days = one.granted(&one.claim("b").with_min_hold(Duration::from_secs(3 * 24 * 3600))).await;
    one.release(&days).await;
    drop(one);
    pause(SECOND + SECOND / 10).await;
    let two = Process::new(&url);
    assert!(two.not_due(&two.claim("a")).await < 2 * SECOND);
    // A deadline later than that of an idle key.
    let Value::Int(kept) = ask(&server, cmd("PTTL").arg("{locks}:1:l:b")) else { panic!("no key") };
    assert!(kept > 3 * 24 * 3600 * 1000 - 60_000, "{kept} ms");
    two.not_due(&two.claim("b")).await;
    pause(2 * SECOND).await;
    two.granted(&two.claim("a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_claim_takes_its_minimum_hold_back() {
    let (_server, url) = ready().await;
    let one = Process::new(&url);
    let claim = one.claim("a").with_min_hold(1000 * SECOND);
    let grant = one.granted(&claim).await;
    let waiting = one.claim("a").waiting();
    one.waits_behind(&waiting).await;
    one.release(&grant).await;
    one.waits_behind(&waiting).await;
    one.cancel(&claim).await;
    // Handed over in the same step.
    let grant = one.granted(&waiting).await;
    one.release(&grant).await;
    // Others take nothing back.
    let reader = one.granted(&one.claim("a").with_mode(Mode::Shared).with_min_hold(1000 * SECOND)).await;
    let other = one.claim("a").with_mode(Mode::Shared);
    one.not_due(&other).await;
    one.cancel(&other).await;
    one.release(&reader).await;
    one.not_due(&other).await;
}

/// Those who wait are woken by the release and by nothing else but themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_gets_it_when_it_is_due() {
    let (_server, url) = ready().await;
    let (one, two) = (connect(&url), connect(&url));
    let guard = one.lock("a").min_hold(2 * SECOND).acquire().await.unwrap();
    let began = std::time::Instant::now();
    let lock = two.lock("a");
    let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    pause(SECOND / 5).await;
    guard.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    assert!(began.elapsed() > 2 * SECOND - SECOND / 10, "{:?}", began.elapsed());
    assert!(began.elapsed() < 4 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_completed_is_not_due_until_its_interval_is_over() {
    let (server, url) = ready().await;
    let one = Process::new(&url);
    let hourly = |claim: Claim| claim.with_once_per(3600 * SECOND);
    // Given back is not done.
    let grant = one.granted(&hourly(one.claim("a"))).await;
    one.release(&grant).await;
    let grant = one.granted(&hourly(one.claim("a"))).await;
    let waits = one.claim("a").with_once_per(2 * SECOND).waiting();
    one.waits_behind(&waits).await;
    pause(SECOND).await;
    assert_eq!(one.backend.complete(&grant).await.unwrap(), Released::Done);
    assert_eq!(one.backend.complete(&grant).await.unwrap(), Released::NotHeld);
    // From the grant, not from the end.
    let remaining = one.not_due(&hourly(one.claim("a"))).await;
    assert!(remaining < 3599 * SECOND && remaining > 3590 * SECOND, "{remaining:?}");
    // It is nobody else's business, and one that is not due is in nobody's way.
    let other = one.granted(&one.claim("a").waiting()).await;
    one.release(&other).await;
    assert!(one.not_due(&waits).await < SECOND);
    pause(SECOND).await;
    let grant = one.granted(&waits).await;
    one.release(&grant).await;
    one.not_due(&hourly(one.claim("a"))).await;
    // Kept for as long as the longest interval.
    let Value::Int(kept) = ask(&server, cmd("PTTL").arg("{locks}:1:l:a")) else { panic!("no key") };
    assert!(kept > 365 * 24 * 3600 * 1000, "{kept} ms");
    // Of a hold without terms only the second is known.
    let plain = one.granted(&one.claim("b")).await;
    one.backend.complete(&plain).await.unwrap();
    let remaining = one.not_due(&hourly(one.claim("b"))).await;
    assert!(remaining > 3599 * SECOND - SECOND / 2 && remaining <= 3600 * SECOND, "{remaining:?}");
}

/// As durable as the server's data, and no more durable than they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_keeps_what_it_writes_down() {
    let server = Redis::options().config("appendonly", "yes").start().unwrap();
    let url = format!("{}?max_ttl=2s", server.url());
    set_up(&url).await.unwrap();
    let one = Process::new(&url);
    let claim = |name: &str| one.claim(name).with_ttl(2 * SECOND);
    let held = one.granted(&claim("held").with_min_hold(1000 * SECOND)).await;
    one.release(&held).await;
    let done = one.granted(&claim("done").with_once_per(1000 * SECOND)).await;
    one.backend.complete(&done).await.unwrap();
    let locks = connect(&url);
    let readers = [locks.rw_lock("r").read().await.unwrap(), locks.rw_lock("r").read().await.unwrap()];
    let permits = locks.semaphore("p", 3).acquire_many(2).await.unwrap();
    server.kill().unwrap();
    server.start_again().unwrap();
    let two = connect(&url);
    let last = two.semaphore("p", 3).acquire_timeout(PROMPT).await.unwrap();
    assert!(readers.iter().all(|reader| reader.is_held()) && permits.is_held());
    assert!(two.semaphore("p", 3).try_acquire().await.unwrap().is_none());
    assert!(last.fencing_token() > permits.fencing_token());
    let next = Process::new(&url);
    next.not_due(&next.claim("held").with_ttl(SECOND)).await;
    next.not_due(&next.claim("done").with_ttl(SECOND).with_once_per(1000 * SECOND)).await;
    next.granted(&next.claim("done").with_ttl(SECOND)).await;
    for guard in readers {
        guard.release().await.unwrap();
    }
    ask(&server, &cmd("FLUSHALL"));
    next.granted_after_grace(&next.claim("held").with_ttl(SECOND)).await;
}
