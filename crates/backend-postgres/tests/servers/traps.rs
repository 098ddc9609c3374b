//! What databases do that a lock must not mind.

use std::time::{Duration, Instant};

use locks_api::spi::{Attempt, Backend as _, Claim, Grant, InstanceId, Renewed};
use locks_api::{Busy, LockName, Locks, LossReason};
use locks_backend_postgres::sqlx::{AssertSqlSafe, Connection as _, Executor as _, raw_sql};
use locks_backend_postgres::{PostgresBackend, VerifyIn as _};

use super::{
    PROMPT, client, connect, eventually_wait, fresh, make_ready, number, pause, ready, run, schema_of, server,
};

/// A process that takes steps by itself.
struct Process {
    backend: PostgresBackend,
    instance: InstanceId,
}

impl Process {
    fn new(url: &str) -> Self {
        Self { backend: PostgresBackend::from_url(url).unwrap(), instance: InstanceId::random() }
    }

    fn claim(&self, name: &str) -> Claim {
        Claim::new(LockName::new(name).unwrap(), self.instance).with_ttl(Duration::from_secs(1))
    }

    async fn acquire(&self, claim: &Claim) -> Attempt {
        self.backend.acquire(std::slice::from_ref(claim)).await.unwrap().remove(0).unwrap()
    }

    async fn granted(&self, claim: &Claim) -> Grant {
        match self.acquire(claim).await {
            Attempt::Granted(grant) => grant,
            other => panic!("not granted: {other:?}"),
        }
    }
}

/// Whoever waits for a row sees it as it is then, and the clock as well: a renewal that waited past the end renews nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_had_to_wait_past_the_end_is_none() {
    let url = ready().await;
    let one = Process::new(&url);
    let schema = schema_of(&url);
    for round in 0..10 {
        let grant = one.granted(&one.claim(&format!("{round}"))).await;
        let granted_at = Instant::now();
        // Its connection is made.
        assert!(matches!(
            one.backend.renew(std::slice::from_ref(&grant)).await.unwrap()[..],
            [Renewed::Extended(_)]
        ));
        let renewed_at = Instant::now();
        let mut connection = client(&url).await;
        let mut transaction = connection.begin().await.unwrap();
        let row = format!("SELECT FROM {schema}.lock WHERE name = '{round}' FOR UPDATE");
        pause(Duration::from_millis(950).saturating_sub(renewed_at.elapsed())).await;
        transaction.execute(raw_sql(AssertSqlSafe(row))).await.unwrap();
        let grants = [grant];
        let (renewed, ()) = tokio::join!(one.backend.renew(&grants), async {
            pause(Duration::from_millis(1_060).saturating_sub(renewed_at.elapsed())).await;
            transaction.commit().await.unwrap();
        });
        match renewed.unwrap()[..] {
            [Renewed::Lost(LossReason::Expired)] => {}
            // On a machine that is slow the other way round it was still in time, or it never was.
            [Renewed::Extended(_)] if granted_at.elapsed() > Duration::from_secs(2) => {}
            [other] => panic!("{other:?} after {:?}", renewed_at.elapsed()),
            _ => panic!("not one answer"),
        }
    }
}

/// The row of a lock that somebody has locked costs that lock alone, and a renewal of it no holder.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_holds_up_its_own_lock_alone() {
    let url = ready().await;
    let (one, two) = (connect(&url), connect(&url));
    let held = one.lock("a").ttl(Duration::from_secs(4)).acquire().await.unwrap();
    let other = one.lock("b").ttl(Duration::from_secs(1)).acquire().await.unwrap();
    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    let row = format!("SELECT FROM {}.lock WHERE name = 'a' FOR UPDATE", schema_of(&url));
    transaction.execute(raw_sql(AssertSqlSafe(row))).await.unwrap();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(two.lock("a").try_acquire().await.unwrap().is_none());
        two.lock("c").acquire().await.unwrap().release().await.unwrap();
        // Many at once travel in one statement.
        let many = (0..5).map(|n| {
            let lock = two.lock(if n == 0 { "a".to_owned() } else { format!("many {n}") });
            tokio::spawn(async move { lock.try_acquire().await })
        });
        for (n, one_of_many) in many.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(one_of_many.await.unwrap().unwrap().is_some(), n > 0);
        }
    }
    assert!(held.is_held() && other.is_held());
    transaction.rollback().await.unwrap();
    held.release().await.unwrap();
}

