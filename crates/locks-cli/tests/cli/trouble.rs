//! Bad input and a store in trouble: one line that names the thing, before any command runs, and nothing half-taken.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;

use crate::support::{Sandbox, assert_one_line, output};

/// Runs `command` with a command that would leave a mark, and checks that it did not.
#[track_caller]
fn assert_refused(sandbox: &Sandbox, command: &mut Command, code: i32, words: &[&str]) {
    let mark = sandbox.path("ran");
    let output = output(command.arg("--").arg("touch").arg(&mark));
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let tool = Path::new(command.get_program()).file_name().unwrap().to_str().unwrap();
    assert_one_line(if tool.starts_with("lock-") { tool } else { "lock-block" }, &output.stderr, words);
    assert!(output.stdout.is_empty());
    assert!(!mark.exists(), "the command ran");
}

/// Runs both tools with these arguments.
#[track_caller]
fn assert_usage(arguments: &[&[u8]], words: &[&str]) {
    let sandbox = Sandbox::new();
    for mut tool in [sandbox.abort(), sandbox.block()] {
        assert_refused(
            &sandbox,
            tool.args(arguments.iter().map(|bytes| OsStr::from_bytes(bytes))),
            64,
            words,
        );
    }
    assert!(!sandbox.path("locks").exists(), "the store was touched");
}

#[test]
fn options_that_make_no_sense() {
    assert_usage(&[b"--nmae", b"x"], &["--nmae", "--help"]);
    assert_usage(&[b"-x"], &["-x"]);
    assert_usage(&[b"--quiet=yes"], &["--quiet"]);
    assert_usage(&[b"-q", b"-v"], &["--quiet", "--verbose"]);
    assert_usage(&[b"--two\nlines"], &["two\\nlines"]);
    for code in [&b"256"[..], b"-1", b"x", b""] {
        assert_usage(&[b"-E", code], &["--conflict-exit-code", "0 to 255"]);
    }
}

#[test]
fn no_command() {
    let sandbox = Sandbox::new();
    for mut tool in [sandbox.abort(), sandbox.block()] {
        let name = Path::new(tool.get_program()).file_name().unwrap().to_str().unwrap().to_owned();
        let none = output(&mut tool);
        assert_eq!(none.status.code(), Some(64));
        assert_one_line(&name, &none.stderr, &["no command", "CMD"]);
        let value_missing = output(tool.arg("--name"));
        assert_eq!(value_missing.status.code(), Some(64));
        assert_one_line(&name, &value_missing.stderr, &["--name"]);
    }
}

#[test]
fn lock_abort_has_no_timeout() {
    let sandbox = Sandbox::new();
    for timeout in [&["--timeout", "5"][..], &["--timeout=0"], &["-w", "1"], &["-w1"]] {
        assert_refused(
            &sandbox,
            sandbox.abort().args(timeout),
            64,
            &["--timeout", "never waits", "lock-block"],
        );
    }
}

#[test]
fn bad_durations() {
    let sandbox = Sandbox::new();
    let overflow = "9".repeat(30);
    for bad in ["-5", "-1s", "5x", "", "1e3", "soon", "NaN", "inf", "5 parsecs", &overflow] {
        assert_refused(&sandbox, sandbox.block().args(["--timeout", bad]), 64, &["--timeout", "duration"]);
        assert_usage(&[b"--ttl", bad.as_bytes()], &["--ttl", "duration"]);
    }
    assert_refused(&sandbox, sandbox.block().arg("--timeout=-5"), 64, &["--timeout", "-5"]);
    assert_refused(&sandbox, sandbox.block().args(["-w", "-5"]), 64, &["--timeout", "-5"]);
    assert_usage(&[b"--ttl", b"0"], &["--ttl"]);
    assert_usage(&[b"--ttl", b"\xff"], &["--ttl", "UTF-8"]);
}

#[test]
fn bad_names() {
    assert_usage(&[b"--name", b""], &["--name", "empty"]);
    assert_usage(&[b"--name="], &["--name", "empty"]);
    assert_usage(&[b"--name", &b"x".repeat(1_025)], &["--name", "1024", "1025"]);
    assert_usage(&[b"--name", b"\xff"], &["--name", "UTF-8"]);
    let sandbox = Sandbox::new();
    for good in ["x".repeat(1_024), "é".repeat(512), "../../x".to_owned(), "-x".to_owned(), "a\nb".to_owned()]
    {
        let output =
            output(sandbox.block().args(["--name", &good, "--", "sh", "-c", "printf %s \"$LOCK_NAME\""]));
        assert_eq!((output.status.code(), &*output.stdout), (Some(0), good.as_bytes()));
    }
}

