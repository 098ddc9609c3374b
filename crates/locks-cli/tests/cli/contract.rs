//! What a command and its caller may rely on.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::unistd::{Pid, gethostname, getpgid, getsid};

use crate::support::{Process, Sandbox, UNTIL_EOF, assert_one_line, output, text};

#[test]
fn the_commands_exit_code_is_ours() {
    let sandbox = Sandbox::new();
    for code in [0, 1, 3, 64, 75, 79, 126, 127, 128, 143, 255] {
        for mut tool in [sandbox.abort(), sandbox.block()] {
            let output = output(tool.args(["--", "sh", "-c", &format!("exit {code}")]));
            assert_eq!(output.status.code(), Some(code));
            assert_eq!((text(&output.stdout), text(&output.stderr)), ("", ""));
        }
    }
}

#[test]
fn a_signal_that_ends_the_command_is_128_and_its_number() {
    let sandbox = Sandbox::new();
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("PIPE", 141), ("HUP", 129)] {
        let output = output(sandbox.block().args(["sh", "-c", &format!("kill -{signal} $$")]));
        assert_eq!(output.status.code(), Some(code), "{signal}: {output:?}");
    }
}

#[test]
fn a_command_that_cant_run_is_126_or_127_and_leaves_the_lock_free() {
    let sandbox = Sandbox::new();
    let plain_text = sandbox.path("text");
    fs::write(&plain_text, "echo this is no program\n").unwrap();
    let not_a_program = sandbox.path("script");
    fs::write(&not_a_program, "echo no shell reads this\n").unwrap();
    fs::set_permissions(&not_a_program, Permissions::from_mode(0o755)).unwrap();
    let absent = sandbox.path("absent");
    let cases: [(&OsStr, i32, &str); 5] = [
        (OsStr::new("no-such-command-anywhere"), 127, "No such file"),
        (OsStr::new(""), 127, "No such file"),
        (absent.as_os_str(), 127, "No such file"),
        (plain_text.as_os_str(), 126, "Permission denied"),
        (not_a_program.as_os_str(), 126, "#!/bin/sh"),
    ];
    for (command, code, words) in cases {
        let output = output(sandbox.block().args(["--name", "n", "--"]).arg(command));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_one_line("lock-block", &output.stderr, &["can't run", words]);
        assert!(!sandbox.is_taken("n"));
    }
}

#[test]
fn a_taken_lock_is_75_and_says_who_has_it() {
    let sandbox = Sandbox::new();
    let holder = Process::start_up(sandbox.block().args(["--name", "n", "--"]).args(UNTIL_EOF));
    let host = gethostname().unwrap().into_string().unwrap();
    let who = format!("held by pid {} on {host}", holder.pid);
    let ran = sandbox.path("ran");

    let tries: [(&str, &[&str], i32); 6] = [
        ("lock-abort", &[], 75),
        ("lock-block", &["--timeout", "0"], 75),
        ("lock-block", &["-w", "0.05"], 75),
        ("lock-abort", &["-E", "0"], 0),
        ("lock-abort", &["--conflict-exit-code=33"], 33),
        ("lock-block", &["-w", "50ms", "-E", "255"], 255),
    ];
    for (tool, options, code) in tries {
        let mut command = if tool == "lock-abort" { sandbox.abort() } else { sandbox.block() };
        command.args(["--name", "n"]).args(options).arg("--").arg("touch").arg(&ran);
        let loud = output(&mut command);
        assert_eq!(loud.status.code(), Some(code), "{loud:?}");
        assert_one_line(tool, &loud.stderr, &["\"n\"", &who, "(since 20"]);
        assert_eq!(text(&loud.stdout), "");

        let mut quiet = if tool == "lock-abort" { sandbox.abort() } else { sandbox.block() };
        quiet.args(["-q", "--name", "n"]).args(options).arg("--").arg("touch").arg(&ran);
        let quiet = output(&mut quiet);
        assert_eq!((quiet.status.code(), text(&quiet.stderr)), (Some(code), ""));
    }
    assert!(!ran.exists());
    assert_eq!(holder.end().code(), Some(1)); // of `read` at the end of its input
    assert!(!sandbox.is_taken("n"));
}

#[test]
fn lock_block_waits_for_its_turn() {
    let sandbox = Sandbox::new();
    for timeout in [&[][..], &["--timeout", "1h"], &["-w", "99999999999"]] {
        let holder = Process::start_up(sandbox.block().args(["--name", "n", "--"]).args(UNTIL_EOF));
        let waiter =
            Process::start(sandbox.block().args(["-v", "--name", "n"]).args(timeout).args(["echo", "mine"]));
        let said = waiter.stderr_line();
        assert!(said.starts_with("lock-block: waiting: \"n\" is held by pid "), "{said}");
        holder.end();
        assert_eq!(waiter.line(), "mine");
        assert!(waiter.stderr_line().starts_with("lock-block: acquired \"n\", fencing token "));
        assert_eq!(waiter.stderr_line(), "lock-block: released \"n\"");
        assert_eq!(waiter.wait().code(), Some(0));
    }
}

