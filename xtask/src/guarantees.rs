//! The README's table of promises, made from what the backends say of themselves.

use std::fs;
use std::time::Duration;

use locks_api::spi::{Backend, CrashRelease, Fairness, Guarantees, LossDetection, Offer, Restart, Scope};
use locks_backend_etcd::EtcdBackend;
use locks_backend_file::FileBackend;
use locks_backend_memory::MemoryBackend;
use locks_backend_postgres::{PostgresBackend, PostgresOptions};
use locks_backend_redis::{RedisBackend, RedisOptions};

use crate::markdown::with_part;
use crate::workspace::{backends, root};

/// With this variable set, the test writes the table instead of comparing it.
const UPDATE: &str = "LOCKS_UPDATE_DOCS";

#[test]
fn the_readme_promises_what_the_backends_promise() {
    let dir = tempfile::tempdir().unwrap();
    let file = FileBackend::open(dir.path().join("locks")).unwrap();
    let memory = MemoryBackend::new();
    let etcd = EtcdBackend::promises();
    let postgres = PostgresBackend::promises(&PostgresOptions::default());
    let redis = RedisBackend::promises(&RedisOptions::default());
    let all = [&etcd, file.guarantees(), memory.guarantees(), &postgres, &redis];
    let named: Vec<&str> = all.iter().map(|guarantees| guarantees.backend).collect();
    assert_eq!(named, backends().unwrap(), "a backend is missing from the table");

    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let promised = with_part(&readme, "guarantees", &table(&all)).unwrap();
    let promised = with_part(&promised, "offers", &offers(&all)).unwrap();
    if std::env::var_os(UPDATE).is_some() {
        fs::write(path, promised).unwrap();
    } else {
        assert_eq!(promised, readme, "run the tests once with {UPDATE}=1");
    }
}

fn table(all: &[&Guarantees]) -> String {
    let mut table = String::from(
        "| backend | a lock holds across | a dead holder's lock is free | between processes | a lost lock | expiry | a restart of the store |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for guarantees in all {
        let name = guarantees.backend;
        let cells = [
            format!("[{name}](docs/backends/{name}.md)"),
            scope(guarantees.scope).to_owned(),
            crash_release(guarantees.crash_release).to_owned(),
            fairness(guarantees).to_owned(),
            loss(guarantees).to_owned(),
            guarantees.ttl.map_or_else(|| "none".to_owned(), |limits| expiry(limits.default)),
            restart(guarantees.restart).to_owned(),
        ];
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    table
}

/// One row for each offer, one column for each backend.
fn offers(all: &[&Guarantees]) -> String {
    let row = |first: &str, cells: Vec<&str>| format!("| {first} | {} |\n", cells.join(" | "));
    let mut table = row("", all.iter().map(|guarantees| guarantees.backend).collect());
    table.push_str(&row("---", all.iter().map(|_| ":---:").collect()));
    for offer in Offer::ALL {
        let cell = |guarantees: &&Guarantees| if guarantees.offers.has(offer) { "yes" } else { "–" };
        table.push_str(&row(&offer.to_string(), all.iter().map(cell).collect()));
    }
    table
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Process => "the tasks and threads of a process",
        Scope::Host => "the processes of a machine",
        Scope::Cluster => "all machines that reach the store",
        other => panic!("no words for {other:?}"),
    }
}

fn crash_release(crash_release: CrashRelease) -> &'static str {
    match crash_release {
        CrashRelease::AtOnce => "at once",
        CrashRelease::AfterTtl => "when its ttl has passed",
        other => panic!("no words for {other:?}"),
    }
}

fn fairness(guarantees: &Guarantees) -> &'static str {
    match guarantees.fairness {
        _ if guarantees.scope == Scope::Process => "–",
        Fairness::Fifo => "first come, first served",
        Fairness::Near => "nearly first come, first served",
        Fairness::None => "in no order",
        other => panic!("no words for {other:?}"),
    }
}

fn loss(guarantees: &Guarantees) -> &'static str {
    match guarantees.loss {
        LossDetection::None => "can't happen while its process lives",
        LossDetection::AtDeadline => "is told at its deadline",
        LossDetection::Pushed if guarantees.ttl.is_none() => "can only be broken, and is told at once",
        LossDetection::Pushed => "is told by the store, at its deadline at the latest",
        other => panic!("no words for {other:?}"),
    }
}

fn expiry(default: Duration) -> String {
    format!("{} s unless renewed", default.as_secs_f64())
}

fn restart(restart: Restart) -> &'static str {
    match restart {
        Restart::FreesAll => "ends all holders too",
        Restart::Keeps => "changes nothing",
        Restart::Grace => "is followed by a grace period without grants",
        other => panic!("no words for {other:?}"),
    }
}