/// Longer than a statement waits for a row, and no longer than a step may take: whoever gives locks back hears of no trouble. So it is when hundreds get in
/// line at once, each of whom has the row for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_locked_for_a_moment_costs_no_release() {
    let url = ready().await;
    let (one, two) = (connect(&url), connect(&url));
    let hold = |name: &str| {
        let lock = one.lock(name).ttl(Duration::from_secs(4));
        async move { lock.acquire().await.unwrap() }
    };
    // It has been waited for, so it is given back by another statement.
    let awaited = hold("awaited").await;
    let next = tokio::spawn({
        let lock = two.lock("awaited");
        async move { lock.acquire().await }
    });
    eventually_wait(&one, "awaited", 1).await;
    awaited.release().await.unwrap();
    let awaited = next.await.unwrap().unwrap();
    let waits = tokio::spawn({
        let lock = one.lock("awaited");
        async move { lock.acquire().await }
    });
    eventually_wait(&one, "awaited", 1).await;
    let mut many = Vec::new();
    for number in 0..5 {
        many.push(hold(&format!("many {number}")).await);
    }
    let alone = hold("alone").await;

    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    let rows = format!("SELECT FROM {}.lock FOR UPDATE", schema_of(&url));
    transaction.execute(raw_sql(AssertSqlSafe(rows))).await.unwrap();
    let begun = Instant::now();
    let mut releases = vec![tokio::spawn(awaited.release()), tokio::spawn(alone.release())];
    releases.extend(many.into_iter().map(|guard| tokio::spawn(guard.release())));
    pause(Duration::from_millis(700).saturating_sub(begun.elapsed())).await;
    transaction.rollback().await.unwrap();
    for release in releases {
        release.await.unwrap().unwrap();
    }
    waits.await.unwrap().unwrap().release().await.unwrap();
}

/// Defaults of a role that would break locks which rely on the usual ones.
#[tokio::test(flavor = "multi_thread")]
async fn the_defaults_of_a_role_change_nothing() {
    let schema = fresh();
    let role = format!("odd_{schema}");
    let odd = [
        "default_transaction_isolation = serializable",
        "synchronous_commit = off",
        "lock_timeout = 1",
        "search_path = evil",
        "jit = on",
        "enable_indexscan = off",
        "DateStyle = 'German'",
        "TimeZone = 'Asia/Tokyo'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
    ];
    let sets: String = odd.iter().map(|setting| format!("ALTER ROLE {role} SET {setting};")).collect();
    let evil = "CREATE SCHEMA IF NOT EXISTS evil; CREATE OR REPLACE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS \
                $$ SELECT '-infinity'::timestamptz $$;";
    run(server().url(), format!("CREATE ROLE {role} LOGIN SUPERUSER; {sets} {evil}")).await;
    let url =
        format!("{}?max_ttl=4s&schema={schema}", server().url()).replace("postgres@", &format!("{role}@"));
    make_ready(&url).await.unwrap();
    super::reach::use_all_kinds(&connect(&url), &connect(&url)).await;
}

/// A crowd of tries never waits in a line of transactions, and none of them writes.
#[tokio::test(flavor = "multi_thread")]
async fn tries_that_fail_write_nothing() {
    let url = ready().await;
    let (one, two) = (connect(&url), connect(&url));
    let guard = one.lock("a").acquire().await.unwrap();
    assert!(two.lock("a").try_acquire().await.unwrap().is_none());
    let version = format!("SELECT xmax::text::bigint FROM {}.lock WHERE name = 'a'", schema_of(&url));
    let before = number(&url, version.clone()).await;
    for _ in 0..20 {
        assert!(two.lock("a").try_acquire().await.unwrap().is_none());
    }
    assert_eq!(number(&url, version).await, before);
    guard.release().await.unwrap();
}

/// What nobody has used for an hour goes, and what is in use stays.
#[tokio::test(flavor = "multi_thread")]
async fn idle_locks_are_removed_and_their_tokens_still_grow() {
    let url = ready().await;
    let locks = connect(&url);
    let schema = schema_of(&url);
    let mut tokens = Vec::new();
    for n in 0..50 {
        let guard = locks.lock(format!("idle {n}")).acquire().await.unwrap();
        tokens.push(guard.fencing_token());
        guard.release().await.unwrap();
    }
    run(&url, format!("UPDATE {schema}.lock SET since = since - 3600000001")).await;
    let other = connect(&url);
    let held = other.lock("held").ttl(Duration::from_secs(1)).acquire().await.unwrap();
    let lock = locks.lock("held");
    let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    eventually_wait(&other, "held", 1).await;
    // A renewal brings it about.
    let until = Instant::now() + PROMPT;
    while number(&url, format!("SELECT count(*) FROM {schema}.lock")).await > 1 {
        assert!(Instant::now() < until, "nothing was removed");
        pause(Duration::from_millis(50)).await;
    }
    assert!(held.is_held());
    held.release().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    for (n, token) in tokens.into_iter().enumerate() {
        let guard = locks.lock(format!("idle {n}")).acquire().await.unwrap();
        assert!(guard.fencing_token() > token);
        guard.release().await.unwrap();
    }
}

