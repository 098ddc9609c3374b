//! Transactions of the user's that have a lock.

use std::time::{Duration, Instant};

use locks_api::ErrorKind;
use locks_backend_postgres::sqlx::postgres::{PgConnectOptions, PgConnection};
use locks_backend_postgres::sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, raw_sql};
use locks_backend_postgres::{AcquireIn as _, VerifyIn as _};
use locks_test_servers::{PgBouncer, PoolMode, Postgres};

use super::session::{connect, unlike_all_others};
use super::{PROMPT, client, fresh, number, pause, run};

#[tokio::test(flavor = "multi_thread")]
async fn commit_and_rollback_give_it_back() {
    let url = unlike_all_others();
    let (one, two) = (connect(&url), connect(&url));
    let mut connection = client(&url).await;
    let mut last = None;
    for commits in [true, false, true] {
        let mut transaction = connection.begin().await.unwrap();
        let token = one.lock("a").acquire_in(&mut transaction).await.unwrap();
        assert!(last < Some(token), "{token} after {last:?}");
        let again = one.lock("a").try_acquire_in(&mut transaction).await.unwrap();
        assert!(again > Some(token));
        assert!(two.lock("a").try_acquire().await.unwrap().is_none());
        assert!(two.lock("b").try_acquire().await.unwrap().is_some());
        if commits {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let guard = two.lock("a").try_acquire().await.unwrap().expect("given back");
        assert!(Some(guard.fencing_token()) > again);
        last = Some(guard.fencing_token());
        guard.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contention_never_aborts_the_transaction() {
    let url = unlike_all_others();
    let locks = connect(&url);
    let guard = locks.lock("a").acquire().await.unwrap();
    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    transaction.execute("CREATE TEMPORARY TABLE before (n integer)").await.unwrap();
    for _ in 0..3 {
        assert_eq!(locks.lock("a").try_acquire_in(&mut transaction).await.unwrap(), None);
    }
    let token = guard.fencing_token();
    let releasing = tokio::spawn(async move {
        pause(Duration::from_millis(300)).await;
        guard.release().await
    });
    let began = Instant::now();
    let waited = locks.lock("a").acquire_in(&mut transaction).await.unwrap();
    assert!(waited > token && began.elapsed() > Duration::from_millis(250));
    releasing.await.unwrap().unwrap();
    transaction.execute("INSERT INTO before VALUES (1)").await.unwrap();
    transaction.commit().await.unwrap();
    let kept: i64 = connection.fetch_one("SELECT count(*) FROM before").await.unwrap().get(0);
    assert_eq!(kept, 1);
}

/// Many read, add one and write back; some of them hold the lock by a guard.
#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost() {
    const TASKS: i64 = 6;
    const ROUNDS: i64 = 10;
    let url = unlike_all_others();
    let table = fresh();
    run(&url, format!("CREATE TABLE {table} (n bigint); INSERT INTO {table} VALUES (0)")).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (url, table) = (url.clone(), table.clone());
        tasks.spawn(async move {
            let locks = connect(&url);
            let mut connection = client(&url).await;
            for _ in 0..ROUNDS {
                let guard = match task % 2 {
                    0 => Some(locks.lock("account").acquire_timeout(PROMPT).await.unwrap()),
                    _ => None,
                };
                let mut transaction = connection.begin().await.unwrap();
                if guard.is_none() {
                    locks.lock("account").acquire_in(&mut transaction).await.unwrap();
                }
                let read = format!("SELECT n FROM {table}");
                let n: i64 = transaction.fetch_one(raw_sql(AssertSqlSafe(read))).await.unwrap().get(0);
                let write = format!("UPDATE {table} SET n = {}", n + 1);
                transaction.execute(raw_sql(AssertSqlSafe(write))).await.unwrap();
                transaction.commit().await.unwrap();
                if let Some(guard) = guard {
                    guard.release().await.unwrap();
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(number(&url, format!("SELECT n FROM {table}")).await, TASKS * ROUNDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_had_is_refused_in_words_and_aborts_nothing() {
    let url = unlike_all_others();
    let locks = connect(&url);
    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    let lease = super::connect(&super::ready().await);
    let error = lease.lock("a").acquire_in(&mut transaction).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("mode=session"), "{error}");
    let guard = locks.lock("held").acquire().await.unwrap();
    assert_eq!(guard.verify_in(&mut transaction).await.unwrap_err().kind(), ErrorKind::Config);
    let error = locks.lock("").try_acquire_in(&mut transaction).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidName);
    // Another server, and another database of one.
    let elsewhere = Postgres::start().unwrap();
    elsewhere.ask("CREATE DATABASE other TEMPLATE postgres").unwrap();
    let theirs = format!("{}?mode=session&restart_grace=off", elsewhere.url());
    let error = connect(&theirs).lock("a").acquire_in(&mut transaction).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("not of the database"), "{error}");
    let mut other = client(&theirs.replace("/postgres?", "/other?")).await;
    let mut of_other = other.begin().await.unwrap();
    let error = connect(&theirs).lock("a").acquire_in(&mut of_other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    of_other.rollback().await.unwrap();
    // None of that has aborted it.
    locks.lock("a").acquire_in(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let begin = format!("BEGIN ISOLATION LEVEL {level}");
        let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await.unwrap();
        let error = locks.lock("a").acquire_in(&mut transaction).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("READ COMMITTED"), "{error}");
        transaction.execute("SELECT").await.unwrap();
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused() {
    let server = Postgres::start().unwrap();
    let standby = server.standby().unwrap();
    standby.catch_up_with(&server).unwrap();
    let locks = connect(&format!("{}?mode=session&restart_grace=off", server.url()));
    let mut connection = client(standby.url()).await;
    let mut transaction = connection.begin().await.unwrap();
    let error = locks.lock("a").acquire_in(&mut transaction).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("replica"), "{error}");
}

/// The server ends the session of a transaction that has the lock, and a future that waits for it is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_gone_has_nothing() {
    let url = unlike_all_others();
    let locks = connect(&url);
    let (mut first, mut second) = (client(&url).await, client(&url).await);
    let pid: i32 = first.fetch_one("SELECT pg_backend_pid()").await.unwrap().get(0);
    let mut transaction = first.begin().await.unwrap();
    locks.lock("a").acquire_in(&mut transaction).await.unwrap();
    {
        let mut waiting = second.begin().await.unwrap();
        let lock = locks.lock("a");
        let dropped = tokio::time::timeout(Duration::from_millis(200), lock.acquire_in(&mut waiting)).await;
        assert!(dropped.is_err());
        waiting.rollback().await.unwrap();
    }
    run(&url, format!("SELECT pg_terminate_backend({pid})")).await;
    let guard = locks.lock("a").acquire_timeout(PROMPT).await.unwrap();
    guard.release().await.unwrap();
    assert!(transaction.commit().await.is_err());
}

/// What a crash has freed is not had before its holders know.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_costs_a_pause() {
    let server = Postgres::start().unwrap();
    let url = format!("{}?mode=session&max_ttl=2s", server.url());
    let (one, two) = (connect(&url), connect(&url));
    let guard = one.lock("a").acquire_timeout(PROMPT).await.unwrap();
    let deadline = guard.deadline().unwrap();
    server.kill().unwrap();
    server.start_again().unwrap();
    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    assert_eq!(two.lock("a").try_acquire_in(&mut transaction).await.unwrap(), None);
    let token = two.lock("a").acquire_in(&mut transaction).await.unwrap();
    assert!(deadline.has_passed() && token > guard.fencing_token());
    transaction.commit().await.unwrap();
}

/// Where a session has no lock of its own, a transaction still has.
#[tokio::test(flavor = "multi_thread")]
async fn it_works_through_a_pooler() {
    let server = Postgres::start().unwrap();
    let pooler = PgBouncer::start(&server, PoolMode::Transaction).unwrap();
    let url = format!("{}?mode=session&restart_grace=off", pooler.url());
    let locks = connect(&url);
    let through: PgConnectOptions = pooler.url().parse().unwrap();
    let mut one = PgConnection::connect_with(&through.extra_float_digits(None)).await.unwrap();
    let mut transaction = one.begin().await.unwrap();
    locks.lock("a").acquire_in(&mut transaction).await.unwrap();
    let direct = connect(&format!("{}?mode=session&restart_grace=off", server.url()));
    assert!(direct.lock("a").try_acquire().await.unwrap().is_none());
    transaction.commit().await.unwrap();
    direct.lock("a").acquire_timeout(PROMPT).await.unwrap().release().await.unwrap();
}
