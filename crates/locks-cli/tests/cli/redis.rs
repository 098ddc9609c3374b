//! What is particular to Redis: a new server's grace, and logins.

use std::process::Command;

use crate::stores::{ABORT, BLOCK, Kind, Store};
use crate::support::{assert_one_line, output, text};
use crate::ttl;

#[test]
fn a_new_server_is_in_grace_until_it_is_set_up() {
    let store = Store::new(Kind::Redis);
    for (tool, options) in [("lock-abort", &[][..]), ("lock-block", &["-w", "0.2"])] {
        let program = if tool == "lock-abort" { ABORT } else { BLOCK };
        let busy = output(&mut store.under(program, options, &["echo", "it ran"]));
        assert_eq!((busy.status.code(), text(&busy.stdout)), (Some(75), ""), "{busy:?}");
        assert_one_line(tool, &busy.stderr, &["\"n\"", "grace", "`locks setup URL`"]);
    }
    let set_up = store.locks(["setup"]);
    assert_eq!((set_up.status.code(), text(&set_up.stderr)), (Some(0), ""));
    let public = store.server().url().rsplit('@').next().unwrap();
    assert!(text(&set_up.stdout).contains(public.trim_start_matches("redis://")), "{set_up:?}");
    assert!(text(&set_up.stdout).ends_with(": ready; a grace that ran was ended\n"), "{set_up:?}");
    // Twice does no harm.
    assert_eq!(store.locks(["setup", &store.url()]).status.code(), Some(0));
    let free = output(&mut store.under(ABORT, &[], &["echo", "it ran"]));
    assert_eq!((free.status.code(), text(&free.stdout)), (Some(0), "it ran\n"), "{free:?}");
}

#[test]
fn what_a_set_up_would_do_can_be_asked_for_before() {
    let store = Store::new(Kind::Redis);
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

/// The password is in the configuration's hands; the command line, the messages and the events don't have it.
#[test]
fn a_password_comes_from_a_file_the_environment_or_a_command() {
    let store = Store::ready(Kind::Redis);
    // Passwords are checked of users; the default one has none here.
    let user = format!("u{:x}", fastrand::u64(..));
    assert_eq!(store.say(&format!("ACL SETUSER {user} on >geh@im/1 ~* &* +@all")), "+OK");
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
    assert_eq!(store.say(&format!("ACL DELUSER {user}")), ":1");
}

#[test]
fn a_kill_after_that_does_not_fit_the_ttl_is_a_usage_error_before_the_store_is_asked() {
    // Nobody is there.
    let mut command = Command::new(BLOCK);
    command.args(["--url", "redis://127.0.0.1:1", "--ttl", "15", "--kill-after", "5", "true"]);
    let refused = output(&mut command);
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    assert_one_line("lock-block", &refused.stderr, &["--kill-after", "4s 500ms", "--ttl"]);
}

#[test]
fn whoever_was_set_up_otherwise_is_told() {
    ttl::whoever_was_set_up_otherwise_is_told(Kind::Redis);
}

#[test]
fn a_wrong_login_is_69_and_never_shown() {
    ttl::a_wrong_login_is_69_and_never_shown(Kind::Redis);
}
