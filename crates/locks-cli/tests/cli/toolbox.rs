//! The command line of `locks`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

use crate::support::{Sandbox, assert_one_line, output, text};

fn locks(arguments: &[&[u8]]) -> Output {
    let arguments = arguments.iter().map(|bytes| OsStr::from_bytes(bytes));
    output(Command::new(env!("CARGO_BIN_EXE_locks")).env_remove("LOCKS_URL").args(arguments))
}

#[test]
fn what_makes_no_sense_is_64_and_one_line() {
    let cases: [(&[&[u8]], &[&str]); 13] = [
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
    ];
    for (arguments, words) in cases {
        let refused = locks(arguments);
        assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(64), ""), "{refused:?}");
        assert_one_line("locks", &refused.stderr, words);
        assert!(!text(&refused.stderr).contains("geheim"));
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for (arguments, words) in [
        (&[&b"--help"[..]][..], "locks COMMAND"),
        (&[b"-h"], "setup"),
        (&[b"setup", b"--help"], "locks setup [URL]"),
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
