//! Existing paths, beside flock(1) itself.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use locks_api::{ErrorKind, LockGuard, Locks};
use locks_backend_file::FileBackend;
use pollster::block_on;

use crate::steps::until;

fn open(dir: &Path) -> Locks {
    Locks::new(FileBackend::options().paths(true).open(dir).unwrap())
}

fn holds(locks: &Locks, path: &Path) -> Option<LockGuard> {
    block_on(locks.lock(path.to_str().unwrap()).try_acquire()).unwrap()
}

/// Whether `flock --nonblock` gets in.
fn flock_gets(how: &str, path: &Path) -> bool {
    let status = Command::new("flock").args([how, "--nonblock"]).arg(path).arg("true").status().unwrap();
    assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    status.success()
}

/// A `flock` that holds the path until it is dropped.
struct Flock(Child);

impl Flock {
    fn hold(how: &str, path: &Path) -> Self {
        let mut child = Command::new("flock")
            .args([how, "--no-fork"])
            .arg(path)
            .args(["sh", "-c", "echo held; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.kill();
        }
    }
}

#[test]
fn flock_and_this_backend_exclude_each_other_both_ways() {
    let temp = tempfile::tempdir().unwrap();
    let locks = open(&temp.path().join("locks"));
    let file = temp.path().join("backup.pid");
    fs::write(&file, "4711\n").unwrap();
    let directory = temp.path().join("spool");
    fs::create_dir(&directory).unwrap();
    for path in [&file, &directory] {
        let mut last = None;
        for _ in 0..3 {
            let guard = holds(&locks, path).unwrap();
            assert!(last < Some(guard.fencing_token()));
            last = Some(guard.fencing_token());
            assert!(!flock_gets("-x", path) && !flock_gets("-s", path));
            block_on(guard.release()).unwrap();
            assert!(flock_gets("-x", path));

            let mut other = Flock::hold("-x", path);
            assert!(holds(&locks, path).is_none());
            assert!(block_on(locks.rw_lock(path.to_str().unwrap()).try_read()).unwrap().is_none());
            let state = block_on(locks.inspect(path.to_str().unwrap())).unwrap();
            assert_eq!(state.holders.len(), 1);
            assert_eq!((state.holders[0].claim, state.holders[0].token), (None, None));
            assert_eq!(state.holders[0].holder.as_ref().unwrap().pid, Some(other.0.id()));
            other.kill();

            let mut other = Flock::hold("-s", path);
            let reader = block_on(locks.rw_lock(path.to_str().unwrap()).try_read()).unwrap().unwrap();
            assert!(last < Some(reader.fencing_token()));
            last = Some(reader.fencing_token());
            assert!(flock_gets("-s", path) && !flock_gets("-x", path));
            assert!(holds(&locks, path).is_none());
            let state = block_on(locks.inspect(path.to_str().unwrap())).unwrap();
            assert_eq!(state.holders.len(), 2, "{state:?}");
            other.kill();
            assert!(!flock_gets("-x", path));
            block_on(reader.release()).unwrap();
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "4711\n");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn whoever_waits_for_an_outsider_is_woken_by_the_kernel() {
    let temp = tempfile::tempdir().unwrap();
    let locks = open(&temp.path().join("locks"));
    let path = temp.path().join("x");
    let name = path.to_str().unwrap();
    for _ in 0..5 {
        let mut other = Flock::hold("-x", &path);
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| block_on(locks.lock(name).acquire_timeout(Duration::from_secs(20))));
            let inode = format!(":{} ", fs::metadata(&path).unwrap().ino());
            until("somebody waits", || {
                let locks = fs::read_to_string("/proc/locks").unwrap();
                locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&inode)).then_some(())
            });
            other.kill();
            drop(wait.join().unwrap().unwrap());
        });
        // And the other way round.
        let guard = block_on(locks.lock(name).acquire()).unwrap();
        let mut waiter =
            Command::new("flock").arg(&path).args(["echo", "got it"]).stdout(Stdio::piped()).spawn().unwrap();
        block_on(guard.release()).unwrap();
        let mut heard = String::new();
        waiter.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "got it\n");
        assert!(waiter.wait().unwrap().success());
    }
}

#[test]
fn the_path_is_never_written_and_made_as_flock_makes_it() {
    let temp = tempfile::tempdir().unwrap();
    let locks = open(&temp.path().join("locks"));
    let [ours, theirs] = ["ours", "theirs"].map(|name| temp.path().join(name));
    drop(holds(&locks, &ours).unwrap());
    assert!(flock_gets("-x", &theirs));
    let [one, other] = [&ours, &theirs].map(|path| fs::metadata(path).unwrap());
    assert_eq!((one.len(), one.mode(), one.uid()), (0, other.mode(), other.uid()));
    fs::set_permissions(&ours, Permissions::from_mode(0o444)).unwrap();
    let before = fs::metadata(&ours).unwrap();
    for _ in 0..3 {
        drop(holds(&locks, &ours).unwrap());
    }
    let after = fs::metadata(&ours).unwrap();
    assert_eq!((before.mode(), before.mtime_nsec()), (after.mode(), after.mtime_nsec()));
    // A link leads to the same lock, as with flock(1).
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(&ours, &link).unwrap();
    let guard = holds(&locks, &ours).unwrap();
    assert!(holds(&locks, &link).is_none());
    drop(guard);
}

#[test]
fn what_can_not_be_is_said_before_anything_is_touched() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("locks");
    let locks = open(&dir);
    let error = block_on(locks.lock("backup.pid").try_acquire()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidName);
    assert!(error.to_string().contains("absolute"), "{error}");
    let path = temp.path().join("x");
    let error = block_on(locks.semaphore(path.to_str().unwrap(), 3).try_acquire()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    assert!(!path.exists());
    let missing = temp.path().join("no/such/directory");
    assert!(block_on(locks.lock(missing.to_str().unwrap()).try_acquire()).is_err());
    // Neither a file nor a directory.
    assert_eq!(block_on(locks.lock("/dev/null").try_acquire()).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn names_and_paths_do_not_get_into_each_others_way() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("locks");
    let (paths, names) = (open(&dir), locks_backend_file::open(&dir).unwrap());
    let path = temp.path().join("x");
    let name = path.to_str().unwrap();
    let guards = [holds(&paths, &path).unwrap(), holds(&names, &path).unwrap()];
    for locks in [&paths, &names] {
        let list = block_on(locks.list(name)).unwrap();
        assert_eq!(list.len(), 1, "{list:?}");
        assert_eq!(list[0].holders.len(), 1, "{list:?}");
    }
    drop(guards);
}
