//! The command line of `locks`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

use crate::support::{Process, Sandbox, UNTIL_EOF, assert_one_line, output, text};

fn locks(arguments: &[&[u8]]) -> Output {
    let arguments = arguments.iter().map(|bytes| OsStr::from_bytes(bytes));
    output(Command::new(env!("CARGO_BIN_EXE_locks")).env_remove("LOCKS_URL").args(arguments))
}

#[test]
fn what_makes_no_sense_is_64_and_one_line() {
    let cases: [(&[&[u8]], &[&str]); 24] = [
        (&[], &["no command", "--help"]),
        (&[b"nonsense"], &["nonsense", "--help"]),
        (&[b"two\nlines"], &["two\\nlines"]),
        (&[b"\xff"], &["--help"]),
        (&[b"--nonsense"], &["--nonsense", "--help"]),
        (&[b"setup"], &["no URL", "LOCKS_URL", "--help"]),
        (&[b"setup", b"file:/tmp", b"file:/tmp"], &["unexpected", "--help"]),
        (&[b"setup", b"--nonsense"], &["--nonsense"]),
        (&[b"setup", b"\xff"], &["setup", "UTF-8"]),
        (&[b"setup", b""], &["setup", "no scheme"]),
        (&[b"setup", b"redish://user:geheim@h"], &["setup", "\"redish\"", "file:"]),
        (&[b"setup", b"memory:"], &["setup", "memory:", "file:"]),
        (&[b"setup", b"file:relative"], &["setup", "relative"]),
        (&[b"setup", b"--url", b"file:"], &["--url"]),
        (&[b"status"], &["no NAME", "--help"]),
        (&[b"status", b""], &["status", "name"]),
        (&[b"status", b"a", b"b"], &["unexpected"]),
        (&[b"list", b"--print"], &["--print"]),
        (&[b"gc", b"--older-than", b"soon"], &["--older-than", "soon"]),
        (&[b"gc", b"--older-than"], &["--older-than"]),
        (&[b"gc", b"nightly"], &["unexpected", "nightly"]),
        (&[b"completions", b"tcsh"], &["completions", "fish"]),
        (&[b"man", b"nonsense"], &["man", "lock-block"]),
        (&[b"run", b"--nonsense"], &["--nonsense", "locks run --help"]),
    ];
    for (arguments, words) in cases {
        let refused = locks(arguments);
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(64), ""), "{refused:?}");
        let voice = if arguments.first() == Some(&&b"run"[..]) { "locks run" } else { "locks" };
        assert_one_line(voice, &refused.stderr, words);
        assert!(!text(&refused.stderr).contains("geheim"));
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for (arguments, words) in [
        (&[&b"--help"[..]][..], "locks COMMAND"),
        (&[b"-h"], "setup"),
        (&[b"setup", b"--help"], "locks setup [URL]"),
        (&[b"status", b"--help"], "locks status nightly"),
        (&[b"list", b"-h"], "--json"),
        (&[b"gc", b"--help"], "locks gc --older-than 30d"),
        (&[b"run", b"--help"], "locks run --name nightly"),
        (&[b"--version"], concat!("locks ", env!("CARGO_PKG_VERSION"))),
        (&[b"-V"], concat!("locks ", env!("CARGO_PKG_VERSION"))),
    ] {
        let printed = locks(arguments);
        assert_eq!((printed.status.code(), text(&printed.stderr)), (Some(0), ""));
        assert!(text(&printed.stdout).contains(words), "{printed:?}");
        assert!(text(&printed.stdout).lines().all(|line| line.chars().count() <= 100), "{printed:?}");
    }
}

#[test]
fn a_directory_has_nothing_to_set_up() {
    let sandbox = Sandbox::new();
    let directory = sandbox.url();
    for mut command in [Command::new(env!("CARGO_BIN_EXE_locks")), sandbox.tool(env!("CARGO_BIN_EXE_locks"))]
    {
        command.arg("setup");
        if command.get_envs().count() == 0 {
            command.arg(&directory);
        }
        let done = output(&mut command);
        assert_eq!((done.status.code(), text(&done.stderr)), (Some(0), ""), "{done:?}");
        let expected =
            format!("{directory}: nothing to set up, stores of this kind are ready by themselves\n");
        assert_eq!(text(&done.stdout), expected);
    }
    assert!(!sandbox.is_taken("n"));
}

#[test]
fn what_would_be_set_up_can_be_asked_for() {
    let sandbox = Sandbox::new();
    let directory = sandbox.url();
    let printed =
        output(Command::new(env!("CARGO_BIN_EXE_locks")).args(["setup", "--print", "--json", &directory]));
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    assert_eq!(text(&printed.stdout), format!("{{\"url\":\"{directory}\",\"would\":\"nothing\"}}\n"));
    let done = output(Command::new(env!("CARGO_BIN_EXE_locks")).args(["setup", "--json", &directory]));
    assert_eq!(text(&done.stdout), format!("{{\"url\":\"{directory}\",\"done\":\"nothing\"}}\n"));
}

