//! The options, one by one: what they do on a directory, and what is refused before anything is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::{Process, Sandbox, UNTIL_EOF, assert_one_line, output, text};

/// Runs both tools with these options before a command, and checks that they are refused and that nothing was touched.
#[track_caller]
fn assert_usage(options: &[&str], words: &[&str]) {
    let sandbox = Sandbox::new();
    for mut tool in [sandbox.abort(), sandbox.block()] {
        let name =
            if tool.get_program().to_string_lossy().ends_with("abort") { "lock-abort" } else { "lock-block" };
        let refused = output(tool.args(options).args(["--", "echo", "it ran"]));
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(64), ""), "{refused:?}");
        assert_one_line(name, &refused.stderr, words);
    }
    assert!(!sandbox.path("locks").exists(), "the store was touched");
}

#[test]
fn what_makes_no_sense_is_refused_before_the_store_is_touched() {
    for flag in ["--ttl", "--max-run", "--min-hold", "--once-per", "--kill-after"] {
        for bad in ["", "-1", "x", "1e3", "5 parsecs"] {
            assert_usage(&[flag, bad], &[flag, "no duration"]);
        }
    }
    for flag in ["--ttl", "--max-run", "--min-hold", "--once-per"] {
        assert_usage(&[flag, "0"], &[flag, "more than 0"]);
    }
    for bad in ["0", "-1", "", "x", "1.5", "4294967296"] {
        assert_usage(&["--permits", bad], &["--permits", "from 1 to 4294967295"]);
    }
    assert_usage(&["--shared", "--permits", "2"], &["--shared", "--permits"]);
    assert_usage(&["--shared", "--once-per", "1h"], &["--once-per", "--shared"]);
    assert_usage(&["--on-lost", "maybe"], &["--on-lost", "kill, warn and ignore"]);
    assert_usage(&["-c", "true"], &["--command", "another one follows"]);
    assert_usage(&["--json-fd", "x"], &["--json-fd", "no number"]);
    assert_usage(&["--json-fd", "-1"], &["--json-fd", "no number"]);
    assert_usage(&["--json-fd", "77"], &["--json-fd", "not open"]);
    assert_usage(&["--json-fd", "0"], &["--json-fd", "writing"]);
    assert_usage(&["--json", "--json-fd", "1"], &["--json", "--json-fd", "together"]);
}

#[test]
fn a_shell_runs_a_line_only_when_asked_to() {
    let sandbox = Sandbox::new();
    for flag in ["-c", "--command"] {
        let shell = output(sandbox.block().args([flag, "echo a; echo \"$LOCK_NAME\" | cut -c 1-3; exit 4"]));
        assert_eq!((shell.status.code(), text(&shell.stdout)), (Some(4), "a\nsh-\n"), "{shell:?}");
    }
    // The line is in the name: another line is another lock.
    let holder = Process::start_up(sandbox.block().args(["-c", "echo up; read line"]));
    for (line, code) in [("echo up; read line", 75), ("true", 0)] {
        assert_eq!(output(sandbox.abort().args(["-c", line])).status.code(), Some(code));
    }
    holder.end();
}

#[test]
fn the_name_can_be_asked_for() {
    let sandbox = Sandbox::new();
    let name = output(sandbox.block().args(["--print-name", "--", "printenv", "LOCK_NAME"]));
    let real = output(sandbox.block().args(["--", "printenv", "LOCK_NAME"]));
    assert_eq!((name.status.code(), text(&name.stderr)), (Some(0), ""));
    assert!(text(&name.stdout).starts_with("printenv-"));
    assert_eq!(name.stdout, real.stdout);
    let own = output(sandbox.abort().args(["--print-name", "--name", "reports/nightly", "true"]));
    assert_eq!(text(&own.stdout), "reports/nightly\n");
}

#[test]
fn a_label_is_shown_to_others() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.block();
    command.args(["--name", "n", "--label", "night shift", "--"]).args(UNTIL_EOF);
    let holder = Process::start_up(&mut command);
    let busy = output(sandbox.abort().args(["--name", "n", "true"]));
    assert_one_line("lock-abort", &busy.stderr, &["(night shift)"]);
    holder.end();
}

