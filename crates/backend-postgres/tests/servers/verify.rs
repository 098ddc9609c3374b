//! Transactions of the user's that rely on a lock.

use std::time::{Duration, Instant};

use locks_api::ErrorKind;
use locks_backend_postgres::VerifyIn as _;
use locks_backend_postgres::sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, raw_sql};

use super::{PROMPT, client, connect, eventually_wait, number, pause, ready, run, schema_of};

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_the_lock_before_the_transaction_ends() {
    let url = ready().await;
    let (one, two) = (connect(&url), connect(&url));
    let guard = one.lock("a").acquire().await.unwrap();
    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    guard.verify_in(&mut transaction).await.unwrap();
    guard.verify_in(&mut transaction).await.unwrap();
    // Given back before the commit, against the advice: it is free, and yet nobody gets it.
    guard.release().await.unwrap();
    assert!(two.lock("a").try_acquire().await.unwrap().is_none());
    let lock = two.lock("a");
    let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    eventually_wait(&two, "a", 1).await;
    pause(Duration::from_millis(600)).await;
    assert!(!waiter.is_finished(), "granted while a transaction relied on the last hold");
    transaction.commit().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
}

/// An expired hold, a broken one, one that a dead process left: whatever ends it, the transaction keeps others out.
#[tokio::test(flavor = "multi_thread")]
async fn not_even_by_force_or_after_the_ttl() {
    let url = ready().await;
    let (one, two) = (connect(&url), connect(&url));
    for forced in [true, false] {
        let name = format!("{forced}");
        let guard = one.lock(&name).ttl(Duration::from_secs(1)).renew(false).acquire().await.unwrap();
        let mut connection = client(&url).await;
        let mut transaction = connection.begin().await.unwrap();
        guard.verify_in(&mut transaction).await.unwrap();
        if forced {
            assert_eq!(two.break_lock(&name).await.unwrap(), 1);
        } else {
            pause(Duration::from_millis(1_200)).await;
        }
        assert!(two.lock(&name).try_acquire().await.unwrap().is_none());
        transaction.rollback().await.unwrap();
        let next = two.lock(&name).acquire_timeout(PROMPT).await.unwrap();
        assert!(next.fencing_token() > guard.fencing_token());
        next.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_not_verified() {
    let url = ready().await;
    let (one, two) = (connect(&url), connect(&url));
    let guard = one.lock("a").acquire().await.unwrap();
    let reader = one.rw_lock("r").read().await.unwrap();
    two.break_lock("a").await.unwrap();
    two.break_lock("r").await.unwrap();
    let next = two.lock("a").acquire_timeout(PROMPT).await.unwrap();
    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    assert_eq!(guard.verify_in(&mut transaction).await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(reader.verify_in(&mut transaction).await.unwrap_err().kind(), ErrorKind::Lost);
    next.verify_in(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

/// Readers verify beside each other and keep out writers alone.
#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_keep_out_readers() {
    let url = ready().await;
    let (one, two) = (connect(&url), connect(&url));
    let (first, second) = (one.rw_lock("r").read().await.unwrap(), two.rw_lock("r").read().await.unwrap());
    let (mut a, mut b) = (client(&url).await, client(&url).await);
    let (mut a, mut b) = (a.begin().await.unwrap(), b.begin().await.unwrap());
    first.verify_in(&mut a).await.unwrap();
    second.verify_in(&mut b).await.unwrap();
    two.rw_lock("r").try_read().await.unwrap().unwrap().release().await.unwrap();
    first.release().await.unwrap();
    second.release().await.unwrap();
    assert!(one.rw_lock("r").try_write().await.unwrap().is_none());
    a.commit().await.unwrap();
    assert!(one.rw_lock("r").try_write().await.unwrap().is_none());
    b.commit().await.unwrap();
    assert!(one.rw_lock("r").try_write().await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_verified_is_refused_in_words() {
    let url = ready().await;
    let locks = connect(&url);
    let guard = locks.lock("a").acquire().await.unwrap();
    let mut connection = client(&url).await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let begin = format!("BEGIN ISOLATION LEVEL {level}");
        let mut transaction = connection.begin_with(AssertSqlSafe(begin)).await.unwrap();
        let error = guard.verify_in(&mut transaction).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("READ COMMITTED"), "{error}");
        transaction.rollback().await.unwrap();
    }
    let permit = locks.semaphore("p", 2).acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    assert_eq!(permit.verify_in(&mut transaction).await.unwrap_err().kind(), ErrorKind::Unsupported);
    transaction.rollback().await.unwrap();
    // Other tables, which have another epoch; and a database that has none.
    let other = ready().await;
    let elsewhere = connect(&other).lock("a").acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    elsewhere.verify_in(&mut transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    let empty = locks_test_servers::Postgres::start().unwrap();
    let mut connection = client(empty.url()).await;
    let mut transaction = connection.begin().await.unwrap();
    let error = guard.verify_in(&mut transaction).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("not of the database"), "{error}");
}

/// A lock inside of another, and a function that does its own transaction handling: neither is touched by what the other does.
#[tokio::test(flavor = "multi_thread")]
async fn nested_locks_and_rolled_back_transactions_do_not_touch_each_other() {
    let url = ready().await;
    let locks = connect(&url);
    run(&url, "CREATE TABLE nested (n integer)").await;
    let outer = locks.lock("outer").acquire().await.unwrap();
    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    outer.verify_in(&mut transaction).await.unwrap();
    let inner = locks.lock("inner").acquire().await.unwrap();
    inner.verify_in(&mut transaction).await.unwrap();
    transaction.execute("INSERT INTO nested VALUES (1)").await.unwrap();
    transaction.rollback().await.unwrap();
    assert!(outer.is_held() && inner.is_held(), "a rollback of the user's took a lock");
    inner.release().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    outer.verify_in(&mut transaction).await.unwrap();
    transaction.execute("INSERT INTO nested VALUES (2)").await.unwrap();
    transaction.commit().await.unwrap();
    outer.release().await.unwrap();
    assert_eq!(number(&url, "SELECT sum(n) FROM nested").await, 2);
}

/// Many read, add one and write back. With the lock given back after the commit nothing is lost, also not when holders lose their locks on the way.
#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost() {
    const TASKS: i64 = 8;
    const ROUNDS: i64 = 15;
    let url = ready().await;
    let schema = schema_of(&url).to_owned();
    run(&url, format!("CREATE TABLE {schema}.account (n bigint); INSERT INTO {schema}.account VALUES (0)"))
        .await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (url, schema) = (url.clone(), schema.clone());
        tasks.spawn(async move {
            let locks = connect(&url);
            let mut connection = client(&url).await;
            let mut done = 0;
            while done < ROUNDS {
                let guard = locks.lock("account").acquire_timeout(PROMPT).await.unwrap();
                let mut transaction = connection.begin().await.unwrap();
                if task == 0 && done % 5 == 4 {
                    // An operator takes it away.
                    locks.break_lock("account").await.unwrap();
                }
                if guard.verify_in(&mut transaction).await.is_err() {
                    transaction.rollback().await.unwrap();
                    done += i64::from(task == 0);
                    continue;
                }
                let read = format!("SELECT n FROM {schema}.account");
                let n: i64 = transaction.fetch_one(raw_sql(AssertSqlSafe(read))).await.unwrap().get(0);
                let write = format!("UPDATE {schema}.account SET n = {}", n + 1);
                transaction.execute(raw_sql(AssertSqlSafe(write))).await.unwrap();
                transaction.commit().await.unwrap();
                drop(guard.release().await);
                done += 1;
            }
        });
    }
    tasks.join_all().await;
    let taken_away = ROUNDS / 5;
    assert_eq!(number(&url, format!("SELECT n FROM {schema}.account")).await, TASKS * ROUNDS - taken_away);
}

/// Whoever sits on a verified lock holds up those who want that lock, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_holds_up_nobody_else() {
    let url = ready().await;
    let (one, two) = (connect(&url), connect(&url));
    let seconds =
        std::env::var("LOCKS_TEST_LONG_TRANSACTION").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let guard = one.lock("a").ttl(Duration::from_secs(2)).acquire().await.unwrap();
    let others = [
        one.lock("of the same process").ttl(Duration::from_secs(2)).acquire().await.unwrap(),
        two.lock("of another").ttl(Duration::from_secs(2)).acquire().await.unwrap(),
    ];
    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    guard.verify_in(&mut transaction).await.unwrap();
    let lock = two.lock("a").ttl(Duration::from_secs(2));
    let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT * 3).await });
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut rounds, mut slowest) = (0, Duration::ZERO);
    while Instant::now() < until {
        let began = Instant::now();
        one.lock("b").acquire().await.unwrap().release().await.unwrap();
        two.rw_lock("c").read().await.unwrap().release().await.unwrap();
        slowest = slowest.max(began.elapsed());
        rounds += 1;
        pause(Duration::from_millis(10)).await;
    }
    assert!(guard.is_held() && others.iter().all(|other| other.is_held()), "a renewal was held up");
    assert!(!waiter.is_finished() && rounds > 20, "{rounds} rounds");
    assert!(slowest < PROMPT / 4, "another lock took {slowest:?}");
    transaction.commit().await.unwrap();
    guard.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
}
