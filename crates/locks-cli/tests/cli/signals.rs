//! Signals while the lock is waited for, and while the command runs.

use std::fs;
use std::io::Write;
use std::process::Command;

use nix::sys::signal::Signal;

#[cfg(target_os = "linux")]
use crate::support::eventually;
use crate::support::{Process, Sandbox, UNTIL_EOF};

const PASSED_ON: [(Signal, &str); 6] = [
    (Signal::SIGTERM, "TERM"),
    (Signal::SIGINT, "INT"),
    (Signal::SIGHUP, "HUP"),
    (Signal::SIGQUIT, "QUIT"),
    (Signal::SIGUSR1, "USR1"),
    (Signal::SIGUSR2, "USR2"),
];

/// Starts a command that says which signals it gets, until it gets `last`, which ends it with 7.
fn listening(command: &mut Command, last: &str) -> Process {
    let traps: String = PASSED_ON.iter().map(|(_, name)| format!("trap 'echo {name}' {name}; ")).collect();
    // A trap interrupts `wait` at once. The sleep has the lock's descriptor too, so it must be gone before us.
    let end = format!("trap 'echo {last}; kill -9 $!; wait $!; exit 7' {last}");
    let script = format!("{traps} {end}; sleep 600 & echo up; while :; do wait $!; done");
    Process::start_up(command.args(["--name", "n", "--", "sh", "-c", &script]))
}

#[test]
fn signals_reach_the_command_and_its_exit_code_comes_back() {
    let sandbox = Sandbox::new();
    for (signal, name) in PASSED_ON {
        let process = listening(&mut sandbox.block(), name);
        process.signal(signal);
        assert_eq!(process.line(), name);
        assert_eq!(process.wait().code(), Some(7), "{signal}");
        assert!(!sandbox.is_taken("n"));
    }
}

#[test]
fn a_command_that_dies_of_the_signal_is_128_and_its_number() {
    let sandbox = Sandbox::new();
    for (signal, _) in PASSED_ON {
        let process = Process::start_up(sandbox.abort().args(["sh", "-c", "echo up; exec sleep 600"]));
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(128 + signal as i32), "{signal}");
    }
}

#[test]
fn the_lock_is_kept_until_the_command_is_gone() {
    let sandbox = Sandbox::new();
    let process = listening(&mut sandbox.block(), "USR1");
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT"), (Signal::SIGTERM, "TERM")] {
        process.signal(signal);
        assert_eq!(process.line(), name);
        assert!(sandbox.is_taken("n"));
    }
    process.signal(Signal::SIGUSR1);
    assert_eq!(process.wait().code(), Some(7));
    assert!(!sandbox.is_taken("n"));
}

#[test]
fn a_signal_ends_the_wait_at_once_and_leaves_no_queue_entry() {
    let sandbox = Sandbox::new();
    let holder = Process::start_up(sandbox.block().args(["--name", "n", "--"]).args(UNTIL_EOF));
    let behind = Process::start(sandbox.block().args(["-v", "--name", "n", "--", "echo", "behind"]));
    assert!(behind.stderr_line().contains("waiting"));
    for (signal, _) in PASSED_ON {
        for timeout in [&[][..], &["--timeout", "1h"]] {
            let ran = sandbox.path("ran");
            let mut command = sandbox.block();
            command.args(["-v", "--name", "n"]).args(timeout).arg("touch").arg(&ran);
            let waiter = Process::start(&mut command);
            assert!(waiter.stderr_line().contains("waiting"));
            waiter.signal(signal);
            assert!(waiter.stderr_line().contains(signal.as_str()));
            assert_eq!(waiter.wait().code(), Some(128 + signal as i32), "{signal}");
            assert!(!ran.exists());
        }
    }
    // Killed waiters leave nothing either.
    let killed = Process::start(sandbox.block().args(["-v", "--name", "n", "--", "true"]));
    assert!(killed.stderr_line().contains("waiting"));
    killed.signal(Signal::SIGKILL);
    killed.wait();

    holder.end();
    assert_eq!(behind.line(), "behind");
    assert_eq!(behind.wait().code(), Some(0));
    assert!(!sandbox.is_taken("n"));
}

