//! Through PgBouncer, which gives a connection to the server for one transaction.

use std::time::Duration;

use locks_test_servers::{PgBouncer, PoolMode, Postgres};

use super::{PROMPT, connect, eventually_wait, make_ready, pause};

fn pooled(server: &Postgres) -> PgBouncer {
    PgBouncer::start(server, PoolMode::Transaction).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_direct_way_everything_works_as_ever() {
    let server = Postgres::start().unwrap();
    let pooler = pooled(&server);
    let direct = server.url().replace(':', "%3A").replace('/', "%2F").replace('@', "%40");
    let url = format!("{}?max_ttl=4s&listen_url={direct}", pooler.url());
    make_ready(&url).await.unwrap();
    super::reach::use_all_kinds(&connect(&url), &connect(&url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_one_whoever_waits_asks_by_himself() {
    let server = Postgres::start().unwrap();
    let pooler = pooled(&server);
    let url = format!("{}?max_ttl=4s", pooler.url());
    make_ready(&url).await.unwrap();
    let (one, two) = (connect(&url), connect(&url));
    for _ in 0..5 {
        let guard = one.lock("a").ttl(Duration::from_secs(2)).acquire().await.unwrap();
        let lock = two.lock("a").ttl(Duration::from_secs(2));
        let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
        eventually_wait(&one, "a", 1).await;
        guard.release().await.unwrap();
        let next = waiter.await.unwrap().unwrap();
        // Over two renewals.
        pause(Duration::from_millis(1_400)).await;
        assert!(next.is_held());
        next.release().await.unwrap();
    }
}

/// A pooler goes on to another server unseen. What that one has forgotten costs a grace all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_behind_a_pooler_is_noticed() {
    let server = Postgres::start().unwrap();
    let pooler = pooled(&server);
    let url = format!("{}?max_ttl=2s", pooler.url());
    make_ready(&url).await.unwrap();
    let (one, two) = (connect(&url), connect(&url));
    let guard = one.lock("a").ttl(Duration::from_secs(2)).acquire().await.unwrap();
    let deadline = guard.deadline().unwrap();
    server.kill().unwrap();
    server.start_again().unwrap();
    let next = two.lock("a").ttl(Duration::from_secs(2)).acquire_timeout(PROMPT * 2).await.unwrap();
    assert!(deadline.has_passed(), "granted while the forgotten holder could still rely on it");
    assert!(next.fencing_token() > guard.fencing_token());
    assert!(!guard.is_held());
}