/// A minimum hold is in a logged table, so it outlives holder, process and server.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_outlives_a_crash() {
    let own = locks_test_servers::Postgres::options().config("fsync", "on").start().unwrap();
    let url = format!("{}?max_ttl=1s&schema=locks", own.url());
    make_ready(&url).await.unwrap();
    let locks = connect(&url);
    let minute = Duration::from_secs(60);
    locks
        .lock("min")
        .min_hold(minute)
        .ttl(Duration::from_secs(1))
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    let once = locks.lock("once").once_per(minute).ttl(Duration::from_secs(1)).acquire().await.unwrap();
    once.complete().await.unwrap();
    own.kill().unwrap();
    own.start_again().unwrap();
    make_ready(&url).await.unwrap();
    let one = Process::new(&url);
    for claim in [one.claim("min"), one.claim("once").with_once_per(minute)] {
        let answer = one.acquire(&claim).await;
        assert!(matches!(answer, Attempt::Busy(Busy::NotDue { .. })), "{answer:?}");
    }
}

/// The planner would read the whole of a table that was small when it planned, also when a thousand have waited there since.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_their_keys() {
    const TURNS: i64 = 50;
    let url = ready().await;
    let turns = || async {
        let locks = Locks::builder(PostgresBackend::from_url(&url).unwrap()).hand_on(false).build();
        for _ in 0..TURNS {
            locks.lock("a").acquire().await.unwrap().release().await.unwrap();
        }
        locks.close().await.unwrap();
    };
    tokio::join!(turns(), turns());
    let schema = schema_of(&url);
    let scans = |table: &str, kind: &str| {
        let tables = format!("pg_stat_user_tables WHERE schemaname = '{schema}' AND relname = '{table}'");
        number(&url, format!("SELECT {kind} FROM {tables}"))
    };
    // A connection tells what it has counted when it ends.
    let until = Instant::now() + PROMPT;
    while scans("lock", "idx_scan").await < 4 * TURNS {
        assert!(Instant::now() < until, "{} of the scans used an index", scans("lock", "idx_scan").await);
        pause(Duration::from_millis(20)).await;
    }
    for table in ["lock", "wait"] {
        // Making its indexes takes some.
        let whole = scans(table, "seq_scan").await;
        assert!(whole < 10, "{table} was read as a whole {whole} times");
    }
}

/// A release that hands the lock on sees the queue before it has the row. Whoever was taken out of the queue meanwhile is not given the lock.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_while_a_release_waited_is_passed_over() {
    let url = ready().await;
    let schema = schema_of(&url);
    let held = |locks: &Locks| locks.lock("a").ttl(Duration::from_secs(4));
    let [first, second, leaves, third] = [(); 4].map(|()| connect(&url));
    let guard = held(&first).acquire().await.unwrap();
    let mut waiters = Vec::new();
    for (nr, locks) in [&second, &leaves, &third].into_iter().enumerate() {
        let lock = held(locks);
        waiters.push(tokio::spawn(async move { lock.acquire().await }));
        eventually_wait(&first, "a", nr + 1).await;
    }
    guard.release().await.unwrap();
    // From a holder who had to wait, and who knows that others do.
    let guard = waiters.remove(0).await.unwrap().unwrap();
    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    for statement in [
        "SELECT FROM @.lock WHERE name = 'a' FOR NO KEY UPDATE",
        "DELETE FROM @.wait WHERE name = 'a' AND ticket = (SELECT min(ticket) FROM @.wait)",
        "UPDATE @.lock SET queued = true WHERE name = 'a'",
    ] {
        transaction.execute(raw_sql(AssertSqlSafe(statement.replace('@', schema)))).await.unwrap();
    }
    let blocked = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted";
    let before = guard.fencing_token();
    let (released, ()) = tokio::join!(guard.release(), async {
        let until = Instant::now() + PROMPT;
        while number(&url, blocked).await == 0 {
            assert!(Instant::now() < until, "the release waits for nobody");
            pause(Duration::from_millis(2)).await;
        }
        transaction.commit().await.unwrap();
    });
    released.unwrap();
    let next = tokio::time::timeout(PROMPT, waiters.remove(1)).await.unwrap().unwrap().unwrap();
    assert!(next.fencing_token() > before);
    assert!(!waiters[0].is_finished());
    next.release().await.unwrap();
    // It finds out when it asks again.
    tokio::time::timeout(PROMPT, waiters.remove(0)).await.unwrap().unwrap().unwrap().release().await.unwrap();
}

