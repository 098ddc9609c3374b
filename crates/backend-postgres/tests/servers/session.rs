//! Locks that are advisory locks of a session.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use locks_api::{Busy, ErrorKind, Locks, LossReason};
use locks_backend_postgres::sqlx::postgres::PgListener;
use locks_backend_postgres::sqlx::{AssertSqlSafe, Connection as _, Executor as _, raw_sql};
use locks_backend_postgres::{AcquireIn as _, PostgresSessionBackend};
use locks_test_servers::{PgBouncer, PoolMode, Postgres};

use super::{PROMPT, client, fresh, number, pause, run, server};

/// In the shared server, with keys that nobody else has.
pub(super) fn unlike_all_others() -> String {
    format!("{}?mode=session&max_ttl=4s&restart_grace=off&schema={}", server().url(), fresh())
}

pub(super) fn connect(url: &str) -> Locks {
    Locks::builder(PostgresSessionBackend::from_url(url).unwrap()).store_timeout(PROMPT).build()
}

/// How many advisory locks our sessions have on this server.
const HELD: &str = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
    WHERE locktype = 'advisory' AND application_name LIKE 'locks %'";

/// The key of a name in SQL, as the documentation has it.
fn key(url: &str, name: &str) -> String {
    let schema = super::schema_of(url);
    format!(
        "('x' || encode(substr(sha256(convert_to(E'{schema}\\n\\n{name}', 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint"
    )
}

const VICTIM: &str = "LOCKS_TEST_SESSION_VICTIM";

/// Takes a lock and waits to be killed, in a process of its own.
#[tokio::test]
#[ignore = "the other process of another test"]
async fn a_holder_to_be_killed() {
    let Ok(url) = std::env::var(VICTIM) else { return };
    let locks = connect(&url);
    let guard = locks.lock("a").acquire().await.unwrap();
    eprintln!("\nheld {}", guard.fencing_token());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_killed_holder_is_free_at_once() {
    let url = unlike_all_others();
    let locks = connect(&url);
    locks.lock("warm-up").acquire().await.unwrap().release().await.unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["session::a_holder_to_be_killed", "--exact", "--ignored", "--nocapture"])
        .env(VICTIM, &url)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(victim.stderr.take().unwrap()).lines().map(Result::unwrap);
    let held = said.find(|line| line.starts_with("held")).unwrap();
    let token: u64 = held.split(' ').nth(1).unwrap().parse().unwrap();
    let error = locks.lock("a").acquire_timeout(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.busy().and_then(Busy::holder).and_then(|by| by.pid), Some(victim.id()), "{error}");
    let lock = locks.lock("a");
    let waiting = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    victim.kill().unwrap();
    let killed = Instant::now();
    let guard = waiting.await.unwrap().unwrap();
    assert!(killed.elapsed() < Duration::from_secs(2), "free after {:?}", killed.elapsed());
    assert!(guard.fencing_token().get() > token);
    victim.wait().unwrap();
}

