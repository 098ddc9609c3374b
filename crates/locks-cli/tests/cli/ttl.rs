//! What the commands promise on every store with a ttl.

use std::net::TcpListener;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::stores::{ABORT, BLOCK, Kind, LOCKS, Store, on_each_store};
use crate::support::{Process, UNTIL_EOF, assert_one_line, output, text};

on_each_store! {
    two_processes_exclude_each_other_and_tokens_grow,
    a_killed_wrapper_keeps_others_out_for_its_ttl_and_no_longer,
    a_lock_that_is_lost_ends_the_command,
    a_signal_ends_the_wait_and_leaves_no_place_in_the_queue,
    a_ttl_out_of_limits_is_a_usage_error,
    a_server_that_is_not_there_is_69_and_says_why,
    a_server_that_accepts_and_never_answers_is_69,
    who_watches_hears_early_that_the_server_is_not_there,
    kinds_schedules_and_status,
    nothing_has_to_be_collected,
    one_per_host_counts_processes_of_this_host,
}

fn token(stdout: &[u8]) -> u64 {
    text(stdout).trim().parse().unwrap()
}

pub(crate) fn two_processes_exclude_each_other_and_tokens_grow(kind: Kind) {
    let store = Store::ready(kind);
    let show = ["sh", "-c", "echo $LOCK_FENCING_TOKEN; echo $LOCK_NAME $LOCK_BACKEND >&2"];
    let first = output(&mut store.under(ABORT, &[], &show));
    assert_eq!(
        (first.status.code(), text(&first.stderr)),
        (Some(0), format!("n {}\n", kind.name()).as_str())
    );

    let holder = Process::start_up(&mut store.under(BLOCK, &[], &UNTIL_EOF));
    let who = format!("held by pid {} on ", holder.pid);
    for (tool, options, code) in [
        (ABORT, &[][..], 75),
        (ABORT, &["-E", "3"], 3),
        (BLOCK, &["-w", "0"], 75),
        (BLOCK, &["-w", "0.3"], 75),
    ] {
        let busy = output(&mut store.under(tool, options, &["echo", "it ran"]));
        assert_eq!((busy.status.code(), text(&busy.stdout)), (Some(code), ""), "{busy:?}");
        let name = if tool == ABORT { "lock-abort" } else { "lock-block" };
        assert_one_line(name, &busy.stderr, &["\"n\"", &who, "(sh)", "(since 20"]);
    }
    let waiter = Process::start(&mut store.under(BLOCK, &["-v"], &show));
    assert!(waiter.stderr_line().contains(&who));
    assert_eq!(holder.end().code(), Some(1)); // of `read` at the end of its input
    let second = waiter.line().parse::<u64>().unwrap();
    assert_eq!(waiter.wait().code(), Some(0));
    assert!(token(&first.stdout) < second);
}

fn a_killed_wrapper_keeps_others_out_for_its_ttl_and_no_longer(kind: Kind) {
    let store = Store::ready(kind);
    let command = ["sh", "-c", "echo up; echo $LOCK_FENCING_TOKEN; exec sleep 600"];
    let holder = Process::start_up(&mut store.under(BLOCK, &["--ttl", "2"], &command));
    let token_of_holder = holder.line().parse::<u64>().unwrap();
    // It is not renewed any more.
    holder.signal(Signal::SIGKILL);
    holder.wait();
    let at_once = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(at_once.status.code(), Some(75), "{at_once:?}");
    let next = output(&mut store.under(BLOCK, &[], &["sh", "-c", "echo $LOCK_FENCING_TOKEN"]));
    assert_eq!(next.status.code(), Some(0), "{next:?}");
    assert!(token(&next.stdout) > token_of_holder);
}

pub(crate) fn a_lock_that_is_lost_ends_the_command(kind: Kind) {
    let store = Store::ready(kind);
    let holder =
        Process::start_up(&mut store.under(BLOCK, &["--ttl", "2"], &["sh", "-c", "echo up; exec sleep 600"]));
    store.take_away();
    let said = holder.stderr_line();
    assert!(said.starts_with("lock-block: the lock \"n\" was lost while the command ran: "), "{said}");
    assert_eq!(holder.wait().code(), Some(79));
}

