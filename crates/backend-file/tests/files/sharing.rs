//! Directories that several users share, with real users.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use locks_api::{ErrorKind, Locks};
use locks_backend_file::{FileBackend, Share};
use nix::unistd::geteuid;
use pollster::block_on;

use crate::worker::{Worker, may_go_on, say};

/// Two users that every system has, and a group for both.
const USERS: [u32; 2] = [1, 65534];
const GROUP: u32 = 100;

/// Holds "x" when told to, and says what happened.
pub(crate) fn meet_others(dir: &Path) {
    let share = match std::env::var("WORKER_SHARE").unwrap().as_str() {
        "group" => Share::Group,
        _ => Share::All,
    };
    let locks = match FileBackend::options().share(share).open(dir) {
        Ok(backend) => Locks::new(backend),
        Err(error) => return say(error),
    };
    say("open");
    while may_go_on() {
        match block_on(locks.lock("x").acquire_timeout(Duration::from_millis(300))) {
            Ok(guard) => {
                say(format_args!("has {}", guard.fencing_token()));
                assert!(may_go_on());
                block_on(guard.release()).unwrap();
                say("released");
            }
            Err(error) => say(format_args!("{:?}: {error}", error.kind())),
        }
    }
}

fn share_name(share: Share) -> &'static str {
    if share == Share::Group { "group" } else { "all" }
}

/// A directory that all users can get to, with a copy of this program: where it was built not everybody can.
fn stage() -> Option<(tempfile::TempDir, PathBuf)> {
    if !geteuid().is_root() {
        eprintln!("NOT TESTED: two real users. Only root can become others; run this test as root.");
        return None;
    }
    let temp = tempfile::tempdir().unwrap();
    fs::set_permissions(temp.path(), Permissions::from_mode(0o755)).unwrap();
    let program = temp.path().join("program");
    // By another process: one that this process starts meanwhile would have the copy open for writing, and it could not be run.
    let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status().unwrap();
    assert!(copied.success());
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    Some((temp, program))
}

fn made(dir: &Path, share: Share) {
    drop(FileBackend::options().share(share).open(dir).unwrap());
    if share == Share::Group {
        chown(dir, None, Some(GROUP)).unwrap();
        // A change of group may take the bit away.
        fs::set_permissions(dir, Permissions::from_mode(0o3770)).unwrap();
    }
}

#[test]
fn two_users_exclude_each_other_whatever_their_umask() {
    let Some((temp, program)) = stage() else { return };
    for share in [Share::Group, Share::All] {
        let dir = temp.path().join("a").join(share_name(share));
        made(&dir, share);
        let expected = if share == Share::Group { 0o3770 } else { 0o1777 };
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, expected);
        let mut users =
            USERS.map(|user| Worker::start_as(&program, user, GROUP, share_name(share), "meet others", &dir));
        for user in &mut users {
            assert_eq!(user.hear(), "open");
        }
        let [one, other] = &mut users;
        let mut last = 0;
        for _ in 0..3 {
            for turn in [false, true] {
                let (one, other) = if turn { (&mut *one, &mut *other) } else { (&mut *other, &mut *one) };
                one.go();
                let token: u64 = one.hear().strip_prefix("has ").unwrap().parse().unwrap();
                assert!(token > last);
                last = token;
                other.go();
                let refused = other.hear();
                assert!(refused.starts_with("Timeout") && refused.contains("pid"), "{refused}");
                one.go();
                assert_eq!(one.hear(), "released");
            }
        }
        for file in ["x.lock", "x.gate"] {
            let file = fs::metadata(dir.join(file)).unwrap();
            assert_eq!(file.mode() & 0o777, if share == Share::Group { 0o660 } else { 0o666 });
            assert!(share == Share::All || file.gid() == GROUP);
        }
        assert!(
            fs::read_dir(&dir).unwrap().all(|file| !file
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .starts_with('.'))
        );
    }
}

#[test]
fn a_user_outside_the_group_is_kept_out() {
    let Some((temp, program)) = stage() else { return };
    let dir = temp.path().join("group");
    made(&dir, Share::Group);
    let mut outsider = Worker::start_as(&program, USERS[1], USERS[1], "group", "meet others", &dir);
    let said = outsider.hear();
    assert!(said.contains("may not"), "{said}");
}

#[test]
fn users_clear_away_only_their_own_files_and_nobody_trips() {
    let Some((temp, program)) = stage() else { return };
    let dir = temp.path().join("all");
    made(&dir, Share::All);
    let mut user = Worker::start_as(&program, USERS[0], GROUP, "all", "meet others", &dir);
    assert_eq!(user.hear(), "open");
    user.go();
    user.hear();
    let backend = FileBackend::options().share(Share::All).open(&dir).unwrap();
    assert_eq!(backend.collect_garbage(Duration::ZERO).unwrap().removed, 0);
    user.go();
    assert_eq!(user.hear(), "released");
    assert_eq!(backend.collect_garbage(Duration::ZERO).unwrap().removed, 1);
    user.go();
    user.hear();
}

#[test]
fn what_is_unsafe_to_share_is_refused_with_the_remedy() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("shared");
    let open = |share| FileBackend::options().share(share).open(&dir).unwrap_err();
    if geteuid().is_root() {
        made(&dir, Share::All);
    } else {
        let error = open(Share::All);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("install -d"), "{error}");
        fs::create_dir(&dir).unwrap();
    }
    for (mode, share, word) in [
        (0o777, Share::All, "sticky"),
        (0o2770, Share::Group, "sticky"),
        (0o1770, Share::Group, "3770"),
        (0o1755, Share::All, "1777"),
        (0o3777, Share::Group, "only its group"),
    ] {
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        let error = open(share);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{mode:o}");
        let words = error.to_string();
        assert!(words.contains(word) && words.contains("install -d -o root"), "{mode:o}: {words}");
    }
    if geteuid().is_root() {
        fs::set_permissions(&dir, Permissions::from_mode(0o1777)).unwrap();
        chown(&dir, Some(USERS[0]), None).unwrap();
        let words = open(Share::All).to_string();
        assert!(words.contains("belongs to user 1"), "{words}");
    }
}