#[test]
fn one_per_host_skips_a_second_waiter() {
    let sandbox = Sandbox::new();
    let holder = Process::start_up(sandbox.block().args(["--name", "n", "--"]).args(UNTIL_EOF));
    let alone = |options: &[&str]| {
        let mut command = sandbox.block();
        command.args(["-v", "--one-per-host", "--name", "n"]).args(options).args(["--", "echo", "mine"]);
        command
    };
    let waiter = Process::start(&mut alone(&[]));
    assert!(waiter.stderr_line().contains("waiting"));
    let skipped = output(&mut alone(&[]));
    assert_eq!((skipped.status.code(), text(&skipped.stdout)), (Some(75), ""), "{skipped:?}");
    assert_one_line("lock-block", &skipped.stderr, &["\"n\" is wanted on this host already", "pid"]);
    assert_eq!(output(&mut alone(&["-E", "0"])).status.code(), Some(0));
    // Of another name, or without the option, it is not the same.
    let other = output(sandbox.block().args(["--one-per-host", "--name", "other", "true"]));
    assert_eq!(other.status.code(), Some(0), "{other:?}");
    let behind = Process::start(sandbox.block().args(["-v", "--name", "n", "--", "echo", "behind"]));
    assert!(behind.stderr_line().contains("waiting"));
    holder.end();
    assert_eq!(waiter.line(), "mine");
    waiter.wait();
    assert_eq!(behind.line(), "behind");
    behind.wait();
    assert_eq!(output(&mut alone(&[])).status.code(), Some(0));
}

#[test]
fn a_killed_waiter_does_not_keep_its_place_on_the_host() {
    let sandbox = Sandbox::new();
    let holder = Process::start_up(sandbox.block().args(["--name", "n", "--"]).args(UNTIL_EOF));
    let mut command = sandbox.block();
    command.args(["-v", "--one-per-host", "--name", "n", "true"]);
    let waiter = Process::start(&mut command);
    assert!(waiter.stderr_line().contains("waiting"));
    waiter.signal(Signal::SIGKILL);
    waiter.wait();
    let next = Process::start(&mut command);
    assert!(next.stderr_line().contains("waiting"));
    holder.end();
    assert_eq!(next.wait().code(), Some(0));
}

/// The events of a run, without their times.
fn events(sandbox: &Sandbox, line: &str) -> Vec<String> {
    let script = format!("{} {line} 3>&1 >/dev/null 2>/dev/null", env!("CARGO_BIN_EXE_lock-block"));
    let told = output(sandbox.tool("sh").args(["-c", &script]));
    text(&told.stdout).lines().map(without_time).collect()
}

fn without_time(line: &str) -> String {
    let (begin, rest) = line.split_once("\"time\":\"20").unwrap_or_else(|| panic!("no time: {line}"));
    let (_, end) = rest.split_once("\",").or_else(|| rest.split_once('"')).unwrap();
    format!("{begin}{end}")
}

