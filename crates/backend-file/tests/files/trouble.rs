//! Hostile files, full disks and missing permissions: a clear error, and nothing half-taken.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use locks_api::spi::{Attempt, Backend, Claim, Grant, InstanceId, Released};
use locks_api::{Error, ErrorKind, LockName};
use locks_backend_file::FileBackend;

use crate::worker::{Worker, alone, say};

fn open(dir: &Path) -> FileBackend {
    FileBackend::open(dir).unwrap()
}

fn claim(name: &str) -> Claim {
    Claim::new(LockName::new(name).unwrap(), InstanceId::random())
}

fn acquire(backend: &FileBackend, name: &str) -> Result<Grant, Error> {
    match backend.inline().unwrap().acquire(&claim(name))? {
        Attempt::Granted(grant) => Ok(grant),
        other => panic!("neither granted nor an error: {other:?}"),
    }
}

fn release(backend: &FileBackend, grant: &Grant) {
    assert_eq!(backend.inline().unwrap().release(grant).unwrap(), Released::Done);
}

/// The error names the path and is of this kind.
fn assert_refused(result: Result<Grant, Error>, kind: ErrorKind, names: &Path) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(names.to_str().unwrap()), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn only_regular_files_are_locked() {
    let temp = tempfile::tempdir().unwrap();
    let backend = open(temp.path());
    let path = |name: &str| temp.path().join(format!("{name}.lock"));
    let victim = temp.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, path("link")).unwrap();
    symlink(temp.path().join("nothing"), path("dangling")).unwrap();
    fs::create_dir(path("directory")).unwrap();
    assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    for name in ["link", "dangling", "directory", "fifo", "socket"] {
        assert_refused(acquire(&backend, name), ErrorKind::Unsupported, &path(name));
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(!temp.path().join("nothing").exists());
}

#[test]
fn a_gate_that_is_no_regular_file_ends_a_wait_with_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let (holder, waiter) = (open(temp.path()), open(temp.path()));
    let grant = acquire(&holder, "x").unwrap();
    fs::create_dir(temp.path().join("x.gate")).unwrap();
    let result = waiter.inline().unwrap().acquire(&claim("x").waiting()).map(|_| grant.clone());
    assert_refused(result, ErrorKind::Unsupported, &temp.path().join("x.gate"));
    release(&holder, &grant);
    release(&waiter, &acquire(&waiter, "x").unwrap());
}

/// Where slots lie, and where in a slot: see the layout in the documentation of the backend.
const SLOTS: [u64; 2] = [0, 512];
const VERSION: u64 = 12;
const BOOT: u64 = 32;

#[test]
fn a_spoilt_or_foreign_file_goes_on_above_all_tokens() {
    let temp = tempfile::tempdir().unwrap();
    let backend = open(temp.path());
    let mut last = 0;
    let mut check = |what: &str| {
        let grant = acquire(&backend, "x").unwrap();
        assert!(grant.tokens.first().get() > last, "{what}");
        last = grant.tokens.last().get();
        release(&backend, &grant);
    };
    check("new");
    check("second slot");
    let file = OpenOptions::new().write(true).open(temp.path().join("x.lock")).unwrap();
    for slot in SLOTS {
        file.write_all_at(b"spoilt", slot + 24).unwrap();
        check("one slot is spoilt");
    }
    for slot in SLOTS {
        file.write_all_at(b"spoilt", slot + 24).unwrap();
    }
    check("both slots are spoilt");
    fs::write(temp.path().join("x.lock"), "4711\n").unwrap();
    check("somebody else's file");
    fs::write(temp.path().join("x.lock"), "").unwrap();
    check("truncated");
    fs::remove_file(temp.path().join("x.lock")).unwrap();
    check("deleted");
}

/// Rewrites a field of all slots, with a matching checksum.
fn rewrite(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    for slot in SLOTS {
        let mut record = vec![0; 511];
        file.read_at(&mut record, slot).unwrap();
        let start = usize::try_from(offset).unwrap();
        record[start..start + bytes.len()].copy_from_slice(bytes);
        let len = usize::from(u16::from_le_bytes([record[14], record[15]]));
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&record[..8]);
        hasher.update(&record[12..len.max(12)]);
        record[8..12].copy_from_slice(&hasher.finalize().to_le_bytes());
        file.write_all_at(&record, slot).unwrap();
    }
}