/// Whoever waits has no snapshot meanwhile, neither in a session of ours nor in a transaction of the user's.
#[tokio::test(flavor = "multi_thread")]
async fn waiters_do_not_hold_up_an_index_that_is_built_concurrently() {
    let url = unlike_all_others();
    let table = fresh();
    run(&url, format!("CREATE TABLE {table} AS SELECT generate_series(1, 1000) AS n")).await;
    let (one, two) = (connect(&url), connect(&url));
    let guard = one.lock("migrate").acquire().await.unwrap();
    let lock = two.lock("migrate");
    let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    let lock = two.lock("migrate");
    let mut connection = client(&url).await;
    let transaction = tokio::spawn(async move {
        let mut transaction = connection.begin().await.unwrap();
        lock.acquire_in(&mut transaction).await.unwrap();
        transaction.rollback().await.unwrap();
    });
    pause(Duration::from_millis(300)).await;
    let index = |name: &str| format!("CREATE INDEX CONCURRENTLY {table}_{name} ON {table} (n)");
    tokio::time::timeout(PROMPT, run(&url, index("ours"))).await.expect("the waiters hold it up");
    assert!(!waiter.is_finished() && !transaction.is_finished());
    // What others do: one statement waits, with a snapshot, and so the holder can't go on.
    let mut theirs = client(&url).await;
    let blocking = format!("SELECT pg_advisory_lock({})", key(&url, "migrate"));
    let blocked =
        tokio::spawn(async move { theirs.execute(raw_sql(AssertSqlSafe(blocking))).await.map(drop) });
    pause(Duration::from_millis(300)).await;
    let build = run(&url, index("theirs"));
    assert!(tokio::time::timeout(Duration::from_secs(1), build).await.is_err(), "it would have been no trap");
    guard.release().await.unwrap();
    blocked.await.unwrap().unwrap();
    waiter.await.unwrap().unwrap().release().await.unwrap();
    transaction.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_and_no_more() {
    let server = Postgres::start().unwrap();
    let url = format!("{}?mode=session&restart_grace=off", server.url());
    let locks = connect(&url);
    let mut guards = Vec::new();
    for n in 0..1000 {
        guards.push(locks.lock(format!("n/{n}")).acquire().await.unwrap());
    }
    let error = locks.lock("one more").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreFull);
    assert!(error.to_string().contains("1000 locks") && error.to_string().contains("mode=lease"), "{error}");
    guards.pop().unwrap().release().await.unwrap();
    guards.push(locks.lock("one more").acquire().await.unwrap());
    assert_eq!(number(&url, HELD).await, 2000);
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'locks %'";
    assert_eq!(number(&url, ours).await, 1, "more than one connection");
    // Nor does one come of waiting.
    let other = connect(&url);
    let wanted = other.lock("wanted").acquire().await.unwrap();
    guards.pop().unwrap().release().await.unwrap();
    let lock = locks.lock("wanted");
    let waiting = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    let until = Instant::now() + PROMPT;
    while number(&url, BELLS).await < 2 {
        assert!(Instant::now() < until, "nobody waits");
        pause(Duration::from_millis(5)).await;
    }
    guards.push(locks.lock("one more").acquire().await.unwrap());
    wanted.release().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::StoreFull);
    assert_eq!(number(&url, HELD).await, 2000);
    drop(guards);
    locks.close().await.unwrap();
    other.close().await.unwrap();
    assert_eq!(number(&url, HELD).await, 0);
}

/// An advisory lock outlives the statement that fails after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_lock_table_is_told_and_leaves_nothing_behind() {
    let small = Postgres::options().config("max_connections", "10").config("max_locks_per_transaction", "10");
    let server = small.start().unwrap();
    let url = format!("{}?mode=session&restart_grace=off", server.url());
    let locks = connect(&url);
    let mut guards = Vec::new();
    let error = loop {
        let mut wanted = tokio::task::JoinSet::new();
        for n in 0..7 {
            let lock = locks.lock(format!("n/{}/{n}", guards.len()));
            wanted.spawn(async move { lock.acquire().await });
        }
        let got = wanted.join_all().await;
        let failed = got.iter().find_map(|got| got.as_ref().err().cloned());
        guards.extend(got.into_iter().flatten());
        if let Some(error) = failed {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::StoreFull, "{error}");
    assert!(guards.iter().all(|guard| guard.is_held()), "the failure of one has cost others");
    let held = i64::try_from(guards.len()).unwrap() * 2;
    assert!(held > 100);
    for guard in guards {
        guard.release().await.unwrap();
    }
    assert_eq!(number(&url, HELD).await, 0);
    locks.lock("a").acquire().await.unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_the_same_key_are_reported() {
    let url = unlike_all_others();
    let (one, two) = (connect(&url), connect(&url));
    let guard = one.lock("a").acquire().await.unwrap();
    let key = number(&url, format!("SELECT {}", key(&url, "a"))).await;
    let same = format!("pg_advisory_lock({key})");
    let error = one.lock(&same).try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("same key as \"a\""), "{error}");
    let error = two.lock(&same).acquire_timeout(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("another name with the same key"), "{error}");
    guard.release().await.unwrap();
    two.lock(&same).acquire_timeout(PROMPT).await.unwrap().release().await.unwrap();
}

