//! What is particular to PostgreSQL: the schema that a set-up makes, and databases.

use std::process::Command;

use crate::stores::{ABORT, BLOCK, Kind, Store};
use crate::support::{assert_one_line, output, text};
use crate::ttl;

#[test]
fn a_new_database_needs_no_set_up() {
    let store = Store::new(Kind::Postgres);
    let first = output(&mut store.under(ABORT, &[], &["echo", "it ran"]));
    assert_eq!((first.status.code(), text(&first.stdout)), (Some(0), "it ran\n"), "{first:?}");
}

#[test]
fn the_statements_of_a_set_up_can_be_had_before() {
    let store = Store::new(Kind::Postgres);
    let printed = store.locks(["setup", "--print"]);
    assert_eq!((printed.status.code(), text(&printed.stderr)), (Some(0), ""), "{printed:?}");
    let statements = text(&printed.stdout);
    assert!(statements.contains("CREATE UNLOGGED TABLE") && statements.contains("cli_"), "{statements}");
    // And nothing was done: a role that may make nothing finds nothing.
    let would = store.locks(["setup", "--print", "--json"]);
    assert!(!text(&would.stdout).contains("\"would\":\"nothing\""), "{would:?}");
    for done in ["ready", "nothing"] {
        let set_up = store.locks(["setup", "--json"]);
        assert_eq!(set_up.status.code(), Some(0), "{set_up:?}");
        assert!(text(&set_up.stdout).contains("\"done\":"), "{done}: {set_up:?}");
    }
    let free = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(free.status.code(), Some(0), "{free:?}");
}

#[test]
fn a_database_that_is_not_there_is_a_usage_error() {
    let store = Store::new(Kind::Postgres);
    let url = store.url().replace("/postgres?", "/nowhere?");
    let refused = output(Command::new(BLOCK).env("LOCKS_URL", &url).args(["-w", "5", "true"]));
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    assert_one_line("lock-block", &refused.stderr, &["no such database", "nowhere"]);
}

#[test]
fn whoever_was_set_up_otherwise_is_told() {
    ttl::whoever_was_set_up_otherwise_is_told(Kind::Postgres);
}

#[test]
fn a_wrong_login_is_69_and_never_shown() {
    ttl::a_wrong_login_is_69_and_never_shown(Kind::Postgres);
}