#[test]
fn a_counter_of_an_earlier_boot_is_not_trusted_alone() {
    let temp = tempfile::tempdir().unwrap();
    let backend = open(temp.path());
    let first = acquire(&backend, "x").unwrap();
    release(&backend, &first);
    let second = acquire(&backend, "x").unwrap();
    release(&backend, &second);
    // Within one boot the counter goes on where it was.
    assert_eq!(second.tokens.first().get(), first.tokens.last().get() + 1);
    rewrite(&temp.path().join("x.lock"), BOOT, &[9; 16]);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    let third = acquire(&backend, "x").unwrap();
    // After a restart it goes on at the clock.
    assert!(u128::from(third.tokens.first().get()) >= now);
    release(&backend, &third);
}

#[test]
fn a_later_format_is_refused_and_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let backend = open(temp.path());
    for _ in 0..2 {
        release(&backend, &acquire(&backend, "x").unwrap());
    }
    let path = temp.path().join("x.lock");
    rewrite(&path, VERSION, &3_u16.to_le_bytes());
    let before = fs::read(&path).unwrap();
    for _ in 0..2 {
        let error = acquire(&backend, "x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 3"), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_directory_that_is_gone_or_replaced_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("locks");
    let backend = open(&dir);
    release(&backend, &acquire(&backend, "x").unwrap());
    fs::rename(&dir, temp.path().join("moved")).unwrap();
    assert_refused(acquire(&backend, "x"), ErrorKind::Backend, &dir);
    fs::create_dir(&dir).unwrap();
    assert_refused(acquire(&backend, "x"), ErrorKind::Backend, &dir);
    fs::remove_dir_all(temp.path().join("moved")).unwrap();
    assert_refused(acquire(&backend, "x"), ErrorKind::Backend, &dir);
    let again = open(&dir);
    release(&again, &acquire(&again, "x").unwrap());
}

/// Somebody deletes the lock file all the time. Locks are still taken, always on the file that the path leads to.
#[test]
fn a_storm_of_deletions_ends_on_the_file_in_place() {
    let _alone = alone();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("x.lock");
    let backend = open(temp.path());
    let (storm, deleted) = (AtomicBool::new(true), AtomicU32::new(0));
    // Taken to let the storm rest, so that what is locked can be compared.
    let rest = Mutex::new(());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while storm.load(Ordering::Relaxed) {
                let raging = rest.lock().unwrap();
                if fs::remove_file(&path).is_ok() {
                    deleted.fetch_add(1, Ordering::Relaxed);
                }
                drop(raging);
            }
        });
        let ending = EndStorm(&storm);
        for _ in 0..50 {
            let before = deleted.load(Ordering::Relaxed);
            while deleted.load(Ordering::Relaxed) < before + 20 {
                match acquire(&backend, "x") {
                    Ok(grant) => release(&backend, &grant),
                    Err(error) => assert!(error.to_string().contains("keeps deleting"), "{error}"),
                }
            }
            let resting = rest.lock().unwrap();
            let grant = acquire(&backend, "x").unwrap();
            let in_place = File::open(&path).unwrap();
            assert!(
                matches!(in_place.try_lock(), Err(TryLockError::WouldBlock)),
                "the file in place is not locked"
            );
            release(&backend, &grant);
            drop(resting);
        }
        drop(ending);
    });
}

/// Ends the storm also when the test fails.
struct EndStorm<'a>(&'a AtomicBool);

