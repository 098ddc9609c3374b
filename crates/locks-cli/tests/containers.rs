//! The wrapper as the first process of a container: it passes signals on, and waits for those whose parents are gone.
//!
//! A container is a PID namespace here. Where none can be made, the tests are listed as ignored, with the reason.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests, which clippy does not recognise without a harness"
)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BLOCK: &str = env!("CARGO_BIN_EXE_lock-block");

/// Who waits longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut trials = vec![
        Trial::test("signals_reach_the_command_and_its_exit_code_comes_back", signals),
        Trial::test("a_signal_ends_the_wait", wait),
        Trial::test("nobody_whose_parent_is_gone_stays_a_zombie_on_a_file", || orphans(&Store::on_file())),
        #[cfg(feature = "redis")]
        Trial::test("nobody_whose_parent_is_gone_stays_a_zombie_on_redis", || orphans(&Store::on_redis())),
    ];
    if let Err(reason) = namespaces() {
        eprintln!("all ignored, no PID namespace can be made here: {reason}");
        trials = trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect();
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Whether there can be containers.
fn namespaces() -> Result<(), String> {
    let tried = unshare().arg("true").output().map_err(|error| error.to_string())?;
    if tried.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&tried.stderr).into_owned()) }
}

/// Runs what follows as the first process of a PID namespace, which goes with it. A shell that runs tests in the background has them ignore SIGINT: not so this.
fn unshare() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", "unshare", "--user", "--map-current-user", "--pid", "--fork"]);
    command.arg("--kill-child");
    command
}

/// Where the lock is, and what keeps it there.
struct Store {
    url: String,
    /// How many children the wrapper has beside the command.
    guardians: usize,
    _directory: Option<tempfile::TempDir>,
    #[cfg(feature = "redis")]
    _server: Option<locks_test_servers::Redis>,
}

impl Store {
    fn on_file() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            url: format!("file:{}", directory.path().join("locks").display()),
            guardians: 0,
            _directory: Some(directory),
            #[cfg(feature = "redis")]
            _server: None,
        }
    }

    #[cfg(feature = "redis")]
    fn on_redis() -> Self {
        let server = locks_test_servers::Redis::start().unwrap();
        let url = format!("{}?restart_grace=off", server.url());
        Self { url, guardians: 1, _directory: None, _server: Some(server) }
    }
}

/// A wrapper that is the first process of its container.
struct Container {
    unshare: Child,
    wrapper: Pid,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Container {
    /// Starts it and waits until the command, a shell script, says "up".
    fn start(store: &Store, script: &str) -> Self {
        let mut command = unshare();
        command.args([BLOCK, "--name", "n", "--", "sh", "-c", script]).env("LOCKS_URL", &store.url);
        let mut unshare = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = lines(unshare.stdout.take().unwrap());
        let stdin = unshare.stdin.take();
        let Ok("up") = lines.recv_timeout(LIMIT).as_deref() else {
            kill(process(&unshare), Signal::SIGKILL).ok();
            panic!("the command did not start: {:?}", unshare.wait());
        };
        let [wrapper] = children_of(process(&unshare))[..] else { panic!("one child") };
        Self { unshare, wrapper, stdin, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap()
    }

    /// Closes the command's input and waits for the end.
    fn end(mut self) -> Option<i32> {
        self.stdin = None;
        eventually("it ends", || self.unshare.try_wait().unwrap().is_some());
        self.unshare.wait().unwrap().code()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Nothing of the namespace outlives its first process.
        if self.unshare.try_wait().is_ok_and(|ended| ended.is_none()) {
            kill(self.wrapper, Signal::SIGKILL).ok();
            self.unshare.wait().ok();
        }
    }
}

fn signals() -> Result<(), Failed> {
    let store = Store::on_file();
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT"), (Signal::SIGUSR1, "USR1")] {
        let script = format!("trap 'echo got; exit 7' {name}; echo up; while :; do sleep 0.02; done");
        let container = Container::start(&store, &script);
        kill(container.wrapper, signal)?;
        assert_eq!(container.line(), "got");
        assert_eq!(container.end(), Some(7), "{signal}");
    }
    // One that the command does not catch ends it.
    let container = Container::start(&store, "echo up; exec sleep 600");
    kill(container.wrapper, Signal::SIGTERM)?;
    assert_eq!(container.end(), Some(143));
    Ok(())
}

fn wait() -> Result<(), Failed> {
    let store = Store::on_file();
    let holder = Container::start(&store, "echo up; read line");
    let mut command = unshare();
    command.args([BLOCK, "-v", "--name", "n", "--", "true"]).env("LOCKS_URL", &store.url);
    let mut waiter = command.stderr(Stdio::piped()).spawn()?;
    let said = lines(waiter.stderr.take().ok_or("no stderr")?).recv_timeout(LIMIT)?;
    assert!(said.contains("waiting"), "{said}");
    let [wrapper] = children_of(process(&waiter))[..] else { panic!("one child") };
    kill(wrapper, Signal::SIGTERM)?;
    assert_eq!(waiter.wait()?.code(), Some(143));
    assert_eq!(holder.end(), Some(1)); // of `read` at the end of its input
    Ok(())
}

/// Orphans become children of the first process, which has to wait for them.
fn orphans(store: &Store) -> Result<(), Failed> {
    const ORPHANS: usize = 20;
    // In the command's group and outside it.
    let one = "(sh -c 'sleep 0.05; echo gone' &); (setsid sh -c 'sleep 0.05; echo gone' &)";
    let script = format!("echo up; for i in $(seq {}); do {one}; done; read line; exit 3", ORPHANS / 2);
    let container = Container::start(store, &script);
    for _ in 0..ORPHANS {
        assert_eq!(container.line(), "gone");
    }
    let wrapper = container.wrapper;
    eventually("only its own are left", || children_of(wrapper).len() == 1 + store.guardians);
    assert_eq!(container.end(), Some(3));
    Ok(())
}

/// What it says, line by line.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (line, lines) = channel();
    thread::spawn(move || {
        for text in BufReader::new(stream).lines().map_while(Result::ok) {
            if line.send(text).is_err() {
                return;
            }
        }
    });
    lines
}

fn process(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// The children of a process, those included that nobody has waited for.
fn children_of(pid: Pid) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap())).collect()
}

/// Looks until it is so: nobody tells us.
fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        pause(Duration::from_millis(5));
    }
}

#[expect(clippy::disallowed_methods, reason = "between looks at what nobody tells us")]
fn pause(time: Duration) {
    thread::sleep(time);
}
