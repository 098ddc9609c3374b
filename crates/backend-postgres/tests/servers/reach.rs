//! Ways to a database: logins, connections, and what breaks them.

use std::time::{Duration, Instant};

use locks_api::{ErrorKind, Locks};
use locks_backend_postgres::PostgresBackend;

use super::{PROMPT, connect, eventually_wait, number, pause, ready, run, server};

/// Readers, permits, several at once, an election and an operator, each once.
pub(super) async fn use_all_kinds(one: &Locks, two: &Locks) {
    let guard = one.lock("a").acquire().await.unwrap();
    let lock = two.lock("a");
    let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    eventually_wait(one, "a", 1).await;
    guard.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    let readers = [one.rw_lock("r").read().await.unwrap(), two.rw_lock("r").read().await.unwrap()];
    let writer = one.rw_lock("r").ttl(Duration::from_secs(2));
    let writer = tokio::spawn(async move { writer.write().await });
    eventually_wait(two, "r", 1).await;
    assert!(two.rw_lock("r").try_read().await.unwrap().is_none());
    for reader in readers {
        reader.release().await.unwrap();
    }
    writer.await.unwrap().unwrap().downgrade().await.unwrap().release().await.unwrap();
    one.semaphore("p", 3).acquire_many(2).await.unwrap().release().await.unwrap();
    one.lock_all(["x", "y"]).acquire().await.unwrap().release().await.unwrap();
    one.lock("once").once_per(Duration::from_secs(3600)).acquire().await.unwrap().complete().await.unwrap();
    assert!(two.lock("once").once_per(Duration::from_secs(3600)).try_acquire().await.unwrap().is_none());
    let election = one.election("e");
    let mut observer = two.election("e").observe();
    assert_eq!(observer.next().await.unwrap(), None);
    let leadership = election.campaign("one").await.unwrap();
    leadership.publish("two").await.unwrap();
    assert!(tokio::time::timeout(PROMPT, observer.next()).await.unwrap().unwrap().is_some());
    leadership.resign().await.unwrap();
    let held = one.lock("broken").acquire().await.unwrap();
    assert_eq!(two.revoke("broken").await.unwrap(), 1);
    tokio::time::timeout(PROMPT, held.asked()).await.unwrap();
    assert_eq!(two.list("").await.unwrap().len(), 1);
    assert_eq!(two.break_lock("broken").await.unwrap(), 1);
}

/// The connections of a role that no other test has.
const OURS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'locks%' AND usename = 'counted'";

#[tokio::test(flavor = "multi_thread")]
async fn three_connections_carry_everything() {
    let url = ready().await;
    run(&url, "CREATE ROLE counted LOGIN SUPERUSER").await;
    let url = url.replace("postgres@", "counted@");
    let (one, two) = (connect(&url), connect(&url));
    let mut guards = Vec::new();
    for n in 0..100 {
        guards.push(one.lock(format!("held {n}")).ttl(Duration::from_secs(1)).acquire().await.unwrap());
    }
    let waits: Vec<_> = (0..100)
        .map(|n| {
            let lock = two.lock(format!("held {n}"));
            tokio::spawn(async move { lock.acquire_timeout(PROMPT).await })
        })
        .collect();
    pause(Duration::from_millis(1_500)).await;
    let ours = number(&url, OURS).await;
    assert!((4..=6).contains(&ours), "{ours} connections for two processes");
    assert!(guards.iter().all(|guard| guard.is_held()));
    for guard in guards {
        guard.release().await.unwrap();
    }
    for wait in waits {
        wait.await.unwrap().unwrap().release().await.unwrap();
    }
    one.close().await.unwrap();
    two.close().await.unwrap();
    let until = Instant::now() + PROMPT;
    while number(&url, OURS).await > 0 {
        assert!(Instant::now() < until, "connections are left");
        pause(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_connection_breaks_nothing_is_lost() {
    let url = ready().await;
    run(&url, "CREATE ROLE broken LOGIN SUPERUSER").await;
    let url = url.replace("postgres@", "broken@");
    let (one, two) = (connect(&url), connect(&url));
    for which in ["= 'locks'", "= 'locks listener'", "LIKE 'locks%'"] {
        let held = one.lock("held").ttl(Duration::from_secs(2)).acquire().await.unwrap();
        let lock = two.lock("held").ttl(Duration::from_secs(2));
        let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
        eventually_wait(&one, "held", 1).await;
        for _ in 0..3 {
            run(
                &url,
                format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'broken' AND application_name {which}"
                ),
            )
            .await;
            pause(Duration::from_millis(300)).await;
        }
        assert!(held.is_held() && !waiter.is_finished());
        held.release().await.unwrap();
        waiter.await.unwrap().unwrap().release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_reached_is_said_in_words_and_without_the_password() {
    let address = server().url().split_once('@').unwrap().1.to_owned();
    let host = address.split_once('/').unwrap().0;
    for (url, kind, word) in [
        (format!("postgres://u:geheim@{host}/nowhere"), ErrorKind::PermissionDenied, "does not exist"),
        (format!("postgres://postgres:geheim@{host}/nowhere"), ErrorKind::Config, "no such database"),
        ("postgres://u:geheim@127.0.0.1:1/x".to_owned(), ErrorKind::Unavailable, "no connection"),
    ] {
        let backend = PostgresBackend::from_url(&url).unwrap();
        let locks = Locks::builder(backend).store_timeout(Duration::from_secs(1)).build();
        let error = locks.lock("a").try_acquire().await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert_eq!(error.kind(), kind, "{said}");
        assert!(said.contains(word) && !said.contains("geheim"), "{said}");
    }
}