#[test]
fn arguments_arrive_byte_for_byte() {
    let sandbox = Sandbox::new();
    let arguments: Vec<&OsStr> = [
        &b"a"[..],
        b"b c",
        b"",
        b"*",
        b"$HOME `id` $(id)",
        b"\"quoted\" 'twice'",
        b"back\\slash",
        b"two\nlines",
        b"\xff\xfe",
        b"--",
        b"-q",
        b"--name",
        b"--help",
    ]
    .map(OsStr::from_bytes)
    .to_vec();
    let mut expected = Vec::new();
    for argument in &arguments {
        expected.extend_from_slice(argument.as_bytes());
        expected.push(0);
    }
    for separator in [&["--"][..], &[]] {
        for mut tool in [sandbox.abort(), sandbox.block()] {
            tool.args(separator).args(["printf", "%s\\0"]).args(&arguments);
            let output = output(&mut tool);
            assert_eq!(output.stdout, expected, "{output:?}");
        }
    }
}

#[test]
fn the_default_name_is_the_exact_command() {
    let sandbox = Sandbox::new();
    let script = "echo up; read line";
    let command = |last: &[&str]| -> Vec<String> {
        ["--", "sh", "-c", script].iter().chain(last).map(ToString::to_string).collect()
    };
    let holder = Process::start_up(sandbox.block().args(command(&["a", "b c"])));
    let attempt = |arguments: &[String]| output(sandbox.abort().args(arguments)).status.code();
    assert_eq!(attempt(&command(&["a", "b c"])), Some(75));
    // The same command without the separator, and from the other tool.
    assert_eq!(attempt(&command(&["a", "b c"])[1..]), Some(75));
    let other_tool = output(sandbox.block().args(["-w", "0"]).args(command(&["a", "b c"])));
    assert_eq!(other_tool.status.code(), Some(75));
    for other in [&["a b", "c"][..], &["a", "b", "c"], &["a", "b c", ""], &["a b c"], &["a", "b c "]] {
        assert_eq!(attempt(&command(other)), Some(1), "{other:?}");
    }
    holder.end();
}

#[test]
fn a_default_name_shows_the_program_and_not_its_arguments() {
    let sandbox = Sandbox::new();
    let long = output_of_env(&sandbox, &["printenv", "LOCK_NAME"]);
    assert!(long.starts_with("printenv-"));
    let huge = "a".repeat(100_000);
    let many = output(sandbox.block().args(["/bin/echo", &huge]).arg(OsStr::from_bytes(b"\xff")));
    assert_eq!((many.status.code(), many.stdout.len()), (Some(0), 100_003));
    let names = output_of_env(&sandbox, &["sh", "-c", "echo $LOCK_NAME", "password=hunter2"]);
    let (readable, digits) = names.trim_end().rsplit_once('-').unwrap();
    assert_eq!(readable, "sh");
    assert_eq!(digits.len(), 64);
}

#[test]
fn the_environment_is_kept_and_ours_comes_last() {
    let sandbox = Sandbox::new();
    let surroundings = |command: &mut Command| {
        command
            .env_clear()
            .envs([
                ("PATH", "/usr/bin:/bin"),
                ("EMPTY", ""),
                ("NEWLINE", "a\nb"),
                ("LOCKS_URL", &sandbox.url()),
            ])
            .env("BYTES", OsStr::from_bytes(b"\xff"))
            .envs([("LOCK_NAME", "outer"), ("LOCK_FENCING_TOKEN", "1"), ("LOCK_BACKEND", "outer")]);
        let mut variables: Vec<Vec<u8>> =
            output(command).stdout.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        variables.sort();
        variables.retain(|variable| !variable.starts_with(b"LOCK_"));
        variables
    };
    let plain = surroundings(Command::new("env").arg("-0"));
    let locked = surroundings(sandbox.block().args(["--name", "n", "env", "-0"]));
    assert!(plain.len() > 5);
    assert_eq!(plain, locked);

    let ours = output_of_env(&sandbox, &["sh", "-c", "echo $LOCK_NAME $LOCK_BACKEND $LOCK_FENCING_TOKEN"]);
    let words: Vec<&str> = ours.split_whitespace().collect();
    assert!(words[0].starts_with("sh-"), "{ours}");
    assert_eq!(words[1], "file");
    assert!(words[2].parse::<u64>().unwrap() > 1);
}

