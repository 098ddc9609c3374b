//! However a test process ends, its servers, their children and their directories are gone.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use locks_test_servers::Redis;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::client::{Client, eventually};
use crate::remains::{directories_of, keepers_of, processes_of};

/// Says to the child process what to do.
const PART: &str = "LOCKS_TEST_SERVERS_PART";

/// What `child_process` does.
pub(crate) fn play() {
    match env::var(PART).unwrap().as_str() {
        "hold" => {
            let redis = Redis::start().unwrap();
            ready_and_wait(&redis);
        }
        "pause" => {
            let redis = Redis::start().unwrap();
            redis.pause().unwrap();
            ready_and_wait(&redis);
        }
        "save" => {
            let redis = Redis::options().config("rdb-key-save-delay", "1000000").start().unwrap();
            let mut client = Client::of(&redis);
            for key in 0..100 {
                assert_eq!(client.ask(&format!("SET {key} 1")), "+OK");
            }
            assert!(client.ask("BGSAVE").starts_with('+'));
            eventually("the saving child", || processes_of(redis.directory().unwrap()).len() == 2);
            ready_and_wait(&redis);
        }
        "append" => {
            let redis = Redis::options().config("appendonly", "yes").start().unwrap();
            ready();
            let mut client = Client::of(&redis);
            loop {
                assert_eq!(client.ask("APPEND x 0123456789"), ":10");
                assert_eq!(client.ask("BGREWRITEAOF").get(..1), Some("+"));
            }
        }
        "down" => {
            let redis = Redis::start().unwrap();
            redis.kill().unwrap();
            ready_and_wait(&redis);
        }
        "several" => {
            let redis = [Redis::start().unwrap(), Redis::start().unwrap()];
            redis[0].kill().unwrap();
            redis[0].start_again().unwrap();
            ready_and_wait(&redis[1]);
        }
        "panic" => {
            let _redis = Redis::start().unwrap();
            ready();
            panic!("as it should");
        }
        "abort" => {
            let _redis = Redis::start().unwrap();
            ready();
            std::process::abort();
        }
        "exit" => {
            let _redis = Redis::start().unwrap();
            ready();
            std::process::exit(0);
        }
        "busy" => {
            ready();
            loop {
                let redis = Redis::start().unwrap();
                redis.kill().unwrap();
                redis.start_again().unwrap();
            }
        }
        "count" => count(),
        other => panic!("no part {other}"),
    }
}

fn ready() {
    println!("\nready");
    std::io::stdout().flush().unwrap();
}

fn ready_and_wait(_alive: &Redis) {
    ready();
    loop {
        std::thread::park();
    }
}

/// A server costs one descriptor while it is there, up or down, and no thread.
fn count() {
    let count = || {
        let entries = |path| fs::read_dir(path).unwrap().count();
        (entries("/proc/self/fd"), entries("/proc/self/task"))
    };
    let before = count();
    let redis = Redis::start().unwrap();
    let with_one = (before.0 + 1, before.1);
    assert_eq!(count(), with_one);
    redis.pause().unwrap();
    redis.kill().unwrap();
    assert_eq!(count(), with_one);
    redis.start_again().unwrap();
    assert_eq!(count(), with_one);
    drop(redis);
    assert_eq!(count(), before);
    ready();
}

/// A process of this binary in a group of its own, as a terminal's foreground has it.
struct Part {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Part {
    fn start(part: &str) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn is_ready(&mut self) {
        let mut line = String::new();
        while line != "ready\n" {
            line.clear();
            if self.output.read_line(&mut line).unwrap() == 0 {
                let mut why = String::new();
                let errors = BufReader::new(self.child.stderr.take().unwrap());
                errors.lines().for_each(|line| why += &line.unwrap());
                panic!("it ended before it was ready: {why}");
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What its servers' directories begin with.
    fn prefix(&self) -> PathBuf {
        env::temp_dir().join(format!("locks-test-redis-{}-", self.child.id()))
    }

    /// Waits for its end and then until nothing is left of it.
    fn leaves_nothing(mut self) {
        self.child.wait().unwrap();
        all_gone(&self.prefix());
    }
}

#[track_caller]
fn all_gone(prefix: &Path) {
    eventually("nothing left", || {
        directories_of(prefix).is_empty() && processes_of(prefix).is_empty() && keepers_of(prefix).is_empty()
    });
}

/// The part is played up to where it is ready, with this many servers up; then the signal comes.
#[track_caller]
fn killed(part: &str, servers: usize, signal: Signal) {
    let mut part = Part::start(part);
    part.is_ready();
    let prefix = part.prefix();
    // So that `all_gone` is known to find what there is.
    assert!(!directories_of(&prefix).is_empty() && !keepers_of(&prefix).is_empty());
    assert!(processes_of(&prefix).len() >= servers);
    part.signal(signal);
    part.leaves_nothing();
}

#[test]
fn killed_while_it_has_a_server() {
    killed("hold", 1, Signal::KILL);
}

#[test]
fn killed_while_its_server_is_stopped() {
    killed("pause", 1, Signal::KILL);
}

#[test]
fn killed_while_its_server_saves() {
    killed("save", 2, Signal::KILL);
}

#[test]
fn killed_while_its_server_writes() {
    killed("append", 1, Signal::KILL);
}

#[test]
fn killed_while_its_server_is_down() {
    killed("down", 0, Signal::KILL);
}

#[test]
fn killed_while_it_has_several() {
    killed("several", 2, Signal::KILL);
}

#[test]
fn interrupted() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        // Whoever started us may have had this signal ignored, as `nohup` and `&` do; then it ends nobody.
        if !is_ignored(signal) {
            killed("hold", 1, signal);
        }
    }
}

fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn panicked_aborted_and_exited() {
    for part in ["panic", "abort", "exit"] {
        let mut part = Part::start(part);
        part.is_ready();
        part.leaves_nothing();
    }
}

#[test]
fn killed_at_any_moment() {
    let mut prefixes = BTreeSet::new();
    for round in 0..40 {
        let mut part = Part::start("busy");
        part.is_ready();
        let end = Instant::now() + Duration::from_micros(round * 1_500);
        while Instant::now() < end {
            std::thread::yield_now();
        }
        part.signal(Signal::KILL);
        part.child.wait().unwrap();
        prefixes.insert(part.prefix());
    }
    prefixes.iter().for_each(|prefix| all_gone(prefix));
    // A keeper that had not yet become one when it was looked for is found now.
    prefixes.iter().for_each(|prefix| all_gone(prefix));
}

#[test]
fn a_server_costs_one_descriptor_and_no_thread() {
    let mut part = Part::start("count");
    part.is_ready();
    part.leaves_nothing();
}