/// A holder who had to wait gives the lock to the next one in a short statement, which must leave alone all who want more than to hold it alone.
#[tokio::test(flavor = "multi_thread")]
async fn who_wants_more_than_to_hold_alone_gets_it_from_a_holder_who_waited_too() {
    let url = ready().await;
    let [first, second, third, fourth] = [(); 4].map(|()| connect(&url));
    // The lock of the second, who waited for it, and whoever waits behind.
    let held_by_second = async |name: &str| {
        let guard = first.lock(name).acquire().await.unwrap();
        let lock = second.lock(name);
        let waiter = tokio::spawn(async move { lock.acquire().await });
        eventually_wait(&fourth, name, 1).await;
        guard.release().await.unwrap();
        waiter.await.unwrap().unwrap()
    };

    let guard = held_by_second("rare").await;
    let lock = third.lock("rare").min_hold(Duration::from_secs(30));
    let waiter = tokio::spawn(async move { lock.acquire().await });
    eventually_wait(&fourth, "rare", 1).await;
    guard.release().await.unwrap();
    let guard = waiter.await.unwrap().unwrap();
    let lock = second.lock("rare");
    let waiter = tokio::spawn(async move { lock.acquire_timeout(Duration::from_secs(1)).await });
    eventually_wait(&fourth, "rare", 1).await;
    guard.release().await.unwrap();
    assert!(waiter.await.unwrap().is_err(), "handed on within a minimum hold");
    let refused = fourth.lock("rare").acquire_timeout(Duration::ZERO).await.unwrap_err();
    assert!(matches!(refused.busy(), Some(Busy::NotDue { .. })), "{refused}");

    let guard = held_by_second("read").await;
    let lock = third.rw_lock("read");
    let reader = tokio::spawn(async move { lock.read().await });
    eventually_wait(&fourth, "read", 1).await;
    guard.release().await.unwrap();
    let reader = reader.await.unwrap().unwrap();
    assert!(fourth.rw_lock("read").try_read().await.unwrap().is_some(), "the reader holds it alone");
    reader.release().await.unwrap();

    let guard = held_by_second("lead").await;
    let election = third.election("lead");
    let candidate = tokio::spawn(async move { election.campaign("third").await });
    eventually_wait(&fourth, "lead", 1).await;
    guard.release().await.unwrap();
    let leadership = candidate.await.unwrap().unwrap();
    let leader = fourth.election("lead").leader().await.unwrap().expect("a leader without a value");
    assert_eq!(&*leader.value, "third");
    leadership.resign().await.unwrap();

    let guard = first.lock("led").acquire().await.unwrap();
    let election = second.election("led");
    let candidate = tokio::spawn(async move { election.campaign("second").await });
    eventually_wait(&fourth, "led", 1).await;
    guard.release().await.unwrap();
    let leadership = candidate.await.unwrap().unwrap();
    let lock = third.lock("led");
    let waiter = tokio::spawn(async move { lock.acquire().await });
    eventually_wait(&fourth, "led", 1).await;
    leadership.resign().await.unwrap();
    let guard = waiter.await.unwrap().unwrap();
    assert_eq!(fourth.election("led").leader().await.unwrap().map(|leader| leader.value), None);
    guard.release().await.unwrap();

    let guard = held_by_second("relied on").await;
    let mut connection = client(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    guard.verify_in(&mut transaction).await.unwrap();
    let lock = third.lock("relied on");
    let waiter = tokio::spawn(async move { lock.acquire().await });
    eventually_wait(&fourth, "relied on", 1).await;
    guard.release().await.unwrap();
    pause(Duration::from_millis(300)).await;
    assert!(!waiter.is_finished(), "handed on beside a transaction that relies on the lock");
    transaction.commit().await.unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();

    let guard = held_by_second("gone").await;
    let schema = schema_of(&url);
    let dead = Process::new(&url);
    // The first try of a process does not queue it.
    while !matches!(dead.acquire(&dead.claim("gone").waiting()).await, Attempt::Queued { .. }) {}
    run(&url, format!("UPDATE {schema}.wait SET gone_at = 0 WHERE name = 'gone'")).await;
    guard.release().await.unwrap();
    let next = fourth.lock("gone").try_acquire().await.unwrap();
    assert!(next.is_some(), "handed to one who is gone");
}