fn output_of_env(sandbox: &Sandbox, command: &[&str]) -> String {
    let output = output(sandbox.block().env("LOCK_NAME", "outer").arg("--").args(command));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    text(&output.stdout).to_owned()
}

#[test]
fn a_nested_wrapper_shows_its_own_lock_and_token() {
    let sandbox = Sandbox::new();
    let block = env!("CARGO_BIN_EXE_lock-block");
    let show = "echo $LOCK_NAME $LOCK_FENCING_TOKEN";
    let script = format!("{show}; {block} -v --name inner -- sh -c '{show}'; {show}");
    let output = output(sandbox.block().args(["-v", "--name", "outer", "--", "sh", "-c", &script]));
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    let told: Vec<&str> = text(&output.stderr).lines().filter(|line| line.contains("acquired")).collect();
    assert_eq!(lines.len(), 3, "{output:?}");
    assert_eq!(lines[0], lines[2]);
    for (line, told) in [(lines[0], told[0]), (lines[1], told[1])] {
        let (name, token) = line.split_once(' ').unwrap();
        assert_eq!(told, format!("lock-block: acquired \"{name}\", fencing token {token}"));
    }
    assert!(lines[0].starts_with("outer ") && lines[1].starts_with("inner "));
}

#[test]
fn tokens_grow() {
    let sandbox = Sandbox::new();
    let mut last = 0;
    for _ in 0..20 {
        let output = output(sandbox.block().args(["--name", "n", "sh", "-c", "echo $LOCK_FENCING_TOKEN"]));
        let token: u64 = text(&output.stdout).trim().parse().unwrap();
        assert!(token > last, "{token} after {last}");
        last = token;
    }
}

#[test]
fn standard_streams_directory_and_umask_are_the_callers() {
    let sandbox = Sandbox::new();
    let mut cat = sandbox.block().arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let input = [b"line\n".repeat(10_000), vec![0, 255]].concat();
    let mut stdin = cat.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let input = input.clone();
        move || stdin.write_all(&input).unwrap()
    });
    assert_eq!(cat.wait_with_output().unwrap().stdout, input);
    writer.join().unwrap();

    let script = format!(
        "umask 027; cd /usr; exec {} -- sh -c 'umask; pwd; echo err >&2'",
        env!("CARGO_BIN_EXE_lock-block")
    );
    let output = output(sandbox.tool("sh").args(["-c", &script]));
    assert_eq!(text(&output.stdout), "0027\n/usr\n");
    assert_eq!(text(&output.stderr), "err\n");
}

/// Beside the standard streams a command gets one descriptor: that of its lock.
#[cfg(target_os = "linux")]
#[test]
fn nothing_leaks_into_the_command() {
    let sandbox = Sandbox::new();
    let list = ["find", "/proc/self/fd", "-mindepth", "1", "-printf", "%f %l\\n"];
    let descriptors = |command: &mut Command| -> Vec<String> {
        let output = output(command);
        text(&output.stdout).lines().map(str::to_owned).collect()
    };
    let plain = descriptors(Command::new(list[0]).args(&list[1..]));
    let locked = descriptors(sandbox.block().args(["--name", "n", "--"]).args(list));
    let is_lock = |line: &&String| line.ends_with(&format!("{}/n.lock", sandbox.path("locks").display()));
    assert_eq!(locked.iter().filter(is_lock).count(), 1, "{locked:?}");
    assert_eq!(locked.len(), plain.len() + 1, "{locked:?} beside {plain:?}");
}

/// Neither a thread nor, with it, a runtime: a free lock costs next to nothing.
#[cfg(target_os = "linux")]
#[test]
fn a_free_lock_starts_no_thread() {
    let sandbox = Sandbox::new();
    for mut tool in [sandbox.abort(), sandbox.block()] {
        let output = output(tool.args(["sh", "-c", "grep Threads: /proc/$PPID/status"]));
        assert_eq!(text(&output.stdout), "Threads:\t1\n");
    }
}

/// Whatever our parent blocked or ignored, the command finds it so, and we still learn of its end.
#[cfg(target_os = "linux")]
#[test]
fn the_signal_mask_and_ignored_signals_are_the_callers() {
    let sandbox = Sandbox::new();
    let block = env!("CARGO_BIN_EXE_lock-block");
    let look = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"];
    let settings: [&[&str]; 5] = [
        &[],
        &["--block-signal=USR1,TERM"],
        &["--ignore-signal=HUP,INT,USR2"],
        &["--block-signal=CHLD"],
        &["--block-signal", "--ignore-signal=TERM"],
    ];
    for setting in settings {
        let plain = output(sandbox.tool("env").args(setting).args(look));
        let locked = output(sandbox.tool("env").args(setting).arg(block).args(look));
        assert_eq!(text(&plain.stdout).lines().count(), 2);
        assert_eq!(text(&plain.stdout), text(&locked.stdout), "{setting:?}");
    }
    let ignored = output(sandbox.tool("env").args(["--ignore-signal=CHLD", block, "sh", "-c", "exit 3"]));
    assert_eq!(ignored.status.code(), Some(3));
}

