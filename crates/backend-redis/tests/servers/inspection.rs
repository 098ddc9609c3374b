//! Who holds and waits, and taking locks away.

use std::time::Duration;

use locks_api::spi::{Backend as _, Inspect as _, Mode, Released, Renewed};
use locks_api::{LockName, LossReason};
use locks_backend_redis::redis::{Value, cmd};
use locks_backend_redis::set_up;
use locks_test_servers::Redis;

use super::{PROMPT, Process, ask, connect, eventually, pause, ready};

#[tokio::test(flavor = "multi_thread")]
async fn holders_and_waiters_are_told_in_their_order() {
    let (_server, url) = ready().await;
    let one = Process::new(&url);
    let state = async |name: &str| one.backend.state(&LockName::new(name).unwrap()).await.unwrap();
    assert!(!state("free").await.is_in_use());
    let plain = one.granted(&one.claim("plain")).await;
    let told = state("plain").await;
    assert_eq!(told.holders.len(), 1);
    assert_eq!(told.holders[0].claim, Some(plain.claim));
    assert_eq!(told.holders[0].token, Some(plain.tokens.first()));
    assert_eq!(told.holders[0].mode, Mode::Exclusive);
    assert!(told.holders[0].remaining.unwrap() <= Duration::from_secs(4));
    let holder = told.holders[0].holder.clone().unwrap();
    assert!(holder.pid == Some(std::process::id()) && holder.since.is_some());
    assert_eq!(told.waiters, Some(Vec::new()));
    let mode = Mode::Permits { count: 2, limit: 5 };
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(one.granted(&one.claim("p").with_mode(mode)).await);
    }
    let short = one.claim("p").with_mode(mode).with_ttl(Duration::from_secs(1)).waiting();
    let writer = one.claim("p").with_value("a value").waiting();
    let reader = one.claim("p").with_mode(Mode::Shared).waiting();
    for claim in [&short, &writer, &reader] {
        one.waits_behind(claim).await;
    }
    let told = state("p").await;
    let holders: Vec<_> = told.holders.iter().map(|held| held.claim.unwrap()).collect();
    assert_eq!(holders, [held[0].claim, held[1].claim]);
    assert!(told.holders.iter().all(|held| held.mode == mode));
    let waiters = told.waiters.unwrap();
    let told: Vec<_> =
        waiters.iter().map(|waiting| (waiting.claim.unwrap(), waiting.mode.unwrap())).collect();
    assert_eq!(told, [(short.id, mode), (writer.id, Mode::Exclusive), (reader.id, Mode::Shared)]);
    assert!(waiters.iter().all(|waiting| waiting.holder.as_ref().unwrap().pid == Some(std::process::id())));
    pause(Duration::from_millis(1_100)).await;
    assert_eq!(state("p").await.waiters.unwrap().len(), 2, "a dead waiter is told of");
    let grant = one.granted(&one.claim("m").with_min_hold(PROMPT)).await;
    one.release(&grant).await;
    let told = state("m").await;
    assert!(!told.is_in_use() && told.not_due_for.unwrap() <= PROMPT, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_writes_or_is_in_the_way() {
    let (server, url) = ready().await;
    let (one, asking) = (Process::new(&url), Process::new(&url));
    one.granted(&one.claim("a").with_mode(Mode::Shared).with_ttl(Duration::from_secs(1))).await;
    one.waits_behind(&one.claim("a").waiting()).await;
    pause(Duration::from_millis(1_100)).await;
    let dirty = || {
        let Value::BulkString(info) = ask(&server, cmd("INFO").arg("persistence")) else { panic!("no info") };
        let info = String::from_utf8(info).unwrap();
        info.lines().find(|line| line.starts_with("rdb_changes_since_last_save")).unwrap().to_owned()
    };
    // Its connection opens no epoch.
    asking.backend.list("").await.unwrap();
    let before = dirty();
    assert!(asking.backend.state(&one.claim("a").name).await.unwrap().holders.is_empty());
    assert_eq!(asking.backend.list("").await.unwrap().len(), 1);
    assert_eq!(dirty(), before);
    // On a server without room, too.
    ask(&server, cmd("CONFIG").arg("SET").arg("maxmemory").arg("1"));
    asking.backend.state(&one.claim("a").name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_locks_are_listed_by_prefix_and_by_name() {
    // Nobody renews them, on however slow a machine.
    let server = Redis::start().unwrap();
    let url = format!("{}?max_ttl=2m", server.url());
    set_up(&url).await.unwrap();
    let one = Process::new(&url);
    let held = |name: &str| one.claim(name).with_ttl(Duration::from_secs(120));
    let names: Vec<String> = (0..5_000).map(|number| format!("jobs/{number:05}")).collect();
    for names in names.chunks(500) {
        let claims: Vec<_> = names.iter().map(|name| held(name)).collect();
        assert!(one.backend.acquire(&claims).await.unwrap().iter().all(Result::is_ok));
    }
    for number in 0..2_000 {
        ask(&server, cmd("SET").arg(format!("somebody else's {number}")).arg(1));
    }
    let odd = ["j*bs/1", "j?bs/1", "[j]obs/1", r"jobs\/1", "Jobs/1"];
    for name in odd {
        one.granted(&held(name).with_mode(Mode::Shared)).await;
    }
    let freed = one.granted(&held("jobs/freed")).await;
    one.release(&freed).await;
    let list = async |prefix: &str| -> Vec<String> {
        let listed = one.backend.list(prefix).await.unwrap();
        listed.into_iter().map(|state| state.name.as_str().to_owned()).collect()
    };
    assert!(list("jobs/").await == names, "not all of them, or not by name");
    assert_eq!(list("jobs/0123").await.len(), 10);
    assert_eq!(list("none").await.len(), 0);
    assert_eq!(list("").await.len(), names.len() + odd.len());
    for name in odd {
        assert_eq!(list(name).await, [name]);
        assert!(list(&name[..3]).await.contains(&name.to_owned()));
    }
    assert_eq!(list("*").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_lock_goes_to_the_next_and_its_holder_hears_of_it() {
    let (_server, url) = ready().await;
    let (locks, other, operator) = (connect(&url), connect(&url), connect(&url));
    let guard = locks.lock("a").acquire().await.unwrap();
    let lock = other.lock("a");
    let next = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    let asked = operator.list("").await.unwrap();
    assert_eq!(asked.len(), 1);
    super::eventually_wait(&operator, "a", 1).await;
    assert_eq!(operator.break_lock("a").await.unwrap(), 1);
    assert_eq!(tokio::time::timeout(PROMPT, guard.lost()).await.unwrap(), LossReason::Revoked);
    let next = next.await.unwrap().unwrap();
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(guard.release().await.is_err());
    assert!(next.is_held());
    assert_eq!(operator.break_lock("nobody's").await.unwrap(), 0);
    // One reader of several.
    let readers = [locks.rw_lock("r").read().await.unwrap(), other.rw_lock("r").read().await.unwrap()];
    let state = operator.inspect("r").await.unwrap();
    assert_eq!(operator.break_claim("r", state.holders[0].claim.unwrap()).await.unwrap(), 1);
    assert_eq!(tokio::time::timeout(PROMPT, readers[0].lost()).await.unwrap(), LossReason::Revoked);
    assert!(readers[1].is_held());
    assert_eq!(operator.inspect("r").await.unwrap().holders.len(), 1);
    assert_eq!(operator.break_lock("r").await.unwrap(), 1);
    assert_eq!(tokio::time::timeout(PROMPT, readers[1].lost()).await.unwrap(), LossReason::Revoked);
}

/// A message that is lost leaves the renewal.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_grant_is_dead_and_its_renewal_says_why() {
    let (_server, url) = ready().await;
    let one = Process::new(&url);
    for mode in [Mode::Exclusive, Mode::Shared, Mode::Permits { count: 1, limit: 1 }] {
        let claim = one.claim("a").with_mode(mode);
        let grant = one.granted(&claim).await;
        assert_eq!(one.backend.break_lock(&claim.name, Some(one.claim("a").id)).await.unwrap(), 0);
        assert_eq!(one.backend.break_lock(&claim.name, Some(claim.id)).await.unwrap(), 1);
        let renewed = one.backend.renew(std::slice::from_ref(&grant)).await.unwrap();
        assert!(matches!(renewed[..], [Renewed::Lost(LossReason::Revoked)]), "{renewed:?}");
        assert_eq!(one.release(&grant).await, Released::NotHeld);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_are_asked_and_counted() {
    let (server, url) = ready().await;
    let (locks, operator) = (connect(&url), connect(&url));
    let guards = [locks.rw_lock("a").read().await.unwrap(), locks.rw_lock("a").read().await.unwrap()];
    let gone = Process::new(&url);
    gone.granted(&gone.claim("a").with_mode(Mode::Shared)).await;
    drop(gone);
    // The server has noticed.
    eventually("the connection's end", || {
        let Value::BulkString(clients) = ask(&server, cmd("CLIENT").arg("LIST")) else { panic!("no list") };
        String::from_utf8(clients).unwrap().lines().count() == 2
    })
    .await;
    assert_eq!(operator.revoke("a").await.unwrap(), 2);
    for guard in &guards {
        tokio::time::timeout(PROMPT, guard.asked()).await.unwrap();
        assert!(guard.is_held());
    }
    let claim = operator.inspect("a").await.unwrap().holders[1].claim.unwrap();
    assert_eq!(operator.revoke_claim("a", claim).await.unwrap(), 1);
    assert_eq!(operator.revoke("b").await.unwrap(), 0);
}