impl Drop for EndStorm<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A file system of a few pages, mounted for one test. Only root can.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(options: &str) -> Option<Self> {
        let temp = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "locks-test"])
            .arg(temp.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(temp));
        }
        eprintln!("skipped: this user can't mount a file system");
        None
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", options]).arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap();
        assert!(status.success() || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_lock_free() {
    let Some(disk) = SmallDisk::mount("size=16k,mode=700") else { return };
    let backend = open(&disk.path());
    release(&backend, &acquire(&backend, "old").unwrap());
    let hog = disk.path().join("hog");
    let filled = fs::write(&hog, vec![1; 64 * 1024]);
    assert!(filled.is_err());
    let other = open(&disk.path());
    for side in [&backend, &other, &backend] {
        assert_refused(acquire(side, "new"), ErrorKind::StoreFull, &disk.path().join("new.lock"));
    }
    // A lock that has its page already works on.
    release(&other, &acquire(&other, "old").unwrap());
    fs::remove_file(hog).unwrap();
    release(&other, &acquire(&other, "new").unwrap());
}

#[test]
fn a_read_only_disk_is_an_error() {
    let Some(disk) = SmallDisk::mount("size=64k,mode=700") else { return };
    let backend = open(&disk.path());
    release(&backend, &acquire(&backend, "x").unwrap());
    disk.remount("remount,ro");
    for name in ["x", "y"] {
        let path = disk.path().join(format!("{name}.lock"));
        assert_refused(acquire(&backend, name), ErrorKind::PermissionDenied, &path);
    }
    disk.remount("remount,rw");
    release(&backend, &acquire(&backend, "x").unwrap());
}

#[test]
fn a_directory_that_can_not_be_written_is_an_error() {
    if nix::unistd::geteuid().is_root() {
        eprintln!("skipped: root may write everywhere");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let backend = open(temp.path());
    release(&backend, &acquire(&backend, "old").unwrap());
    fs::set_permissions(temp.path(), Permissions::from_mode(0o500)).unwrap();
    assert_refused(acquire(&backend, "new"), ErrorKind::PermissionDenied, &temp.path().join("new.lock"));
    release(&backend, &acquire(&backend, "old").unwrap());
    fs::set_permissions(temp.path(), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn running_out_of_descriptors_is_an_error_and_leaves_the_lock_free() {
    let temp = tempfile::tempdir().unwrap();
    let mut worker = Worker::start_limited("ulimit -n 40", "descriptors", temp.path());
    assert_eq!(worker.hear(), "StoreFull");
    assert_eq!(worker.hear(), "granted");
    worker.end();
}

pub(crate) fn descriptors(dir: &Path) {
    let backend = open(dir);
    let hog: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(hog.len() > 10);
    say(format_args!("{:?}", acquire(&backend, "x").unwrap_err().kind()));
    drop(hog);
    release(&backend, &acquire(&backend, "x").unwrap());
    let other = open(dir);
    release(&other, &acquire(&other, "x").unwrap());
    say("granted");
}

/// The file may not grow past its first slot, so that the grant of the one who waits can't be written.
#[test]
fn trouble_in_a_wait_reaches_the_one_who_waits() {
    let temp = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let dir = tempfile::tempdir_in(temp.path()).unwrap();
        let mut worker = Worker::start_limited("trap '' XFSZ; ulimit -f 1", "growth", dir.path());
        assert_eq!(worker.hear(), "512");
        assert_eq!(worker.hear(), "StoreFull");
        worker.end();
        // Nothing is left behind, and without the limit all is well.
        let backend = open(dir.path());
        release(&backend, &acquire(&backend, "x").unwrap());
    }
}

pub(crate) fn growth(dir: &Path) {
    let file = File::create(dir.join("probe")).unwrap();
    let len = (0..).take_while(|&offset| file.write_at(b"x", offset).is_ok()).count();
    say(len);
    let (holder, waiter) = (locks_backend_file::open(dir).unwrap(), locks_backend_file::open(dir).unwrap());
    pollster::block_on(async {
        let guard = holder.lock("x").acquire().await.unwrap();
        let lock = waiter.lock("x");
        let mut wait = std::pin::pin!(lock.acquire_timeout(Duration::from_secs(20)));
        let pending =
            std::future::poll_fn(|context| std::task::Poll::Ready(wait.as_mut().poll(context).is_pending()));
        assert!(pending.await);
        guard.release().await.unwrap();
        say(format_args!("{:?}", wait.await.unwrap_err().kind()));
        // The thread that waited gave the lock back.
        assert_eq!(holder.lock("x").acquire().await.unwrap_err().kind(), ErrorKind::StoreFull);
    });
}
