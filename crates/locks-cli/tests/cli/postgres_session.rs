//! PostgreSQL's `mode=session`: what holds as on stores with a ttl, and what does not, since a lock ends with the connection of its holder.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::stores::{ABORT, BLOCK, Kind, Store};
use crate::support::{Process, UNTIL_EOF, alive_in, assert_one_line, eventually, output, text};
use crate::{loss, ttl};

/// Tests of all stores that hold here, too.
macro_rules! as_on_each_store {
    ($($of:ident::$test:ident,)*) => {
        $(#[test] fn $test() { $of::$test(Kind::PostgresSession); })*
    };
}

as_on_each_store! {
    ttl::a_lock_that_is_lost_ends_the_command,
    ttl::a_signal_ends_the_wait_and_leaves_no_place_in_the_queue,
    ttl::a_ttl_out_of_limits_is_a_usage_error,
    ttl::a_server_that_accepts_and_never_answers_is_69,
    ttl::nothing_has_to_be_collected,
    loss::a_stopped_wrapper_loses_its_command_before_the_lock,
    loss::a_wrapper_that_is_stopped_for_a_moment_and_its_command_go_on,
    loss::a_guardian_that_is_killed_during_the_wait_is_followed_by_another,
    loss::a_stopped_guardian_or_command_changes_nothing,
    loss::a_paused_server_ends_the_command_before_the_deadline,
    loss::a_server_that_is_gone_ends_the_command,
    loss::a_cut_network_ends_the_command_before_somebody_else_has_the_lock,
    loss::a_command_that_minds_term_may_clean_up,
    loss::whoever_wants_to_goes_on_without_the_lock,
    loss::what_the_command_leaves_in_its_group_is_ended_before_the_lock_is_given_back,
}

/// What is known of a holder is what its session is called: no command and no time.
#[test]
fn two_processes_exclude_each_other() {
    let store = Store::ready(Kind::PostgresSession);
    let holder = Process::start_up(&mut store.under(BLOCK, &[], &UNTIL_EOF));
    for (tool, options) in [(ABORT, &[][..]), (BLOCK, &["-w", "0.3"])] {
        let busy = output(&mut store.under(tool, options, &["echo", "it ran"]));
        assert_eq!((busy.status.code(), text(&busy.stdout)), (Some(75), ""), "{busy:?}");
        let name = if tool == ABORT { "lock-abort" } else { "lock-block" };
        assert_one_line(name, &busy.stderr, &["\"n\"", &format!("held by pid {} on ", holder.pid)]);
    }
    assert_eq!(holder.end().code(), Some(1)); // of `read` at the end of its input
    let free = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(free.status.code(), Some(0), "{free:?}");
}

#[test]
fn a_wrong_login_is_69_and_never_shown() {
    let store = Store::new(Kind::PostgresSession);
    let url = store.url_for("nobody_of_this_name:geheim");
    for (tool, program) in [("lock-abort", ABORT), ("lock-block", BLOCK)] {
        let refused = output(Command::new(program).env("LOCKS_URL", &url).arg("true"));
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(69), ""), "{refused:?}");
        assert_one_line(tool, &refused.stderr, &["login"]);
        assert!(!text(&refused.stderr).contains("geheim"), "{refused:?}");
    }
}

/// Its session ends with it, long before a ttl has passed. The command is killed by the kernel then, which takes a moment, too: who comes first nobody promises.
#[test]
fn the_lock_of_a_killed_wrapper_is_free_at_once_and_its_command_is_gone() {
    let store = Store::ready(Kind::PostgresSession);
    let script = "trap '' TERM; echo up; echo $$; echo $LOCK_FENCING_TOKEN; sleep 600 & wait; sleep 600";
    let holder = Process::start_up(&mut store.under(BLOCK, &["--ttl", "15"], &["sh", "-c", script]));
    let command = Pid::from_raw(holder.line().parse().unwrap());
    let token: u64 = holder.line().parse().unwrap();
    let next = Process::start(&mut store.under(BLOCK, &["-v"], &["sh", "-c", "echo $LOCK_FENCING_TOKEN"]));
    assert!(next.stderr_line().contains("waiting"));
    let killed = Instant::now();
    holder.signal(Signal::SIGKILL);
    assert!(next.line().parse::<u64>().unwrap() > token);
    assert!(killed.elapsed() < Duration::from_secs(10), "free after {:?}", killed.elapsed());
    assert_eq!(next.wait().code(), Some(0));
    eventually("the command is gone", || alive_in(command).is_empty());
}

#[test]
fn there_is_nothing_to_set_up() {
    let store = Store::new(Kind::PostgresSession);
    for arguments in [["setup", "--print"], ["setup", "--json"]] {
        let said = store.locks(arguments);
        assert_eq!((said.status.code(), text(&said.stderr)), (Some(0), ""), "{said:?}");
    }
    let first = output(&mut store.under(ABORT, &[], &["echo", "it ran"]));
    assert_eq!((first.status.code(), text(&first.stdout)), (Some(0), "it ran\n"), "{first:?}");
}

/// What the store can't do is said in words, before a command has run.
#[test]
fn kinds_and_looks_that_it_does_not_offer_are_refused() {
    let store = Store::ready(Kind::PostgresSession);
    for options in [&["--shared"][..], &["--permits", "2"], &["--once-per", "1h"], &["--min-hold", "1s"]] {
        let refused = output(&mut store.under(BLOCK, options, &["echo", "it ran"]));
        assert_eq!(
            (refused.status.code(), text(&refused.stdout)),
            (Some(69), ""),
            "{options:?}: {refused:?}"
        );
        assert_one_line("lock-block", &refused.stderr, &["does not offer"]);
    }
    for arguments in [["status", "n"], ["list", ""]] {
        let refused = store.locks(arguments);
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(69), ""), "{refused:?}");
        assert_one_line("locks", &refused.stderr, &["does not offer"]);
    }
}