#[test]
fn events_are_told_to_a_descriptor() {
    let sandbox = Sandbox::new();
    let told = events(&sandbox, "--json-fd 3 --name 'a\"b' -- sh -c 'exit 3'");
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(told[0].starts_with(r#"{"event":"acquired","lock":"a\"b","token":"#), "{told:?}");
    assert!(told[1].starts_with(r#"{"event":"started","pid":"#), "{told:?}");
    assert_eq!(
        told[2..],
        [
            r#"{"event":"ended","code":3}"#,
            r#"{"event":"released","lock":"a\"b"}"#,
            r#"{"event":"exit","code":3}"#
        ]
    );
    let killed = events(&sandbox, "--json-fd 3 -- sh -c 'kill -9 $$'");
    assert_eq!(killed[2], r#"{"event":"ended","signal":9}"#);
    let late = events(&sandbox, "--json-fd 3 --max-run 0.2 --name n -- sleep 600");
    assert_eq!(late[2], r#"{"event":"ending","lock":"n","reason":"max_run"}"#);
    assert_eq!(late[3], r#"{"event":"ended","signal":15}"#);
    assert!(late[5].starts_with(r#"{"event":"failed","lock":"n","message":"the command ran"#), "{late:?}");
    assert_eq!(late[6], r#"{"event":"exit","code":124}"#);

    let holder = Process::start_up(sandbox.block().args(["--name", "n", "--"]).args(UNTIL_EOF));
    let pid = holder.pid;
    let busy = events(&sandbox, "--json-fd 3 -w 0.3 --name n -- true");
    assert_eq!(busy.len(), 3, "{busy:?}");
    assert!(
        busy[0].starts_with(r#"{"event":"waiting","lock":"n","reason":"held","holder":{"host":"#),
        "{busy:?}"
    );
    assert!(busy[0].contains(&format!("\"pid\":{pid}")), "{busy:?}");
    assert!(busy[1].starts_with(r#"{"event":"busy","lock":"n","message":"gave up after 300ms"#), "{busy:?}");
    assert_eq!(busy[2], r#"{"event":"exit","code":75}"#);
    holder.end();
}

/// With `--json` stderr has the events, nothing else of ours, and what the command says.
#[test]
fn events_are_told_on_stderr() {
    let sandbox = Sandbox::new();
    let run = |options: &[&str], command: &[&str]| {
        let mut wrapper = sandbox.tool(env!("CARGO_BIN_EXE_locks"));
        wrapper.args(["run", "--json", "--name", "n"]).args(options).arg("--").args(command);
        let told = output(&mut wrapper);
        let lines: Vec<String> = text(&told.stderr).lines().map(str::to_owned).collect();
        (told.status.code(), text(&told.stdout).to_owned(), lines)
    };
    let kinds = |lines: &[String]| -> Vec<String> {
        let kind = |line: &String| {
            let told = line.strip_prefix("{\"event\":\"").and_then(|rest| rest.split_once('"'));
            told.map_or(line.clone(), |(kind, _)| kind.to_owned())
        };
        lines.iter().map(kind).collect()
    };
    let (code, stdout, told) = run(&["-v"], &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((code, stdout.as_str()), (Some(3), "out\n"));
    let mut told = kinds(&told);
    // The command says it at any time after its start, or just before we tell of that.
    let said = told.iter().position(|line| line == "err").unwrap();
    assert!((1..4).contains(&said), "{told:?}");
    told.remove(said);
    assert_eq!(told, ["acquired", "started", "ended", "released", "exit"]);

    let (code, _, told) = run(&[], &["/nowhere/at/all"]);
    assert_eq!(
        (code, kinds(&told)),
        (Some(127), ["acquired", "released", "failed", "exit"].map(String::from).into())
    );

    let holder = Process::start_up(sandbox.block().args(["--name", "n", "--"]).args(UNTIL_EOF));
    let (code, _, told) = run(&["-w", "0.3"], &["true"]);
    assert_eq!((code, kinds(&told)), (Some(75), ["waiting", "busy", "exit"].map(String::from).into()));
    let (code, _, told) = run(&["-w", "0", "-E", "0"], &["true"]);
    assert_eq!((code, kinds(&told)), (Some(0), ["busy", "exit"].map(String::from).into()));
    holder.end();

    // To a closed stderr it is all the same.
    let closed = format!("{} run --json -- echo out 2>&-", env!("CARGO_BIN_EXE_locks"));
    let closed = output(sandbox.tool("sh").args(["-c", &closed]));
    assert_eq!((closed.status.code(), text(&closed.stdout)), (Some(0), "out\n"), "{closed:?}");
}

/// Nobody who does not listen, or listens no more, is waited for.
#[test]
fn events_may_go_nowhere() {
    let sandbox = Sandbox::new();
    let block = env!("CARGO_BIN_EXE_lock-block");
    for line in [
        format!("{block} --json-fd 3 -- echo out 3>/dev/full"),
        format!("{{ {block} --json-fd 3 -- sh -c 'sleep 0.2; echo out' 3>&1 1>&4 | true; }} 4>&1"),
    ] {
        let deaf = output(sandbox.tool("sh").args(["-c", &line]));
        assert_eq!((deaf.status.code(), text(&deaf.stdout)), (Some(0), "out\n"), "{line}: {deaf:?}");
    }
    // The command does not have it.
    let list = format!("{block} --json-fd 9 --name n -- sh -c 'ls /proc/self/fd' 9>/dev/null");
    let listed = output(sandbox.tool("sh").args(["-c", &list]));
    assert!(!text(&listed.stdout).lines().any(|line| line == "9"), "{listed:?}");
}

#[test]
fn a_configuration_names_stores() {
    let sandbox = Sandbox::new();
    let config = sandbox.path("config.toml");
    let [a, b] = ["a", "b"].map(|name| sandbox.path(name));
    fs::write(
        &config,
        format!(
            "default = 'a'\n[stores.a]\nurl = 'file:{}'\n[stores.b-1]\nurl = 'file:{}'\n",
            a.display(),
            b.display()
        ),
    )
    .unwrap();
    let with = |command: &mut Command| {
        let done = output(command.env("LOCKS_CONFIG", &config).args(["--name", "n", "true"]));
        assert_eq!(done.status.code(), Some(0), "{done:?}");
    };
    with(sandbox.block().env("LOCKS_URL", ""));
    assert!(a.exists() && !b.exists() && !sandbox.path("locks").exists());
    with(sandbox.block().args(["--url", "b-1"]));
    assert!(b.exists());
    let by_variable =
        sandbox.abort().env("LOCKS_URL", "b-1").args(["--config"]).arg(&config).args(["true"]).status();
    assert_eq!(by_variable.unwrap().code(), Some(0));
    // A URL wins over the default.
    with(&mut sandbox.block());
    assert!(sandbox.path("locks").exists());

    for (options, words) in [
        (&["--url", "c"][..], &["--url", "no store \"c\""][..]),
        (&["--no-config", "--url", "b-1"], &["--url", "no configuration has a store of this name"]),
        (&["--config", "x", "--no-config"], &["--config", "--no-config"]),
        (&["--config", "/nonexistent", "--url", "a"], &["/nonexistent", "No such file"]),
    ] {
        let mut command = sandbox.block();
        let refused = output(command.env("LOCKS_CONFIG", &config).args(options).args(["echo", "it ran"]));
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(64), ""), "{refused:?}");
        assert_one_line("lock-block", &refused.stderr, words);
    }
}

/// On a store without schedules and other kinds they would be errors; on this one they do what they say.
#[test]
fn readers_share_and_permits_are_counted() {
    let sandbox = Sandbox::new();
    for (options, more) in [(&["--shared"][..], 2), (&["--permits", "2"], 1)] {
        let hold = || {
            let mut command = sandbox.block();
            command.args(options).args(["--name", "n", "--"]).args(UNTIL_EOF);
            Process::start_up(&mut command)
        };
        let holders: Vec<Process> = (0..more).map(|_| hold()).collect();
        assert!(sandbox.is_taken("n"), "{options:?} keeps an exclusive one out");
        let beside = output(sandbox.abort().args(options).args(["--name", "n", "true"]));
        assert_eq!(beside.status.code(), Some(0), "{beside:?}");
        if options[0] == "--permits" {
            let last = hold();
            let none = output(sandbox.abort().args(options).args(["--name", "n", "true"]));
            assert_eq!(none.status.code(), Some(75), "{none:?}");
            last.end();
            let other = output(sandbox.abort().args(["--permits", "3", "--name", "n", "true"]));
            assert_eq!(other.status.code(), Some(69), "{other:?}");
        }
        for holder in holders {
            holder.end();
        }
        assert!(!sandbox.is_taken("n"));
    }
}

#[test]
fn a_minimum_hold_outlives_a_quick_command() {
    let sandbox = Sandbox::new();
    let begun = Instant::now();
    let quick = output(sandbox.block().args(["--min-hold", "2", "--name", "n", "true"]));
    assert_eq!(quick.status.code(), Some(0), "{quick:?}");
    let early = output(sandbox.abort().args(["--name", "n", "true"]));
    if begun.elapsed().as_millis() < 1_800 {
        assert_eq!(early.status.code(), Some(75), "{early:?}");
        assert_one_line("lock-abort", &early.stderr, &["not due for another"]);
    }
    let patient = output(sandbox.block().args(["--name", "n", "true"]));
    assert_eq!(patient.status.code(), Some(0), "{patient:?}");
    assert!(begun.elapsed().as_millis() >= 1_900);
}

#[test]
fn once_per_interval_counts_only_runs_that_succeeded() {
    let sandbox = Sandbox::new();
    let run = |code: &str| {
        output(sandbox.abort().args(["--once-per", "1h", "--name", "n", "--", "sh", "-c", code]))
            .status
            .code()
    };
    assert_eq!(run("exit 3"), Some(3));
    assert_eq!(run("kill -9 $$"), Some(137));
    assert_eq!(run("exit 0"), Some(0));
    assert_eq!(run("echo it ran"), Some(75));
    // Others may have the lock.
    assert!(!sandbox.is_taken("n"));
}

#[test]
fn a_password_command_or_file_that_fails_is_said_without_what_it_printed() {
    let sandbox = Sandbox::new();
    let config = sandbox.path("config.toml");
    for (how, words) in [
        ("password-command = 'echo geheim; exit 3'", "password-command failed: exit status: 3"),
        ("password-file = '/nonexistent'", "/nonexistent"),
        ("password-env = 'NOBODY_SETS_THIS'", "NOBODY_SETS_THIS"),
        ("password-command = 'true'", "empty"),
    ] {
        fs::write(&config, format!("[stores.r]\nurl = 'redis://127.0.0.1:1'\n{how}\n")).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        let mut command = sandbox.block();
        let refused = output(command.arg("--config").arg(&config).args(["--url", "r", "echo", "it ran"]));
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(69), ""), "{refused:?}");
        assert_one_line("lock-block", &refused.stderr, &["password", words]);
        assert!(!text(&refused.stderr).contains("geheim"));
    }
}