/// Other programs take part, by the key of a name or by a name that says which key.
#[tokio::test(flavor = "multi_thread")]
async fn programs_that_know_nothing_of_us_take_part() {
    let url = unlike_all_others();
    let locks = connect(&url);
    let mut psql = client(&format!("{}?application_name=nightly", url.split('?').next().unwrap())).await;
    psql.execute("SET application_name = 'nightly job'").await.unwrap();
    let by_key = key(&url, "reports");
    for (name, key) in [("reports", by_key.as_str()), ("pg_advisory_lock(4711)", "4711")] {
        let sql = |call: &str| AssertSqlSafe(format!("SELECT {call}({key})"));
        psql.execute(raw_sql(sql("pg_advisory_lock"))).await.unwrap();
        let error = locks.lock(name).acquire_timeout(Duration::ZERO).await.unwrap_err();
        assert!(error.to_string().contains("nightly job"), "{error}");
        psql.execute(raw_sql(sql("pg_advisory_unlock"))).await.unwrap();
        let guard = locks.lock(name).acquire_timeout(PROMPT).await.unwrap();
        let free = number(&url, format!("SELECT pg_try_advisory_lock({key})::integer::bigint")).await;
        assert_eq!(free, 0, "{name} is held and another program has it");
        guard.release().await.unwrap();
        // It is asked who holds a lock no more often than that.
        pause(Duration::from_millis(300)).await;
    }
}

/// Which the pool of the client would not say.
#[tokio::test(flavor = "multi_thread")]
async fn why_a_server_can_not_be_reached_is_said() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://postgres@{}/postgres?mode=session", nobody.local_addr().unwrap());
    drop(nobody);
    let locks = Locks::builder(PostgresSessionBackend::from_url(&url).unwrap());
    let locks = locks.store_timeout(Duration::from_millis(10)).build();
    let error = locks.lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn poolers_are_refused_in_words() {
    let server = Postgres::start().unwrap();
    for mode in [PoolMode::Transaction, PoolMode::Session] {
        let plain = PgBouncer::start(&server, mode).unwrap();
        let lenient = PgBouncer::options().config("ignore_startup_parameters", "options,extra_float_digits");
        let lenient = lenient.start(&server, mode).unwrap();
        for pooler in [plain, lenient] {
            let locks = connect(&format!("{}?mode=session&restart_grace=off", pooler.url()));
            let error = locks.lock("a").try_acquire().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains("a pooler is between"), "{error}");
        }
    }
}

/// The server ends the session: all that was held in it is lost at that moment, and comes back to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_session_is_the_end_of_its_locks() {
    let url = unlike_all_others();
    let (one, two) = (connect(&url), connect(&url));
    let guards = [one.lock("a").acquire().await.unwrap(), one.lock("b").acquire().await.unwrap()];
    let holder = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND (classid::bigint << 32) + objid::bigint = {}",
        key(&url, "a")
    );
    run(&url, holder).await;
    let began = Instant::now();
    for guard in &guards {
        assert_eq!(tokio::time::timeout(PROMPT, guard.lost()).await.unwrap(), LossReason::SessionGone);
    }
    assert!(began.elapsed() < Duration::from_secs(1), "heard of it after {:?}", began.elapsed());
    let next = two.lock("a").acquire_timeout(PROMPT).await.unwrap();
    let again = one.lock("b").acquire_timeout(PROMPT).await.unwrap();
    assert!(next.fencing_token() > guards[0].fencing_token());
    assert!(guards.iter().all(|guard| !guard.is_held()) && again.is_held());
    assert!(one.lock("a").try_acquire().await.unwrap().is_none());
}

/// By then whoever waits would ask four times a second.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told() {
    let url = unlike_all_others();
    let (one, two) = (connect(&url), connect(&url));
    let mut took = Vec::new();
    for _ in 0..5 {
        let guard = one.lock("a").acquire().await.unwrap();
        let lock = two.lock("a");
        let waiting =
            tokio::spawn(async move { (lock.acquire_timeout(PROMPT).await.unwrap(), Instant::now()) });
        pause(Duration::from_millis(1_200)).await;
        let released = Instant::now();
        guard.release().await.unwrap();
        let (next, at) = waiting.await.unwrap();
        took.push(at.duration_since(released));
        next.release().await.unwrap();
    }
    took.sort();
    assert!(took[2] < Duration::from_millis(60), "{took:?}");
    // Nobody waits any more, and after a moment nothing says so either.
    let until = Instant::now() + PROMPT;
    while number(&url, BELLS).await > 0 {
        assert!(Instant::now() < until, "a session says that somebody waits");
        pause(Duration::from_millis(20)).await;
    }
}