pub(crate) fn a_signal_ends_the_wait_and_leaves_no_place_in_the_queue(kind: Kind) {
    let store = Store::ready(kind);
    let holder = Process::start_up(&mut store.under(BLOCK, &[], &UNTIL_EOF));
    let waiter = Process::start(&mut store.under(BLOCK, &["-v"], &["echo", "it ran"]));
    assert!(waiter.stderr_line().contains("waiting"));
    waiter.signal(Signal::SIGTERM);
    assert_eq!(waiter.wait().code(), Some(143));
    holder.end();
    let next = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(next.status.code(), Some(0), "{next:?}");
}

pub(crate) fn a_ttl_out_of_limits_is_a_usage_error(kind: Kind) {
    let store = Store::ready(kind);
    for ttl in ["0.1", "2h"] {
        let refused = output(&mut store.under(BLOCK, &["--ttl", ttl], &["echo", "it ran"]));
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(64), ""));
        assert_one_line("lock-block", &refused.stderr, &["ttl", kind.ttls()]);
    }
}

fn a_server_that_is_not_there_is_69_and_says_why(kind: Kind) {
    // Nobody listens on it, and nobody else gets it meanwhile.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let url = format!("{}://user:geheim@127.0.0.1:{port}", kind.name());
    let set_up = output(Command::new(LOCKS).args(["setup", &url]));
    let mut refused = vec![("locks", set_up)];
    for (tool, program, options) in [("lock-abort", ABORT, &[][..]), ("lock-block", BLOCK, &["-w", "1"])] {
        let mut command = Command::new(program);
        command.env("LOCKS_URL", &url).args(options).args(["echo", "it ran"]);
        refused.push((tool, output(&mut command)));
    }
    for (tool, refused) in refused {
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(69), ""), "{refused:?}");
        assert_one_line(tool, &refused.stderr, &["no connection to ", "refused"]);
        assert!(!text(&refused.stderr).contains("geheim"));
        assert_eq!(text(&refused.stderr).matches("refused").count(), 1, "said once: {refused:?}");
    }
}

/// Taken by nobody, as far as anybody knows.
pub(crate) fn a_server_that_accepts_and_never_answers_is_69(kind: Kind) {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("{}://{}", kind.name(), mute.local_addr().unwrap());
    for options in [&["-w", "2"][..], &["-v", "-w", "2"], &["-w", "0"]] {
        let refused =
            output(Command::new(BLOCK).env("LOCKS_URL", &url).args(options).args(["--", "echo", "it ran"]));
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(69), ""), "{refused:?}");
        assert!(!text(&refused.stderr).contains("held"), "{refused:?}");
    }
}

#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn a_wrong_login_is_69_and_never_shown(kind: Kind) {
    let store = Store::ready(kind);
    let url = store.url_for("nobody_of_this_name:geheim");
    for (tool, program, arguments) in [
        ("locks", LOCKS, &["setup"][..]),
        ("lock-abort", ABORT, &["true"]),
        ("lock-block", BLOCK, &["-v", "true"]),
    ] {
        let refused = output(Command::new(program).env("LOCKS_URL", &url).args(arguments));
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(69), ""), "{refused:?}");
        assert_one_line(tool, &refused.stderr, &["login"]);
        assert!(!text(&refused.stderr).contains("geheim"), "{refused:?}");
    }
}

fn who_watches_hears_early_that_the_server_is_not_there(kind: Kind) {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("{}://{}", kind.name(), nobody.local_addr().unwrap());
    drop(nobody);
    let waiter =
        Process::start(Command::new(BLOCK).env("LOCKS_URL", url).args(["-v", "--", "echo", "it ran"]));
    let said = waiter.stderr_line();
    assert!(said.starts_with("lock-block: still trying: ") && said.contains("refused"), "{said}");
    waiter.signal(Signal::SIGINT);
    assert_eq!(waiter.wait().code(), Some(130));
}