#[test]
fn run_is_lock_block() {
    let sandbox = Sandbox::new();
    let run = |arguments: &[&str]| {
        let mut command = sandbox.tool(env!("CARGO_BIN_EXE_locks"));
        command.arg("run").args(arguments);
        output(&mut command)
    };
    assert_eq!(run(&["--name", "n", "sh", "-c", "exit 3"]).status.code(), Some(3));
    let holder = Process::start_up(sandbox.block().args(["--name", "n", "--"]).args(UNTIL_EOF));
    let busy = run(&["--name", "n", "-w", "0", "true"]);
    assert_eq!(busy.status.code(), Some(75));
    assert_one_line("locks run", &busy.stderr, &["held by pid"]);
    holder.end();
}

#[test]
fn status_and_list_say_who_holds_and_who_waits() {
    let sandbox = Sandbox::new();
    let locks = |arguments: &[&str]| {
        let shown = output(sandbox.tool(env!("CARGO_BIN_EXE_locks")).args(arguments));
        assert_eq!((shown.status.code(), text(&shown.stderr)), (Some(0), ""), "{shown:?}");
        text(&shown.stdout).to_owned()
    };
    assert_eq!(locks(&["status", "a/1"]), "\"a/1\" is free\n");
    assert_eq!(locks(&["list"]), "");
    assert_eq!(locks(&["list", "--json"]), "[]\n");
    let mut holders = Vec::new();
    for name in ["a/1", "a/2", "b"] {
        let mut command = sandbox.block();
        command.args(["--name", name, "--label", "l", "--"]).args(UNTIL_EOF);
        holders.push(Process::start_up(&mut command));
    }
    let said = locks(&["status", "a/1"]);
    let who = format!("by pid {} on ", holders[0].pid);
    assert!(said.starts_with("\"a/1\" is held\n  by pid") && said.contains(&who), "{said}");
    assert!(said.contains("(l)") && said.contains("exclusive"), "{said}");
    let json = locks(&["status", "--json", "a/1"]);
    assert!(json.starts_with("{\"lock\":\"a/1\",\"held\":true,\"holders\":[{\"host\":\""), "{json}");
    assert!(json.contains(&format!("\"pid\":{},\"label\":\"l\"", holders[0].pid)), "{json}");
    assert!(json.contains("\"mode\":\"exclusive\""), "{json}");
    let listed = locks(&["list", "a/"]);
    let heads: Vec<&str> = listed.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(heads, ["\"a/1\" is held", "\"a/2\" is held"]);
    assert_eq!(locks(&["list", "--json"]).matches("\"lock\":").count(), 3);
    for holder in holders {
        holder.end();
    }
    assert_eq!(locks(&["status", "a/1"]), "\"a/1\" is free\n");
}

/// Files of locks that are in use stay, as do young ones.
#[test]
fn gc_removes_the_files_of_locks_that_nobody_uses() {
    let sandbox = Sandbox::new();
    let locks = |arguments: &[&str]| {
        let shown = output(sandbox.tool(env!("CARGO_BIN_EXE_locks")).args(arguments));
        assert_eq!((shown.status.code(), text(&shown.stderr)), (Some(0), ""), "{shown:?}");
        text(&shown.stdout).to_owned()
    };
    for name in ["a", "b", "c"] {
        assert_eq!(output(sandbox.abort().args(["--name", name, "true"])).status.code(), Some(0));
    }
    let holder = Process::start_up(sandbox.block().args(["--name", "c", "--"]).args(UNTIL_EOF));
    let url = sandbox.url();
    assert_eq!(locks(&["gc"]), format!("{url}: 0 removed, 3 kept\n"));
    assert_eq!(
        locks(&["gc", "--older-than", "0", "--json"]),
        format!("{{\"url\":\"{url}\",\"removed\":2,\"kept\":1}}\n")
    );
    assert!(sandbox.is_taken("c"));
    holder.end();
    assert_eq!(locks(&["gc", "--older-than", "0s"]), format!("{url}: 1 removed, 0 kept\n"));
    assert_eq!(output(sandbox.abort().args(["--name", "a", "true"])).status.code(), Some(0));
}

/// What was generated knows every option, and who reads it understands it.
#[test]
fn completions_and_manual_pages_know_every_option() {
    for program in ["lock-abort", "lock-block", "locks"] {
        let help = output(Command::new(env!("CARGO_BIN_EXE_lock-block")).arg("--help"));
        let flags: Vec<&str> = text(&help.stdout)
            .split_whitespace()
            .filter(|word| {
                word.starts_with("--") && word.len() > 2 && *word != "--timeout" && !word.ends_with(';')
            })
            .collect();
        assert!(flags.len() > 20, "{flags:?}");
        for shell in ["bash", "zsh", "fish"] {
            let script = locks(&[b"completions", shell.as_bytes(), program.as_bytes()]);
            assert_eq!((script.status.code(), text(&script.stderr)), (Some(0), ""), "{script:?}");
            for flag in &flags {
                let flag = if shell == "fish" { &flag[2..] } else { flag };
                assert!(text(&script.stdout).contains(flag), "{program} {shell} {flag}");
            }
        }
        let script = locks(&[b"completions", b"bash", program.as_bytes()]);
        let checked = output(Command::new("bash").args(["-n", "-c", text(&script.stdout)]));
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");

        let page = locks(&[b"man", program.as_bytes()]);
        assert_eq!((page.status.code(), text(&page.stderr)), (Some(0), ""));
        assert!(text(&page.stdout).contains(".TH"), "{page:?}");
        if program != "locks" {
            for flag in &flags {
                assert!(text(&page.stdout).replace("\\-", "-").contains(flag), "{program} {flag}");
            }
        }
    }
}