/// Many who are told of one lock would ask for it all at once, and all but one in vain.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_who_wait_is_told() {
    let url = unlike_all_others();
    let holder = connect(&url);
    let key = number(&url, format!("SELECT {}", key(&url, "a"))).await.to_string();
    let mut told = PgListener::connect(url.split('?').next().unwrap()).await.unwrap();
    let channels: Vec<String> = (1..=64).map(|place| format!("locks_session_{place}")).collect();
    told.listen_all(channels.iter().map(String::as_str)).await.unwrap();
    let mut guard = holder.lock("a").acquire().await.unwrap();
    let (got, mut gets) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..8 {
        let (lock, got) = (connect(&url).lock("a"), got.clone());
        tokio::spawn(async move { got.send(lock.acquire_timeout(PROMPT).await.unwrap()).unwrap() });
    }
    for waiters in (1..=8).rev() {
        let bells = format!(
            "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND pid IN \
             (SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'locks %') AND {}",
            is_bell(&url, "a")
        );
        let until = Instant::now() + PROMPT;
        while number(&url, &bells).await < waiters {
            assert!(Instant::now() < until, "fewer than {waiters} sessions say that they wait");
            pause(Duration::from_millis(5)).await;
        }
        guard.release().await.unwrap();
        guard = gets.recv().await.unwrap();
        // What was said before that is here before it.
        told.execute(raw_sql(AssertSqlSafe(format!("NOTIFY locks_session_1, 'end {waiters}'"))))
            .await
            .unwrap();
        let mut heard = 0;
        loop {
            let message = told.recv().await.unwrap();
            if message.payload() == format!("end {waiters}") {
                break;
            }
            heard += usize::from(message.payload() == key);
        }
        assert_eq!(heard, 1, "with {waiters} who waited");
    }
    guard.release().await.unwrap();
}

/// Whether a row of `pg_locks` is the lock that those who wait share.
fn is_bell(url: &str, name: &str) -> String {
    let bell = key(url, name).replace(", 1, 8)", ", 17, 8)");
    format!("(classid::bigint << 32) + objid::bigint = {bell}")
}

/// How many of our sessions say that somebody waits. Other tests may.
const BELLS: &str = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND mode = 'ShareLock' \
    AND application_name LIKE 'locks %'";

/// What a database or a role has set makes no session of ours end sooner.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_role_change_nothing() {
    let server = Postgres::start().unwrap();
    let settings = ["idle_session_timeout = '500ms'", "statement_timeout = '1ms'", "tcp_user_timeout = '1s'"];
    for setting in settings {
        server.ask(&format!("ALTER ROLE postgres SET {setting}")).unwrap();
    }
    let locks = connect(&format!("{}?mode=session&max_ttl=4s&restart_grace=off", server.url()));
    let guard = locks.lock("a").acquire().await.unwrap();
    pause(Duration::from_secs(3)).await;
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

/// A standby that was up for long and is promoted now has none of the locks, and its start says nothing of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_costs_a_pause() {
    for role in ["postgres", "plain"] {
        let server = Postgres::start().unwrap();
        server.ask("CREATE ROLE plain LOGIN").unwrap();
        let standby = server.standby().unwrap();
        standby.catch_up_with(&server).unwrap();
        let url = format!("{}?mode=session&max_ttl=2s", server.url());
        let guard = connect(&url).lock("a").acquire_timeout(PROMPT).await.unwrap();
        // Nothing can be granted by it yet.
        let url =
            format!("{}?mode=session&max_ttl=2s", standby.url().replace("postgres@", &format!("{role}@")));
        let error = connect(&url).lock("a").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        pause(Duration::from_millis(2_500)).await;
        server.kill().unwrap();
        standby.promote().unwrap();
        let locks = connect(&url);
        let error = locks.lock("a").acquire_timeout(Duration::ZERO).await.unwrap_err();
        assert!(matches!(error.busy(), Some(Busy::Grace { .. })), "{error}");
        let next = locks.lock("a").acquire_timeout(PROMPT).await.unwrap();
        assert!(next.fencing_token() > guard.fencing_token());
        // Old enough: whoever comes now waits for nothing. A role that is not told when it was promoted goes by the last checkpoint.
        pause(Duration::from_secs(2)).await;
        assert!(connect(&url).lock("b").try_acquire().await.unwrap().is_some(), "{role}");
    }
}
