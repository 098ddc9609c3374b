//! Many locks and many who wait.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{PROMPT, connect, number, pause, ready, run, schema_of};

/// Ten thousand held locks are renewed by a handful of statements, and the tables stay small.
#[tokio::test(flavor = "multi_thread")]
async fn many_held_locks_stay_held() {
    const LOCKS: usize = 10_000;
    let url = ready().await;
    let locks = connect(&url);
    let mut guards = Vec::new();
    for wave in 0..20 {
        let mut taking = JoinSet::new();
        for n in 0..LOCKS / 20 {
            let lock = locks.lock(format!("held {wave} {n}")).ttl(Duration::from_secs(4));
            taking.spawn(async move { lock.acquire_timeout(PROMPT * 3).await.unwrap() });
        }
        guards.extend(taking.join_all().await);
    }
    let schema = schema_of(&url);
    let size = format!("SELECT pg_relation_size('{schema}.lock')");
    let before = number(&url, size.clone()).await;
    // Over several renewals.
    pause(Duration::from_secs(8)).await;
    let lost = guards.iter().filter(|guard| !guard.is_held()).count();
    assert_eq!(lost, 0, "{lost} of {LOCKS} were lost");
    let after = number(&url, size).await;
    assert!(after <= before * 3, "the table grew from {before} to {after} bytes");
    println!("{LOCKS} held locks: {before} bytes, {after} after renewals");
    let began = Instant::now();
    let mut giving_back = JoinSet::new();
    for guard in guards {
        giving_back.spawn(async move { guard.release().await.unwrap() });
    }
    giving_back.join_all().await;
    println!("given back in {:?}", began.elapsed());
}

/// A thousand tasks wait for a hundred locks through eight `Locks`: three connections each, and all are served.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_waiters_is_served_in_order() {
    const PROCESSES: usize = 8;
    const TASKS: usize = 125;
    const NAMES: usize = 100;
    let url = ready().await;
    let schema = schema_of(&url).to_owned();
    run(&url, format!("CREATE ROLE crowd_{schema} LOGIN SUPERUSER")).await;
    let url = url.replace("postgres@", &format!("crowd_{schema}@"));
    let processes: Vec<_> = (0..PROCESSES).map(|_| connect(&url)).collect();
    let mut tasks = JoinSet::new();
    for (at, locks) in processes.iter().enumerate() {
        for task in 0..TASKS {
            let locks = locks.clone();
            tasks.spawn(async move {
                let mut tokens = Vec::new();
                for round in 0..4 {
                    let name = format!("{}", (at + task * 7 + round * 13) % NAMES);
                    let lock = locks.lock(&name).ttl(Duration::from_secs(4));
                    let guard = lock.acquire_timeout(PROMPT * 3).await.unwrap();
                    tokens.push((name, guard.fencing_token()));
                    guard.release().await.unwrap();
                }
                tokens
            });
        }
    }
    let count = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'locks%' AND usename = 'crowd_{schema}'"
    );
    let mut most = 0;
    let mut tokens = Vec::new();
    while !tasks.is_empty() {
        most = most.max(number(&url, count.clone()).await);
        while let Some(done) = tasks.try_join_next() {
            tokens.extend(done.unwrap());
        }
        pause(Duration::from_millis(20)).await;
    }
    assert!(most <= 3 * i64::try_from(PROCESSES).unwrap(), "{most} connections");
    let all = tokens.len();
    tokens.sort();
    tokens.dedup();
    assert_eq!(
        (tokens.len(), all),
        (PROCESSES * TASKS * 4, PROCESSES * TASKS * 4),
        "a token was given twice"
    );
}