#[test]
fn the_command_leads_a_process_group_of_its_own() {
    let sandbox = Sandbox::new();
    let process = Process::start_up(sandbox.block().args(["sh", "-c", "echo up; echo $$; read line"]));
    let command = Pid::from_raw(process.line().parse().unwrap());
    assert_eq!(getpgid(Some(command)), Ok(command));
    assert_eq!(getsid(Some(command)), getsid(Some(process.pid)));
    process.end();
}

#[test]
fn our_own_words_go_to_stderr_and_may_go_nowhere() {
    let sandbox = Sandbox::new();
    let output_of = |redirection: &str| {
        let block = env!("CARGO_BIN_EXE_lock-block");
        output(sandbox.tool("sh").args(["-c", &format!("{block} -v --name n -- echo out {redirection}")]))
    };
    let loud = output_of("");
    assert_eq!(text(&loud.stdout), "out\n");
    assert_eq!(text(&loud.stderr).lines().count(), 2, "{loud:?}");
    for redirection in ["2>&-", "2>/dev/null", "2>/dev/full"] {
        let deaf = output_of(redirection);
        assert_eq!((deaf.status.code(), text(&deaf.stdout)), (Some(0), "out\n"), "{redirection}");
    }
    assert_eq!(output_of(">&-").status.code().filter(|code| *code > 64), None);
}

#[test]
fn help_and_version_are_answers() {
    let sandbox = Sandbox::new();
    for mut tool in [sandbox.abort(), sandbox.block()] {
        let name = tool.get_program().to_string_lossy().rsplit('/').next().unwrap().to_owned();
        let help = output(tool.arg("--help"));
        assert_eq!((help.status.code(), text(&help.stderr)), (Some(0), ""));
        let help = text(&help.stdout);
        assert!(help.contains(&format!("Usage: {name} [OPTIONS] [--] CMD [ARG]...")), "{help}");
        for flag in [
            "--url",
            "--name",
            "--conflict-exit-code",
            "--ttl",
            "--shared",
            "--permits",
            "--command",
            "--max-run",
            "--kill-after",
            "--on-lost",
            "--min-hold",
            "--once-per",
            "--one-per-host",
            "--no-inherit",
            "--label",
            "--print-name",
            "--json-fd",
            "--quiet",
            "--verbose",
        ] {
            assert!(help.contains(flag), "{flag}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 98), "{help}");
        assert_eq!(help.contains("--timeout"), name == "lock-block");
    }
    let version = output(sandbox.abort().arg("--version"));
    assert_eq!(text(&version.stdout), format!("lock-abort {}\n", env!("CARGO_PKG_VERSION")));
}

/// The flag wins over the environment, and an empty variable counts as none.
#[test]
fn the_url_comes_from_the_flag_or_the_environment() {
    let sandbox = Sandbox::new();
    let elsewhere = format!("file:{}", sandbox.path("elsewhere").display());
    let output_of = |command: &mut Command| output(command.args(["--name", "n", "true"]));
    assert_eq!(output_of(sandbox.block().args(["--url", &elsewhere])).status.code(), Some(0));
    assert!(sandbox.path("elsewhere").exists());
    assert!(!sandbox.path("locks").exists());
    assert_eq!(output_of(&mut sandbox.block()).status.code(), Some(0));
    assert!(sandbox.path("locks").exists());
    let flag_beside_empty =
        sandbox.block().env("LOCKS_URL", "").args(["--url", &elsewhere]).args(["true"]).status();
    assert_eq!(flag_beside_empty.unwrap().code(), Some(0));
}

/// Every option that goes with the others, and a ttl is fine for a store without expiry.
#[test]
fn all_options_together() {
    let sandbox = Sandbox::new();
    let url = sandbox.url();
    let all = [
        "--url",
        &url,
        "--name",
        "n",
        "--timeout",
        "1m",
        "-E",
        "7",
        "--ttl",
        "15s",
        "--max-run",
        "1m",
        "--kill-after",
        "5",
        "--on-lost",
        "warn",
        "--one-per-host",
        "--no-inherit",
        "--label",
        "l",
        "--json-fd",
        "1",
        "--no-config",
        "--quiet",
        "--",
        "true",
    ];
    let output = output(Command::new(env!("CARGO_BIN_EXE_lock-block")).args(all));
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}
