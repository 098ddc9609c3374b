//! Signals while the lock is waited for, and while the command runs.

use std::fs;
use std::io::Write;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Process, Sandbox};

const PASSED_ON: [(Signal, &str); 6] = [
    (Signal::SIGTERM, "TERM"),
    (Signal::SIGINT, "INT"),
    (Signal::SIGHUP, "HUP"),
    (Signal::SIGQUIT, "QUIT"),
    (Signal::SIGUSR1, "USR1"),
    (Signal::SIGUSR2, "USR2"),
];

const UNTIL_EOF: [&str; 3] = ["sh", "-c", "echo up; read line"];

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

/// In a terminal: Ctrl-C reaches the command once, from the terminal itself, and what is sent to the wrapper alone is passed on.
#[cfg(target_os = "linux")]
#[test]
fn a_key_of_the_terminal_reaches_the_command_once() {
    let sandbox = Sandbox::new();
    let script = sandbox.path("script");
    let traps = "trap 'echo INT' INT; trap 'echo QUIT' QUIT; trap 'echo USR1' USR1";
    let end = "trap 'kill -9 $!; exit 9' TERM";
    let listen = format!("{traps}; {end}; sleep 600 & echo $PPID; while :; do wait $!; done");
    fs::write(&script, listen).unwrap();
    // The outer shell is there to live through the keys, and so that nobody minds that the wrapper is stopped.
    let block = env!("CARGO_BIN_EXE_lock-block");
    let line = format!("trap : INT QUIT; {block} --name n -- sh {}; exit $?", script.display());
    let mut terminal =
        Process::start(sandbox.tool("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]));
    let next_word = |terminal: &Process| loop {
        // The terminal shows the keys as well.
        let line = terminal.line();
        let word = line.trim_end_matches('\r').trim_start_matches("^C").trim_start_matches("^\\");
        if !word.is_empty() {
            return word.to_owned();
        }
    };
    let wrapper = Pid::from_raw(next_word(&terminal).parse().unwrap());
    let mut keys = terminal.stdin.take().unwrap();
    // A signal that comes while the command is being started is passed on whoever sent it: let that be over.
    kill(wrapper, Signal::SIGUSR1).unwrap();
    assert_eq!(next_word(&terminal), "USR1");
    for (key, name) in [(b"\x03", "INT"), (b"\x1c", "QUIT")] {
        // Stopped, the wrapper can't add a signal of its own before the command has said that it got the terminal's.
        kill(wrapper, Signal::SIGSTOP).unwrap();
        keys.write_all(key).unwrap();
        assert_eq!(next_word(&terminal), name);
        // The wrapper learns of the key and of USR1 together; the key's signal would go first.
        kill(wrapper, Signal::SIGUSR1).unwrap();
        kill(wrapper, Signal::SIGCONT).unwrap();
        assert_eq!(next_word(&terminal), "USR1");
        let signal = if name == "INT" { Signal::SIGINT } else { Signal::SIGQUIT };
        kill(wrapper, signal).unwrap();
        assert_eq!(next_word(&terminal), name);
    }
    kill(wrapper, Signal::SIGTERM).unwrap();
    assert_eq!(terminal.wait().code(), Some(9));
}