#[test]
fn bad_urls() {
    for url in ["redish:x", "REDISH://user:secret@host/0", "foo://h"] {
        let scheme = format!("\"{}\"", url.split(':').next().unwrap().to_lowercase());
        assert_usage(&[b"--url", url.as_bytes()], &["--url", &scheme, "file:"]);
    }
    assert_usage(&[b"--url", b""], &["--url", "no scheme"]);
    assert_usage(&[b"--url", b"/var/lock"], &["--url", "no scheme", "file:/"]);
    assert_usage(&[b"--url", b"file:relative"], &["--url", "relative"]);
    assert_usage(&[b"--url", b"memory:"], &["--url", "memory:", "file:"]);
    assert_usage(&[b"--url", b"\xff"], &["--url", "UTF-8"]);

    let sandbox = Sandbox::new();
    let secret = output(sandbox.block().args(["--url", "redish://user:secret@host/0", "true"]));
    assert!(!String::from_utf8_lossy(&secret.stderr).contains("secret"), "{secret:?}");
    assert_refused(
        &sandbox,
        sandbox.block().env("LOCKS_URL", "redish:"),
        64,
        &["LOCKS_URL", "\"redish\"", "file:"],
    );
    assert_refused(
        &sandbox,
        sandbox.abort().env("LOCKS_URL", OsStr::from_bytes(b"\xff")),
        64,
        &["LOCKS_URL"],
    );
}

/// As nobody, if we are root: root may write anywhere.
fn unprivileged(sandbox: &Sandbox) -> Command {
    let program = sandbox.path("lock-block");
    // By a process of its own: what another test starts meanwhile would inherit our writing end, and a file that is open for writing
    // can't be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_lock-block")).arg(&program).status();
    assert!(copied.unwrap().success());
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(program.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let mut command = sandbox.tool(program);
    if geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    command
}

#[test]
fn a_directory_that_cant_be_made_or_written() {
    let sandbox = Sandbox::new();
    let mut command = unprivileged(&sandbox);
    fs::create_dir(sandbox.path("shut")).unwrap();
    fs::set_permissions(sandbox.path("shut"), Permissions::from_mode(0o555)).unwrap();
    let below = sandbox.path("shut/locks");
    command.arg("--url").arg(format!("file:{}", below.display()));
    assert_refused(&sandbox, &mut command, 69, &[below.to_str().unwrap(), "choose another directory"]);
    let mut command = unprivileged(&sandbox);
    command.arg("--url").arg(format!("file:{}", sandbox.path("shut").display()));
    assert_refused(
        &sandbox,
        &mut command,
        69,
        &[sandbox.path("shut").to_str().unwrap(), "choose another directory"],
    );
    assert_eq!(fs::read_dir(sandbox.path("shut")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_others_may_write() {
    let sandbox = Sandbox::new();
    let locks = sandbox.path("locks");
    fs::create_dir(&locks).unwrap();
    fs::set_permissions(&locks, Permissions::from_mode(0o777)).unwrap();
    assert_refused(&sandbox, &mut sandbox.block(), 69, &[locks.to_str().unwrap(), "chmod"]);
    assert_eq!(fs::read_dir(&locks).unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_a_file() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("locks"), "").unwrap();
    assert_refused(&sandbox, &mut sandbox.block(), 64, &["LOCKS_URL", "not a directory"]);
}

/// Where the file backend keeps the lock "n".
fn lock_file(sandbox: &Sandbox) -> PathBuf {
    assert!(!sandbox.is_taken("n"));
    let file = sandbox.path("locks/n.lock");
    assert!(file.is_file());
    file
}

#[test]
fn a_lock_that_is_no_regular_file() {
    type Make = fn(&Path);
    let cases: [(&str, Make); 4] = [
        ("symbolic link", |path| symlink("elsewhere", path).unwrap()),
        ("symbolic link", |path| symlink("/dev/null", path).unwrap()),
        ("not a regular file", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("not a regular file", |path| fs::create_dir(path).unwrap()),
    ];
    for (what, make) in cases {
        let sandbox = Sandbox::new();
        let file = lock_file(&sandbox);
        fs::remove_file(&file).unwrap();
        make(&file);
        for mut tool in [sandbox.abort(), sandbox.block()] {
            assert_refused(
                &sandbox,
                tool.args(["--name", "n"]),
                69,
                &[file.to_str().unwrap(), what, "remove it"],
            );
        }
        assert!(!sandbox.path("locks/elsewhere").exists());
        assert!(!sandbox.is_taken("another"));
    }
}

/// Whatever step it is that gets no descriptor: it is said, nothing runs, and with enough of them everything is free.
#[test]
fn no_descriptors_left() {
    let sandbox = Sandbox::new();
    assert!(!sandbox.is_taken("n"));
    let mark = sandbox.path("ran");
    let mut refused = 0;
    for limit in 4..=12 {
        let script = format!(
            "ulimit -n {limit}; exec {} --name n -- touch {}",
            env!("CARGO_BIN_EXE_lock-block"),
            mark.display()
        );
        let output = output(sandbox.tool("sh").args(["-c", &script]));
        match output.status.code() {
            Some(0) => {
                fs::remove_file(&mark).unwrap();
            }
            // The command itself may need more than the wrapper.
            Some(1) => {}
            Some(69 | 126) => {
                refused += 1;
                assert_one_line("lock-block", &output.stderr, &["open files"]);
                assert!(!mark.exists());
            }
            _ => panic!("{limit}: {output:?}"),
        }
        assert!(!sandbox.is_taken("n"));
    }
    assert!(refused > 0, "the limits were never too low");
}
