//! Who is kept out, and for how long.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Process, Sandbox, output, text};

/// The wrapper is killed: the command holds the lock until it ends.
#[test]
fn a_killed_wrapper_lets_nobody_in_while_the_command_lives() {
    let sandbox = Sandbox::new();
    let wrapper = Process::start_up(sandbox.block().args([
        "--name",
        "n",
        "--",
        "sh",
        "-c",
        "echo up; echo $$; exec sleep 600",
    ]));
    let command = Pid::from_raw(wrapper.line().parse().unwrap());
    wrapper.signal(Signal::SIGKILL);
    wrapper.wait();
    assert!(sandbox.is_taken("n"));
    let waiter = Process::start(sandbox.block().args(["-v", "--name", "n", "--", "echo", "mine"]));
    assert!(waiter.stderr_line().contains("waiting"));
    assert!(sandbox.is_taken("n"));
    kill(command, Signal::SIGKILL).unwrap();
    assert_eq!(waiter.line(), "mine");
    assert_eq!(waiter.wait().code(), Some(0));
}

/// What a command leaves running keeps the lock, as with flock(1).
#[test]
fn a_descendant_that_goes_on_keeps_the_lock() {
    let sandbox = Sandbox::new();
    let script = "sleep 600 >/dev/null 2>&1 </dev/null & echo $!";
    let output = output(sandbox.block().args(["--name", "n", "--", "sh", "-c", script]));
    assert_eq!(output.status.code(), Some(0));
    assert!(sandbox.is_taken("n"));
    let waiter = Process::start(sandbox.block().args(["-v", "--name", "n", "--", "echo", "mine"]));
    assert!(waiter.stderr_line().contains("waiting"));
    kill(Pid::from_raw(text(&output.stdout).trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(waiter.line(), "mine");
    waiter.wait();
}

/// 100 processes, each of which reads, adds one and writes back 20 times.
#[test]
fn a_counter_loses_no_increment() {
    let sandbox = Sandbox::new();
    let counter = sandbox.path("counter");
    fs::write(&counter, "0\n").unwrap();
    let add = format!("read n <{0}; echo $((n + 1)) >{0}", counter.display());
    let block = env!("CARGO_BIN_EXE_lock-block");
    let script = format!("for i in $(seq 20); do {block} --name counter -- sh -c '{add}' || exit; done");
    let processes: Vec<Process> =
        (0..100).map(|_| Process::start(sandbox.tool("sh").args(["-c", &script]))).collect();
    for process in processes {
        assert_eq!(process.wait().code(), Some(0));
    }
    assert_eq!(fs::read_to_string(&counter).unwrap(), "2000\n");
}

/// Two directories are two worlds, and so are two names.
#[test]
fn other_names_and_other_directories_are_free() {
    let sandbox = Sandbox::new();
    let other = Sandbox::new();
    let holder =
        Process::start_up(sandbox.block().args(["--name", "n", "--", "sh", "-c", "echo up; read line"]));
    assert!(sandbox.is_taken("n"));
    for name in ["N", "n ", "n.", "m"] {
        assert!(!sandbox.is_taken(name), "{name}");
    }
    assert!(!other.is_taken("n"));
    holder.end();
}
