//! Locks on a Redis server: what the commands promise there, and `locks setup`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use locks_test_servers::Redis;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Process, assert_one_line, output, text};

const ABORT: &str = env!("CARGO_BIN_EXE_lock-abort");
const BLOCK: &str = env!("CARGO_BIN_EXE_lock-block");
const LOCKS: &str = env!("CARGO_BIN_EXE_locks");

/// A command that runs until its input ends.
const UNTIL_EOF: [&str; 3] = ["sh", "-c", "echo up; read line"];

/// A namespace of its own on a server that others may use too.
struct Store {
    server: Redis,
    namespace: String,
}

impl Store {
    /// Nobody has set it up.
    fn new() -> Self {
        Self { server: Redis::shared().unwrap(), namespace: format!("cli-{:016x}", fastrand::u64(..)) }
    }

    fn ready() -> Self {
        let store = Self::new();
        assert_eq!(store.locks(["setup"]).status.code(), Some(0));
        store
    }

    fn url(&self) -> String {
        format!("{}?namespace={}", self.server.url(), self.namespace)
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LOCKS_URL", self.url());
        command
    }

    fn locks<const N: usize>(&self, arguments: [&str; N]) -> std::process::Output {
        output(self.tool(LOCKS).args(arguments))
    }

    /// Says something to the server itself.
    fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.server.address()).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Runs a command under the lock "n".
    fn under(&self, tool: &str, options: &[&str], command: &[&str]) -> Command {
        let mut wrapper = self.tool(tool);
        wrapper.args(["--name", "n"]).args(options).arg("--").args(command);
        wrapper
    }
}

fn token(stdout: &[u8]) -> u64 {
    text(stdout).trim().parse().unwrap()
}

#[test]
fn two_processes_exclude_each_other_and_tokens_grow() {
    let store = Store::ready();
    let show = ["sh", "-c", "echo $LOCK_FENCING_TOKEN; echo $LOCK_NAME $LOCK_BACKEND >&2"];
    let first = output(&mut store.under(ABORT, &[], &show));
    assert_eq!((first.status.code(), text(&first.stderr)), (Some(0), "n redis\n"));

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

#[test]
fn a_killed_wrapper_keeps_others_out_for_its_ttl_and_no_longer() {
    let store = Store::ready();
    let command = ["sh", "-c", "echo up; echo $$; echo $LOCK_FENCING_TOKEN; exec sleep 600"];
    let holder = Process::start_up(&mut store.under(BLOCK, &["--ttl", "2"], &command));
    let command = Pid::from_raw(holder.line().parse().unwrap());
    let token_of_holder = holder.line().parse::<u64>().unwrap();
    // It is not renewed any more.
    holder.signal(Signal::SIGKILL);
    holder.wait();
    let next = output(&mut store.under(BLOCK, &[], &["sh", "-c", "echo $LOCK_FENCING_TOKEN"]));
    kill(command, Signal::SIGKILL).unwrap();
    assert_eq!(next.status.code(), Some(0), "{next:?}");
    assert!(token(&next.stdout) > token_of_holder);
}

#[test]
fn a_lock_that_is_lost_ends_the_command() {
    let store = Store::ready();
    let holder =
        Process::start_up(&mut store.under(BLOCK, &["--ttl", "2"], &["sh", "-c", "echo up; exec sleep 600"]));
    assert_eq!(store.ask(&format!("DEL {{{}}}:1:l:n", store.namespace)), ":1");
    let said = holder.stderr_line();
    assert!(said.starts_with("lock-block: the lock \"n\" was lost while the command ran: "), "{said}");
    assert_eq!(holder.wait().code(), Some(79));
}

#[test]
fn a_signal_ends_the_wait_and_leaves_no_place_in_the_queue() {
    let store = Store::ready();
    let holder = Process::start_up(&mut store.under(BLOCK, &[], &UNTIL_EOF));
    let waiter = Process::start(&mut store.under(BLOCK, &["-v"], &["echo", "it ran"]));
    assert!(waiter.stderr_line().contains("waiting"));
    waiter.signal(Signal::SIGTERM);
    assert_eq!(waiter.wait().code(), Some(143));
    holder.end();
    let next = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(next.status.code(), Some(0), "{next:?}");
}

#[test]
fn a_ttl_out_of_limits_is_a_usage_error() {
    let store = Store::ready();
    for ttl in ["0.1", "1h"] {
        let refused = output(&mut store.under(BLOCK, &["--ttl", ttl], &["echo", "it ran"]));
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(64), ""));
        assert_one_line("lock-block", &refused.stderr, &["ttl", "1s to 15s"]);
    }
}