/// As after nohup(1): neither the wait nor the command ends.
#[cfg(target_os = "linux")]
#[test]
fn what_our_parent_ignored_stays_ignored() {
    let sandbox = Sandbox::new();
    let nohup = || {
        let mut command = sandbox.tool("env");
        command.args(["--ignore-signal=HUP", env!("CARGO_BIN_EXE_lock-block"), "-v", "--name", "n", "--"]);
        command
    };
    let holder = Process::start_up(nohup().args(UNTIL_EOF));
    let waiter = Process::start(nohup().args(["echo", "mine"]));
    assert!(waiter.stderr_line().contains("waiting"));
    for process in [&holder, &waiter] {
        process.signal(Signal::SIGHUP);
    }
    assert!(sandbox.is_taken("n"));
    holder.end();
    assert_eq!(waiter.line(), "mine");
    assert_eq!(waiter.wait().code(), Some(0));
}

/// What ends a program goes to the whole group, as from a terminal; what a program may not know goes to the command alone.
#[test]
fn signals_that_end_go_to_the_whole_group() {
    let sandbox = Sandbox::new();
    for (signal, all) in [
        (Signal::SIGTERM, true),
        (Signal::SIGINT, true),
        (Signal::SIGHUP, true),
        (Signal::SIGQUIT, true),
        (Signal::SIGUSR1, false),
        (Signal::SIGUSR2, false),
    ] {
        let name = signal.as_str().trim_start_matches("SIG");
        // Both are shells, and both say so.
        let listen = |who: &str| match name {
            "TERM" => format!("trap 'echo {who} TERM; exit 0' TERM; echo up; while :; do sleep 0.02; done"),
            _ => format!(
                "trap 'echo {who} {name}' {name}; trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done"
            ),
        };
        let script = format!("sh -c \"{}\" & {}", listen("child"), listen("command"));
        let process = Process::start(sandbox.block().args(["--name", "n", "--", "sh", "-c", &script]));
        assert_eq!((process.line(), process.line()), ("up".to_owned(), "up".to_owned()));
        // Shells ignore these in what they run in the background.
        let all = all && !matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
        process.signal(signal);
        let mut heard = vec![process.line()];
        if all {
            heard.push(process.line());
            heard.sort();
            assert_eq!(heard, [format!("child {name}"), format!("command {name}")]);
        } else {
            assert_eq!(heard, [format!("command {name}")]);
        }
        if signal != Signal::SIGTERM {
            process.signal(Signal::SIGTERM);
        }
        assert_eq!(process.wait().code(), Some(0), "{signal}");
    }
}

/// Who stops and continues the wrapper stops and continues the command.
#[cfg(target_os = "linux")]
#[test]
fn stopping_and_continuing_is_passed_on() {
    let sandbox = Sandbox::new();
    let script = "echo up; echo $$; while :; do read line && echo $line; done";
    let mut process = Process::start_up(sandbox.block().args(["--name", "n", "--", "sh", "-c", script]));
    let command = process.line();
    let stopped = |is: bool| {
        eventually("it is stopped, or not", || {
            let stat = fs::read_to_string(format!("/proc/{command}/stat")).unwrap();
            stat.contains(") T ") == is
        });
    };
    for _ in 0..3 {
        process.signal(Signal::SIGTSTP);
        stopped(true);
        assert!(sandbox.is_taken("n"));
        process.signal(Signal::SIGCONT);
        stopped(false);
    }
    process.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    assert_eq!(process.line(), "hello");
    process.signal(Signal::SIGKILL);
    process.wait();
}

/// A terminal that changes its size tells its foreground group, and who tells us tells the command.
#[test]
fn a_change_of_the_window_is_passed_on() {
    let sandbox = Sandbox::new();
    let script = "trap 'echo WINCH' WINCH; trap 'exit 4' TERM; echo up; while :; do sleep 0.02; done";
    let process = Process::start_up(sandbox.block().args(["sh", "-c", script]));
    process.signal(Signal::SIGWINCH);
    assert_eq!(process.line(), "WINCH");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code(), Some(4));
}
