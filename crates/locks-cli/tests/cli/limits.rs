//! `--max-run` and `--kill-after`, on a store without expiry.

use std::time::Instant;

use nix::unistd::Pid;

use crate::support::{Process, Sandbox, alive_in, assert_one_line, output, text};

#[test]
fn a_command_that_runs_too_long_is_124_and_gone() {
    let sandbox = Sandbox::new();
    let late = output(sandbox.block().args(["--name", "n", "--max-run", "0.3", "--", "sleep", "600"]));
    assert_eq!(late.status.code(), Some(124), "{late:?}");
    assert_one_line("lock-block", &late.stderr, &["ran for more than 300ms"]);
    assert!(!sandbox.is_taken("n"));

    let quick = output(sandbox.abort().args(["--max-run", "1h", "--", "sh", "-c", "exit 7"]));
    assert_eq!((quick.status.code(), text(&quick.stderr)), (Some(7), ""));
}

#[test]
fn term_comes_first_and_kill_after_it_to_the_whole_group() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo TERM' TERM; (trap '' TERM; exec sleep 600) & echo up; echo $$; while :; do sleep 0.05; done";
    let options = ["--name", "n", "--max-run", "0.5", "--kill-after", "0.5", "--", "sh", "-c", script];
    let process = Process::start_up(sandbox.block().args(options));
    let group = Pid::from_raw(process.line().parse().unwrap());
    let begun = Instant::now();
    assert_eq!(process.line(), "TERM");
    // The shell may have something to say, too.
    while !process.stderr_line().contains("ran for more than") {}
    assert_eq!(process.wait().code(), Some(124));
    assert!(begun.elapsed().as_millis() >= 500);
    assert!(alive_in(group).is_empty());
    assert!(!sandbox.is_taken("n"));
}

/// TERM ends the command, but not what it has started: that is killed.
#[test]
fn what_outlives_the_command_is_killed_too() {
    let sandbox = Sandbox::new();
    let script = "(trap '' TERM; exec sleep 600) & echo up; echo $$; wait";
    let options = ["--name", "n", "--max-run", "0.3", "--kill-after", "0.3", "--", "sh", "-c", script];
    let process = Process::start_up(sandbox.abort().args(options));
    let group = Pid::from_raw(process.line().parse().unwrap());
    assert_eq!(process.wait().code(), Some(124));
    assert!(alive_in(group).is_empty());
    assert!(!sandbox.is_taken("n"));
}

/// A command that was stopped could not hear TERM.
#[test]
fn a_stopped_command_is_ended_all_the_same() {
    let sandbox = Sandbox::new();
    let options = ["--max-run", "0.3", "--", "sh", "-c", "kill -STOP $$; exec sleep 600"];
    let late = output(sandbox.block().args(options));
    assert_eq!(late.status.code(), Some(124), "{late:?}");
}