/// The kinds, the schedule and what can be seen of it.
fn kinds_schedules_and_status(kind: Kind) {
    let store = Store::ready(kind);
    let shared = Process::start_up(&mut store.under(BLOCK, &["--shared"], &UNTIL_EOF));
    let beside = output(&mut store.under(ABORT, &["--shared"], &["true"]));
    assert_eq!(beside.status.code(), Some(0), "{beside:?}");
    let alone = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(alone.status.code(), Some(75), "{alone:?}");
    let waiter = Process::start(&mut store.under(BLOCK, &["-v"], &["echo", "mine"]));
    assert!(waiter.stderr_line().contains("waiting"));
    let json = || text(&store.locks(["status", "--json", "n"]).stdout).to_owned();
    crate::support::eventually("the waiter is in the store's queue", || json().contains("\"waiters\":[{"));
    assert!(json().contains("\"mode\":\"shared\"") && json().contains("\"remaining_ms\":"), "{}", json());
    assert!(text(&store.locks(["list"]).stdout).starts_with("\"n\" is held\n"));
    shared.end();
    assert_eq!(waiter.line(), "mine");
    assert_eq!(waiter.wait().code(), Some(0));

    let permit = Process::start_up(&mut store.under(BLOCK, &["--permits", "2"], &UNTIL_EOF));
    let second = output(&mut store.under(ABORT, &["--permits", "2"], &["true"]));
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    permit.end();

    let once = |script: &str| {
        output(&mut store.under(ABORT, &["--once-per", "1h"], &["sh", "-c", script])).status.code()
    };
    assert_eq!((once("exit 3"), once("exit 0"), once("exit 0")), (Some(3), Some(0), Some(75)));
    let quick = output(&mut store.under(ABORT, &["--min-hold", "1m"], &["true"]));
    assert_eq!(quick.status.code(), Some(0), "{quick:?}");
    let early = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(early.status.code(), Some(75), "{early:?}");
    assert_one_line("lock-abort", &early.stderr, &["not due for another"]);
}

pub(crate) fn nothing_has_to_be_collected(kind: Kind) {
    let store = Store::ready(kind);
    let collected = store.locks(["gc"]);
    assert_eq!(collected.status.code(), Some(0), "{collected:?}");
    assert!(text(&collected.stdout).contains("nothing to remove"), "{collected:?}");
}

/// The right to be the one of this host is kept in the user's own directory, from which the test takes its traces.
fn one_per_host_counts_processes_of_this_host(kind: Kind) {
    let directory =
        nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().dir.join(".local/state/locks");
    let traces = || -> std::collections::HashSet<std::path::PathBuf> {
        let entries = std::fs::read_dir(&directory).into_iter().flatten().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.to_string_lossy().contains("/one-per-host-")).collect()
    };
    let before = traces();
    let store = Store::ready(kind);
    let holder = Process::start_up(&mut store.under(BLOCK, &[], &UNTIL_EOF));
    let waiter = Process::start(&mut store.under(BLOCK, &["-v", "--one-per-host"], &["echo", "mine"]));
    assert!(waiter.stderr_line().contains("waiting"));
    let skipped = output(&mut store.under(BLOCK, &["--one-per-host"], &["echo", "it ran"]));
    assert_eq!((skipped.status.code(), text(&skipped.stdout)), (Some(75), ""), "{skipped:?}");
    assert_one_line("lock-block", &skipped.stderr, &["wanted on this host already"]);
    holder.end();
    assert_eq!(waiter.line(), "mine");
    assert_eq!(waiter.wait().code(), Some(0));
    for trace in traces().difference(&before) {
        std::fs::remove_file(trace).unwrap();
    }
}

#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn whoever_was_set_up_otherwise_is_told(kind: Kind) {
    let store = Store::ready(kind);
    let url = format!("{}&max_ttl=1m", store.url());
    let refused = store.locks(["setup", &url]);
    assert_eq!(refused.status.code(), Some(64));
    assert_one_line("locks", &refused.stderr, &["max_ttl"]);
}
