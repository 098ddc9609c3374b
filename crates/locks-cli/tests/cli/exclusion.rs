//! Who is kept out, and for how long.

use std::fs;
#[cfg(target_os = "linux")]
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{LIMIT, Process, Sandbox, output, pause, text};
#[cfg(target_os = "linux")]
use crate::support::{UNTIL_EOF, alive_in, eventually};

/// The wrapper is killed: so is the command, and what it has started holds the lock until it ends.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_wrapper_takes_its_command_along_and_lets_nobody_in_while_anything_of_it_lives() {
    let sandbox = Sandbox::new();
    let script = "echo up; echo $$; sleep 600 & echo $!; wait";
    let wrapper = Process::start_up(sandbox.block().args(["--name", "n", "--", "sh", "-c", script]));
    let [command, descendant] = [(); 2].map(|()| Pid::from_raw(wrapper.line().parse().unwrap()));
    wrapper.signal(Signal::SIGKILL);
    wrapper.wait();
    eventually("the command is gone", || !alive_in(command).contains(&command.as_raw()));
    assert_eq!(alive_in(command), [descendant.as_raw()]);
    assert!(sandbox.is_taken("n"));
    let waiter = Process::start(sandbox.block().args(["-v", "--name", "n", "--", "echo", "mine"]));
    assert!(waiter.stderr_line().contains("waiting"));
    assert!(sandbox.is_taken("n"));
    kill(descendant, Signal::SIGKILL).unwrap();
    assert_eq!(waiter.line(), "mine");
    assert_eq!(waiter.wait().code(), Some(0));
}

/// With `--no-inherit` the lock ends with the command, and what it leaves behind goes on.
#[test]
fn a_daemon_that_inherits_nothing_does_not_keep_the_lock() {
    let sandbox = Sandbox::new();
    let script = "sleep 600 >/dev/null 2>&1 </dev/null & echo $!";
    let left = output(sandbox.block().args(["--no-inherit", "--name", "n", "--", "sh", "-c", script]));
    assert_eq!(left.status.code(), Some(0), "{left:?}");
    assert!(!sandbox.is_taken("n"));
    kill(Pid::from_raw(text(&left.stdout).trim().parse().unwrap()), Signal::SIGKILL).unwrap();
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
    // How long 2000 commands take is the machine's business. That they go on is ours.
    let (mut count, mut since) = (String::new(), Instant::now());
    while count != "2000\n" {
        let now = fs::read_to_string(&counter).unwrap();
        if now != count {
            (count, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < LIMIT, "it stands at {count:?}");
        pause(Duration::from_millis(20));
    }
    for process in processes {
        assert_eq!(process.wait().code(), Some(0));
    }
    assert_eq!(fs::read_to_string(&counter).unwrap(), "2000\n");
}

/// The same file by flock(1) and by us, whoever has it, waits for it or shares it.
#[cfg(target_os = "linux")]
#[test]
fn an_existing_path_is_locked_as_flock_locks_it() {
    let sandbox = Sandbox::new();
    let path = sandbox.path("job.lock");
    fs::write(&path, "what was in it").unwrap();
    let (name, url) = (path.to_str().unwrap(), format!("{}?names=paths", sandbox.url()));
    let ours = |mut command: Command, options: &[&str]| {
        command.args(["--url", &url, "--name", name]).args(options);
        command
    };
    let theirs = |options: &[&str]| {
        let mut command = sandbox.tool("flock");
        command.args(options).arg(name);
        command
    };
    let code = |command: &mut Command| output(command.arg("true")).status.code();

    let held = Process::start_up(theirs(&["-x"]).args(UNTIL_EOF));
    assert_eq!(code(&mut ours(sandbox.abort(), &["--"])), Some(75), "flock(1) has it");
    assert_eq!(code(&mut ours(sandbox.abort(), &["--shared", "--"])), Some(75), "flock(1) has it");
    let waits = Process::start(ours(sandbox.block(), &["-v", "--"]).args(UNTIL_EOF));
    assert!(waits.stderr_line().contains("waiting"));
    held.end();
    assert_eq!(waits.line(), "up");
    assert_eq!(code(&mut theirs(&["-n", "-x"])), Some(1), "lock-block has it");
    assert_eq!(code(&mut theirs(&["-n", "-s"])), Some(1), "lock-block has it");
    let waits_there = Process::start(theirs(&["-x"]).args(UNTIL_EOF));
    waits.end();
    assert_eq!(waits_there.line(), "up");
    waits_there.end();

    let reads = Process::start_up(theirs(&["-s"]).args(UNTIL_EOF));
    assert_eq!(code(&mut ours(sandbox.abort(), &["--shared", "--"])), Some(0), "they share it");
    assert_eq!(code(&mut ours(sandbox.abort(), &["--"])), Some(75), "a reader has it");
    reads.end();
    let reads = Process::start_up(ours(sandbox.block(), &["--shared", "--"]).args(UNTIL_EOF));
    assert_eq!(code(&mut theirs(&["-n", "-s"])), Some(0), "they share it");
    assert_eq!(code(&mut theirs(&["-n", "-x"])), Some(1), "a reader has it");
    reads.end();
    assert_eq!(fs::read_to_string(&path).unwrap(), "what was in it");
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
