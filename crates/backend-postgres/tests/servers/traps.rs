//! What databases do that a lock must not mind.

use std::time::{Duration, Instant};

use locks_api::spi::{Attempt, Backend as _, Claim, Grant, InstanceId, Renewed};
use locks_api::{Busy, LockName, LossReason};
use locks_backend_postgres::PostgresBackend;
use locks_backend_postgres::sqlx::{AssertSqlSafe, Connection as _, Executor as _, raw_sql};

use super::{
    PROMPT, client, connect, eventually_wait, fresh, make_ready, pause, ready, run, schema_of, server,
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
    let before = super::number(&url, version.clone()).await;
    for _ in 0..20 {
        assert!(two.lock("a").try_acquire().await.unwrap().is_none());
    }
    assert_eq!(super::number(&url, version).await, before);
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
    while super::number(&url, format!("SELECT count(*) FROM {schema}.lock")).await > 1 {
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
