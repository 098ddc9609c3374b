//! On a terminal with a store whose locks expire: what a waiting person sees, and a job that stands still for too long.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::loss::{assert_alone, follow};
use crate::pty::{Terminal, is_stopped};
use crate::stores::{ABORT, BLOCK, Kind, LOCKS, Store, on_each_store};
use crate::support::{Process, UNTIL_EOF, alive_in, eventually, output, pause, text};

on_each_store! {
    who_waits_sees_the_holder_and_the_queue,
    a_job_that_is_stopped_for_longer_than_its_ttl_loses_its_command_before_the_lock,
    a_job_that_is_stopped_for_a_moment_keeps_its_lock,
}

/// Who has it, since when, and how many come before us.
fn who_waits_sees_the_holder_and_the_queue(kind: Kind) {
    let store = Store::ready(kind);
    let holder = Process::start_up(&mut store.under(BLOCK, &[], &UNTIL_EOF));
    let (pid, mut before) = (holder.pid, Vec::new());
    for _ in 0..2 {
        let waiter = Process::start(&mut store.under(BLOCK, &["-v"], &["true"]));
        assert!(waiter.stderr_line().contains("waiting"));
        before.push(waiter);
    }
    let json = || text(&output(store.tool(LOCKS).args(["status", "--json", "n"])).stdout).to_owned();
    eventually("both are in the store's queue", || json().matches("\"host\":").count() == 3);
    let line = format!("stty columns 500; {BLOCK} --name n -- echo mine; exit $?");
    let terminal = Terminal::run(&store.url(), &line);
    let shown = terminal.until(", 2 before us") + &terminal.until(", 2 before us");
    // The first of them loses patience.
    let impatient = before.remove(0);
    impatient.signal(Signal::SIGTERM);
    assert_eq!(impatient.wait().code(), Some(143));
    let shown = shown + &terminal.until(", 1 before us");
    holder.end();
    let shown = shown + &terminal.until("mine");
    assert_eq!(terminal.end(), Some(0));
    for word in
        ["lock-block: waiting for 1s: \"n\" is held by pid", "(sh), for ", "(since 20", &pid.to_string()]
    {
        assert!(shown.contains(word), "{word:?} is not in {shown:?}");
    }
    assert!(shown.ends_with("\r\u{1b}[K"), "{shown:?}");
    for waiter in before {
        assert_eq!(waiter.wait().code(), Some(0));
    }
}

/// A server that nobody has set up lets one ttl pass, and who waits sees how much of it is left.
#[cfg(feature = "redis")]
#[test]
fn who_waits_for_a_grace_sees_it_count_down() {
    let store = Store::new(Kind::Redis);
    let line = format!("stty columns 500; {BLOCK} --name n -- echo mine; exit $?");
    let terminal = Terminal::run(&format!("{}&max_ttl=5s", store.url()), &line);
    let shown = terminal.until("mine");
    assert_eq!(terminal.end(), Some(0));
    let rests: Vec<f64> = shown.split("restart of the store, ").skip(1).map(seconds).collect();
    assert!(rests.len() >= 2, "{shown:?}");
    assert!(rests.iter().all(|rest| *rest <= 5.0) && rests.is_sorted_by(|one, next| one > next), "{rests:?}");
    assert!(shown.ends_with("\r\u{1b}[K"), "{shown:?}");
}

/// Of `1.5 s to go` and whatever comes after.
#[cfg(feature = "redis")]
fn seconds(text: &str) -> f64 {
    text.split(' ').next().unwrap_or_default().parse().unwrap_or(f64::NAN)
}

/// A wrapper that is stopped can't renew: what it runs is gone before somebody else has the lock, and `fg` tells.
fn a_job_that_is_stopped_for_longer_than_its_ttl_loses_its_command_before_the_lock(kind: Kind) {
    let store = Store::ready(kind);
    let mut terminal = Terminal::shell(&store.url());
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "trap '' TERM; echo at-$((1+1))-$$.; sleep 600 & wait; sleep 600").unwrap();
    terminal.press(&format!("{BLOCK} --name n --ttl 3 -- sh {}\n", script.display()));
    let command = terminal.pid();
    eventually("the command has a child", || alive_in(command).len() > 1);
    let next = follow(&store, "n", command);
    terminal.press("\x1a");
    eventually("the command is stopped, or gone already", || {
        is_stopped(command) || alive_in(command).is_empty()
    });
    // The shell has the terminal again.
    terminal.press("echo shell-$((40+2))\n");
    terminal.until("shell-42");
    assert_alone(next);
    assert!(alive_in(command).is_empty());
    terminal.press("fg\n");
    terminal.until("\"n\" was lost while the command ran");
    terminal.press("echo code-$?-\n");
    terminal.until("code-79-");
    terminal.leave();
}

/// For less than that it goes on, under its lock.
fn a_job_that_is_stopped_for_a_moment_keeps_its_lock(kind: Kind) {
    let store = Store::ready(kind);
    let mut terminal = Terminal::shell(&store.url());
    terminal.press(&format!(
        "{BLOCK} --name n --ttl 15 -- sh -c 'echo at-$((1+1))-$$.; read x; echo read-$x; exit 9'\n"
    ));
    let command = terminal.pid();
    terminal.press("\x1a");
    eventually("the command is stopped", || is_stopped(command));
    terminal.press("echo shell-$((40+2))\n");
    terminal.until("shell-42");
    pause(Duration::from_millis(500));
    let busy = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(busy.status.code(), Some(75), "{busy:?}");
    terminal.press("fg\n");
    eventually("the command goes on", || !is_stopped(command));
    terminal.press("hello\n");
    terminal.until("read-hello");
    terminal.press("echo code-$?-\n");
    terminal.until("code-9-");
    terminal.leave();
}
