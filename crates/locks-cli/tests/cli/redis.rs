//! Locks on a Redis server: what the commands promise there, and `locks setup`.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use locks_test_servers::Redis;
use nix::sys::signal::Signal;

use crate::support::{Process, UNTIL_EOF, assert_one_line, by_hand, output, text};

pub(crate) const ABORT: &str = env!("CARGO_BIN_EXE_lock-abort");
pub(crate) const BLOCK: &str = env!("CARGO_BIN_EXE_lock-block");
pub(crate) const LOCKS: &str = env!("CARGO_BIN_EXE_locks");

/// A namespace of its own on a server that others may use too.
pub(crate) struct Store {
    pub(crate) server: Redis,
    pub(crate) namespace: String,
}

impl Store {
    /// Nobody has set it up.
    pub(crate) fn new() -> Self {
        Self { server: Redis::shared().unwrap(), namespace: format!("cli-{:016x}", fastrand::u64(..)) }
    }

    pub(crate) fn ready() -> Self {
        Self::new().set_up()
    }

    /// On a server that nobody else uses and that may be paused or killed.
    pub(crate) fn of_its_own() -> Self {
        Self { server: Redis::start().unwrap(), namespace: "cli".to_owned() }.set_up()
    }

    fn set_up(self) -> Self {
        let store = self;
        assert_eq!(store.locks(["setup"]).status.code(), Some(0));
        store
    }

    pub(crate) fn url(&self) -> String {
        format!("{}?namespace={}", self.server.url(), self.namespace)
    }

    pub(crate) fn tool(&self, program: &str) -> Command {
        by_hand();
        let mut command = Command::new(program);
        command.env("LOCKS_URL", self.url());
        command
    }

    fn locks<const N: usize>(&self, arguments: [&str; N]) -> std::process::Output {
        output(self.tool(LOCKS).args(arguments))
    }

    /// Says something to the server itself.
    pub(crate) fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.server.address()).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Runs a command under the lock "n".
    pub(crate) fn under(&self, tool: &str, options: &[&str], command: &[&str]) -> Command {
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
fn what_a_set_up_would_do_can_be_asked_for_before() {
    let store = Store::new();
    let busy = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(busy.status.code(), Some(75), "{busy:?}");
    for (options, answer) in [
        (["setup", "--print", "--json"], "\"would\":\"end_grace\"}\n"),
        (
            ["setup", "--no-config", "--print"],
            ": the record would be written that no lock was forgotten; there is no schema to be made\n",
        ),
    ] {
        let printed = store.locks(options);
        assert_eq!((printed.status.code(), text(&printed.stderr)), (Some(0), ""), "{printed:?}");
        assert!(text(&printed.stdout).ends_with(answer), "{printed:?}");
        // And nothing was done.
        let busy = output(&mut store.under(ABORT, &[], &["true"]));
        assert_eq!(busy.status.code(), Some(75), "{busy:?}");
    }
    let done = store.locks(["setup", "--json"]);
    assert!(text(&done.stdout).ends_with("\"done\":\"ready\"}\n"), "{done:?}");
    let free = output(&mut store.under(ABORT, &[], &["true"]));
    assert_eq!(free.status.code(), Some(0), "{free:?}");
}

#[test]
fn nothing_has_to_be_collected() {
    let store = Store::ready();
    let collected = store.locks(["gc"]);
    assert_eq!(collected.status.code(), Some(0), "{collected:?}");
    assert!(text(&collected.stdout).contains("nothing to remove"), "{collected:?}");
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

/// Taken by nobody, as far as anybody knows.
#[test]
fn a_server_that_accepts_and_never_answers_is_69() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", mute.local_addr().unwrap());
    for options in [&["-w", "2"][..], &["-v", "-w", "2"], &["-w", "0"]] {
        let refused =
            output(Command::new(BLOCK).env("LOCKS_URL", &url).args(options).args(["--", "echo", "it ran"]));
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(69), ""), "{refused:?}");
        assert!(!text(&refused.stderr).contains("held"), "{refused:?}");
    }
}

/// The password is in the configuration's hands; the command line, the messages and the events don't have it.
#[test]
fn a_password_comes_from_a_file_the_environment_or_a_command() {
    let store = Store::ready();
    // Passwords are checked of users; the default one has none here.
    let user = format!("u{:x}", fastrand::u64(..));
    assert_eq!(store.ask(&format!("ACL SETUSER {user} on >geh@im/1 ~* &* +@all")), "+OK");
    let dir = tempfile::tempdir().unwrap();
    let (config, file) = (dir.path().join("config.toml"), dir.path().join("password"));
    std::fs::write(&file, "geh@im/1\n").unwrap();
    for how in [
        format!("password-file = '{}'", file.display()),
        "password-env = 'PASSWORD_OF_THE_TEST'".to_owned(),
        "password-command = 'echo geh@im/1'".to_owned(),
    ] {
        let entry = format!("[stores.db]\nurl = '{}'\nuser = '{user}'\n{how}\n", store.url());
        std::fs::write(&config, entry).unwrap();
        let mut command = Command::new(BLOCK);
        command.env("LOCKS_CONFIG", &config).env("LOCKS_URL", "db").env("PASSWORD_OF_THE_TEST", "geh@im/1");
        command.args([
            "-v",
            "--name",
            "n",
            "--json-fd",
            "2",
            "--",
            "sh",
            "-c",
            "tr '\\0' ' ' </proc/$PPID/cmdline",
        ]);
        let done = output(&mut command);
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        assert!(!format!("{done:?}").contains("geh"), "{done:?}");
    }
    std::fs::write(&file, "geheim").unwrap();
    let entry = format!(
        "[stores.db]\nurl = '{}'\nuser = '{user}'\npassword-file = '{}'\n",
        store.url(),
        file.display()
    );
    std::fs::write(&config, entry).unwrap();
    let wrong =
        output(Command::new(ABORT).env("LOCKS_CONFIG", &config).args(["--url", "db", "echo", "it ran"]));
    assert_eq!(wrong.status.code(), Some(69), "{wrong:?}");
    assert!(text(&wrong.stderr).contains("login") && !format!("{wrong:?}").contains("geheim"), "{wrong:?}");
    assert_eq!(store.ask(&format!("ACL DELUSER {user}")), ":1");
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

/// The kinds, the schedule and what can be seen of it.
#[test]
fn kinds_schedules_and_status() {
    let store = Store::ready();
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

/// The right to be the one of this host is kept in the user's own directory, from which the test takes its traces.
#[test]
fn one_per_host_counts_processes_of_this_host() {
    let directory =
        nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().dir.join(".local/state/locks");
    let traces = || -> std::collections::HashSet<std::path::PathBuf> {
        let entries = std::fs::read_dir(&directory).into_iter().flatten().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.to_string_lossy().contains("/one-per-host-")).collect()
    };
    let before = traces();
    let store = Store::ready();
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
