//! A database that may have forgotten its grants grants nothing until they have expired.

use std::time::{Duration, Instant};

use locks_api::{Busy, FencingToken, Locks, LossReason};
use locks_test_servers::Postgres;

use super::{PROMPT, connect, make_ready, number, pause, ready, run, schema_of, server};

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_table_costs_a_grace_and_says_how_to_end_it() {
    let url = ready().await;
    let (locks, other) = (connect(&url), connect(&url));
    let guard = locks.lock("a").ttl(Duration::from_secs(4)).acquire().await.unwrap();
    let deadline = guard.deadline().unwrap();
    let schema = schema_of(&url);
    run(&url, format!("TRUNCATE {schema}.epoch, {schema}.lock, {schema}.hold, {schema}.wait")).await;
    let error = other.lock("a").acquire_timeout(Duration::from_secs(1)).await.unwrap_err();
    let Some(Busy::Grace { remaining }) = error.busy() else { panic!("{error:?}") };
    assert!(*remaining <= Duration::from_secs(4));
    assert!(error.to_string().contains("locks setup"), "{error}");
    let reason = tokio::time::timeout(PROMPT, guard.lost()).await.unwrap();
    assert_eq!(reason, LossReason::StoreReset);
    let next = other.lock("a").acquire_timeout(PROMPT).await.unwrap();
    assert!(deadline.has_passed(), "granted while the forgotten holder could still rely on it");
    assert!(next.fencing_token() > guard.fencing_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_ends_a_grace() {
    let url = ready().await;
    let schema = schema_of(&url);
    run(&url, format!("DELETE FROM {schema}.epoch")).await;
    let locks = connect(&url);
    assert!(locks.lock("a").try_acquire().await.unwrap().is_none());
    make_ready(&url).await.unwrap();
    assert!(locks.lock("a").try_acquire().await.unwrap().is_some());
}

/// An epoch record that was written by a restore and not by us is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_record_is_another_epoch() {
    let url = ready().await;
    let (locks, other) = (connect(&url), connect(&url));
    let schema = schema_of(&url);
    let guard = locks.lock("a").ttl(Duration::from_secs(2)).acquire().await.unwrap();
    run(
        &url,
        format!(
            "CREATE TABLE {schema}.copy AS SELECT * FROM {schema}.epoch; DELETE FROM {schema}.epoch; \
             INSERT INTO {schema}.epoch SELECT * FROM {schema}.copy"
        ),
    )
    .await;
    let error = other.lock("b").acquire_timeout(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error.busy(), Some(Busy::Grace { .. })), "{error}");
    // What is still known lives on.
    pause(Duration::from_secs(4)).await;
    assert!(guard.is_held());
    guard.release().await.unwrap();
    other.lock("b").acquire_timeout(PROMPT).await.unwrap().release().await.unwrap();
}

/// A dump carries the rows of unlogged tables, and with them grants that were given back since.
#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restored_elsewhere_grants_nothing_twice() {
    let url = ready().await;
    let schema = schema_of(&url).to_owned();
    let locks = connect(&url);
    let old = locks.lock("a").ttl(Duration::from_secs(4)).acquire().await.unwrap();
    let own = Postgres::start().unwrap();
    // The server runs the programs, and so they are there wherever it is.
    let (from, to) = (server().url(), own.url());
    let copy = format!("pg_dump -n {schema} -d {from} >dump && psql -q -v ON_ERROR_STOP=1 -d {to} -f dump");
    own.ask(&format!("COPY (SELECT '') TO PROGRAM '{copy}'")).unwrap();
    let restored = format!("{}?max_ttl=4s&schema={schema}", own.url());
    let there = connect(&restored);
    let error = there.lock("b").acquire_timeout(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error.busy(), Some(Busy::Grace { .. })), "{error}");
    let next = there.lock("a").acquire_timeout(PROMPT).await.unwrap();
    assert!(next.fencing_token() > old.fencing_token());
}

/// How often a server is brought down: more with `LOCKS_TEST_CRASHES`.
fn crashes() -> u32 {
    std::env::var("LOCKS_TEST_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_over_servers_killed() {
    over_crashes(|server, _| {
        server.kill().unwrap();
        server.start_again().unwrap();
    })
    .await;
}

/// The kill of one server process makes the others go down and empties the unlogged tables, with the start of the server unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_over_one_process_killed() {
    over_crashes(|server, backend| server.kill_one_backend(backend).unwrap()).await;
}

/// Takes a lock in turns while the server crashes again and again: no two at once, tokens grow, and it goes on.
async fn over_crashes(crash: impl Fn(&Postgres, u32)) {
    let own = Postgres::start().unwrap();
    let url = format!("{}?max_ttl=1s&schema=locks", own.url());
    make_ready(&url).await.unwrap();
    let crowd = std::sync::Arc::new(Crowd::default());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let locks = Locks::builder(locks_backend_postgres::PostgresBackend::from_url(&url).unwrap())
            .store_timeout(Duration::from_secs(60))
            .build();
        tasks.spawn(std::sync::Arc::clone(&crowd).take_turns(locks));
    }
    for round in 0..crashes() {
        let goal = crowd.grants() + 20;
        let until = Instant::now() + PROMPT * 2;
        while crowd.grants() < goal {
            assert!(Instant::now() < until, "nobody goes on after crash {round}");
            pause(Duration::from_millis(5)).await;
        }
        let backend =
            number(&url, "SELECT pid::bigint FROM pg_stat_activity WHERE application_name = 'locks' LIMIT 1")
                .await;
        crash(&own, u32::try_from(backend).unwrap());
    }
    let goal = crowd.grants() + 20;
    let until = Instant::now() + PROMPT * 2;
    while crowd.grants() < goal {
        assert!(Instant::now() < until, "nobody goes on after the last crash");
        pause(Duration::from_millis(5)).await;
    }
    tasks.abort_all();
    crowd.check();
}

#[derive(Default)]
struct Crowd(std::sync::Mutex<Turns>);

#[derive(Default)]
struct Turns {
    grants: u32,
    last: Option<FencingToken>,
    wrong: Vec<String>,
}

impl Crowd {
    fn grants(&self) -> u32 {
        self.0.lock().unwrap().grants
    }

    async fn take_turns(self: std::sync::Arc<Self>, locks: Locks) {
        loop {
            let lock = locks.lock("contested").ttl(Duration::from_secs(1));
            let Ok(guard) = lock.acquire_timeout(PROMPT * 2).await else { continue };
            let token = guard.fencing_token();
            {
                let mut turns = self.0.lock().unwrap();
                turns.grants += 1;
                // One that is held now was granted after every other that was ever seen held.
                if guard.is_held() {
                    if turns.last.is_some_and(|last| last >= token) {
                        let last = turns.last;
                        turns.wrong.push(format!("{token} is held after {last:?}"));
                    }
                    turns.last = Some(token);
                }
            }
            pause(Duration::from_millis(5)).await;
            let still = guard.is_held();
            {
                let mut turns = self.0.lock().unwrap();
                if still && guard.is_held() && turns.last.is_some_and(|last| last > token) {
                    let last = turns.last;
                    turns.wrong.push(format!("{token} is still held beside {last:?}"));
                }
            }
            drop(guard.release().await);
        }
    }

    fn check(&self) {
        let turns = self.0.lock().unwrap();
        assert!(turns.wrong.is_empty(), "{:?}", turns.wrong);
    }
}