#[test]
fn a_new_server_is_in_grace_until_it_is_set_up() {
    let store = Store::new();
    for (tool, options) in [("lock-abort", &[][..]), ("lock-block", &["-w", "0.2"])] {
        let program = if tool == "lock-abort" { ABORT } else { BLOCK };
        let busy = output(&mut store.under(program, options, &["echo", "it ran"]));
        assert_eq!((busy.status.code(), text(&busy.stdout)), (Some(75), ""), "{busy:?}");
        assert_one_line(tool, &busy.stderr, &["\"n\"", "grace", "`locks setup URL`"]);
    }
    let set_up = store.locks(["setup"]);
    assert_eq!((set_up.status.code(), text(&set_up.stderr)), (Some(0), ""));
    let public = store.server.url().rsplit('@').next().unwrap();
    assert!(text(&set_up.stdout).contains(public.trim_start_matches("redis://")), "{set_up:?}");
    assert!(text(&set_up.stdout).ends_with(": ready; a grace that ran was ended\n"), "{set_up:?}");
    // Twice does no harm.
    assert_eq!(store.locks(["setup", &store.url()]).status.code(), Some(0));
    let free = output(&mut store.under(ABORT, &[], &["echo", "it ran"]));
    assert_eq!((free.status.code(), text(&free.stdout)), (Some(0), "it ran\n"), "{free:?}");
}

#[test]
fn whoever_was_set_up_otherwise_is_told() {
    let store = Store::ready();
    let url = format!("{}&max_ttl=1m", store.url());
    let refused = store.locks(["setup", &url]);
    assert_eq!(refused.status.code(), Some(64));
    assert_one_line("locks", &refused.stderr, &["max_ttl"]);
}

#[test]
fn a_server_that_is_not_there_is_69_and_says_why() {
    // Nobody listens on it, and nobody else gets it meanwhile.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let url = format!("redis://user:geheim@127.0.0.1:{port}");
    let set_up = output(Command::new(LOCKS).args(["setup", &url]));
    let mut refused = vec![("locks", set_up)];
    for (tool, program, options) in [("lock-abort", ABORT, &[][..]), ("lock-block", BLOCK, &["-w", "1"])] {
        let mut command = Command::new(program);
        command.env("LOCKS_URL", &url).args(options).args(["echo", "it ran"]);
        refused.push((tool, output(&mut command)));
    }
    for (tool, refused) in refused {
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(69), ""), "{refused:?}");
        assert_one_line(tool, &refused.stderr, &["no connection to the server", "refused"]);
        assert!(!text(&refused.stderr).contains("geheim"));
        assert_eq!(text(&refused.stderr).matches("refused").count(), 1, "said once: {refused:?}");
    }
}

#[test]
fn who_watches_hears_early_that_the_server_is_not_there() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let waiter =
        Process::start(Command::new(BLOCK).env("LOCKS_URL", url).args(["-v", "--", "echo", "it ran"]));
    let said = waiter.stderr_line();
    assert!(said.starts_with("lock-block: still trying: ") && said.contains("refused"), "{said}");
    waiter.signal(Signal::SIGINT);
    assert_eq!(waiter.wait().code(), Some(130));
}

#[test]
fn a_wrong_password_is_69_and_never_shown() {
    let store = Store::ready();
    let url = store.url().replace("redis://", "redis://nobody-of-this-name:geheim@");
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
