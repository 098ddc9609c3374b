//! How the tables come into a database, and who may use them.

use std::sync::Arc;

use locks_api::ErrorKind;
use locks_backend_postgres::sqlx::postgres::PgPoolOptions;
use locks_backend_postgres::{PostgresBackend, PostgresOptions, set_up_script};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{PROMPT, connect, fresh, make_ready, number, ready, run, schema_of, server};

#[tokio::test(flavor = "multi_thread")]
async fn many_that_race_for_the_first_use_make_the_tables_once_and_need_no_grace() {
    const RACERS: usize = 8;
    for _ in 0..5 {
        let url = format!("{}?schema={}", server().url(), fresh());
        let barrier = Arc::new(Barrier::new(RACERS));
        let mut racers = JoinSet::new();
        for _ in 0..RACERS {
            let (barrier, locks) = (Arc::clone(&barrier), connect(&url));
            racers.spawn(async move {
                barrier.wait().await;
                let guard = locks.lock("a").acquire_timeout(PROMPT).await.unwrap();
                let token = guard.fencing_token();
                guard.release().await.unwrap();
                token
            });
        }
        let mut tokens = racers.join_all().await;
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), RACERS, "a token was given twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_makes_the_same_and_is_all_that_a_role_without_rights_needs() {
    let schema = fresh();
    let role = format!("role_{schema}");
    let address = server().url().split_once('@').unwrap().1;
    let url = format!("postgres://{role}@{address}?schema={schema}");
    run(server().url(), format!("CREATE ROLE {role} LOGIN")).await;
    let error = connect(&url).lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("locks setup"), "{error}");
    run(server().url(), set_up_script(&url).unwrap().unwrap()).await;
    let error = connect(&url).lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    run(server().url(), documented_grants().replace("locks", &schema).replace("app", &role)).await;
    let (one, two) = (connect(&url), connect(&url));
    super::reach::use_all_kinds(&one, &two).await;
}

/// The statements of docs/backends/postgres.md.
fn documented_grants() -> String {
    let page = include_str!("../../../../docs/backends/postgres.md");
    let (_, rest) = page.split_once("### A role with few rights").expect("the page has the section");
    let (_, rest) = rest.split_once("```sql").expect("and a block in it");
    rest.split_once("```").expect("the block ends").0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shares_a_schema_agrees_on_it() {
    let url = ready().await;
    for other in [url.replace("max_ttl=4s", "max_ttl=5s"), format!("{url}&durable=on")] {
        let error = connect(&other).lock("a").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("max_ttl=4000ms and durable=off"), "{error}");
    }
    let prefixed = format!("{url}&prefix=p_");
    make_ready(&prefixed).await.unwrap();
    let (one, other) = (connect(&url), connect(&prefixed));
    let guards = (one.lock("a").acquire().await.unwrap(), other.lock("a").acquire().await.unwrap());
    assert!(guards.0.is_held() && guards.1.is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_later_version_are_used_only_if_they_allow_it() {
    let url = ready().await;
    let schema = schema_of(&url);
    // A program of version 2 has been here, whose tables this one still understands: a rolling upgrade.
    run(&url, format!("UPDATE {schema}.meta SET version = 2")).await;
    connect(&url).lock("a").acquire().await.unwrap().release().await.unwrap();
    run(&url, format!("UPDATE {schema}.meta SET oldest = 2")).await;
    let error = connect(&url).lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("update it"), "{error}");
    assert_eq!(number(&url, format!("SELECT version::bigint FROM {schema}.meta")).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_tables_are_logged() {
    let url = format!("{}?schema={}&durable=on", server().url(), fresh());
    make_ready(&url).await.unwrap();
    let count = format!(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = '{}' AND c.relpersistence = 'u'",
        schema_of(&url)
    );
    assert_eq!(number(&url, count).await, 0);
    let (one, two) = (connect(&url), connect(&url));
    super::reach::use_all_kinds(&one, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_lends_its_settings_and_no_connection() {
    let url = ready().await;
    let pool = PgPoolOptions::new().max_connections(1).connect(url.split('?').next().unwrap()).await.unwrap();
    // Used up.
    let taken = pool.acquire().await.unwrap();
    let options =
        PostgresOptions::default().schema(schema_of(&url)).max_ttl(std::time::Duration::from_secs(4));
    let locks = locks_api::Locks::new(PostgresBackend::from_pool(&pool, options).unwrap());
    locks.lock("a").acquire_timeout(PROMPT).await.unwrap().release().await.unwrap();
    drop(taken);
    let wrong = PostgresOptions::default().schema("No");
    assert_eq!(PostgresBackend::from_pool(&pool, wrong).unwrap_err().kind(), ErrorKind::Config);
}
