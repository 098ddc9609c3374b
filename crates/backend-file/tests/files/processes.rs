//! What only several processes show: death, descriptors that are inherited, fairness.

use std::any::Any;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use locks_api::{ErrorKind, FencingToken, LockGuard, Locks};
use locks_backend_file::FileBackend;
use pollster::block_on;

use crate::steps::{until, until_blocked_on};
use crate::worker::{Worker, alone, may_go_on, say};

fn open(dir: &Path) -> Locks {
    locks_backend_file::open(dir).unwrap()
}

fn try_acquire(locks: &Locks) -> Option<LockGuard> {
    block_on(locks.lock("x").try_acquire()).unwrap()
}

fn acquire(locks: &Locks) -> LockGuard {
    block_on(locks.lock("x").acquire_timeout(Duration::from_secs(20))).unwrap()
}

/// Holds the lock until it is told to go on.
pub(crate) fn hold(dir: &Path) {
    let locks = open(dir);
    let guard = acquire(&locks);
    say(guard.fencing_token());
    if may_go_on() {
        block_on(guard.release()).unwrap();
    }
}

/// Waits for the lock, and says so once it has it.
pub(crate) fn wait(dir: &Path) {
    let locks = open(dir);
    assert!(try_acquire(&locks).is_none());
    say("waiting");
    hold(dir);
}

fn token(line: &str) -> FencingToken {
    FencingToken::new(line.parse().unwrap()).unwrap()
}

#[test]
fn a_killed_holder_frees_the_lock_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut holder = Worker::start("hold", temp.path());
    let first = token(&holder.hear());
    let mut waiter = Worker::start("wait", temp.path());
    assert_eq!(waiter.hear(), "waiting");
    let locks = open(temp.path());
    assert!(try_acquire(&locks).is_none());
    holder.kill();
    let second = token(&waiter.hear());
    assert!(second > first);
    assert!(try_acquire(&locks).is_none());
    waiter.kill();
    assert!(acquire(&locks).fencing_token() > second);
}

#[test]
fn a_killed_waiter_is_forgotten() {
    let temp = tempfile::tempdir().unwrap();
    let locks = open(temp.path());
    let guard = acquire(&locks);
    let mut waiters = [Worker::start("wait", temp.path()), Worker::start("wait", temp.path())];
    for waiter in &mut waiters {
        assert_eq!(waiter.hear(), "waiting");
    }
    // The first in line most likely, and whichever it is, the other one is served.
    waiters[0].kill();
    block_on(guard.release()).unwrap();
    waiters[1].hear();
    waiters[1].go();
    drop(acquire(&locks));
}

/// Order has its price: the next one in line is waited for.
#[test]
fn a_stopped_waiter_keeps_its_turn() {
    let temp = tempfile::tempdir().unwrap();
    let locks = open(temp.path());
    let guard = acquire(&locks);
    let mut waiter = Worker::start("wait", temp.path());
    assert_eq!(waiter.hear(), "waiting");
    until_blocked_on(temp.path(), "x.lock");
    waiter.signal("STOP");
    let state = format!("/proc/{}/stat", waiter.pid());
    until("the waiter is stopped", || fs::read_to_string(&state).unwrap().contains(") T ").then_some(()));
    block_on(guard.release()).unwrap();
    let limit = Duration::from_millis(200);
    let error = block_on(locks.lock("x").acquire_timeout(limit)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(try_acquire(&locks).is_none());
    waiter.signal("CONT");
    token(&waiter.hear());
    waiter.go();
    drop(acquire(&locks));
}

/// Takes the lock, starts a program that inherits it or does not, and waits.
#[expect(clippy::zombie_processes, reason = "it outlives this process, which is the point")]
pub(crate) fn start_program(dir: &Path, inherits: bool) {
    let locks = open(dir);
    let guard = acquire(&locks);
    let shared = inherits.then(|| backend(&locks).share_descriptor(guard.export()).unwrap());
    let program =
        Command::new("sleep").arg("100").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    drop(shared);
    say(program.id());
    assert!(!may_go_on());
}

fn backend(locks: &Locks) -> &FileBackend {
    (locks.backend() as &dyn Any).downcast_ref().unwrap()
}

#[test]
fn a_lock_that_a_program_inherited_is_held_until_that_program_ends() {
    let temp = tempfile::tempdir().unwrap();
    let mut worker = Worker::start("start a program that inherits", temp.path());
    let program = worker.hear();
    let locks = open(temp.path());
    worker.kill();
    assert!(try_acquire(&locks).is_none(), "the program still runs");
    end_program(&program);
    drop(acquire(&locks));
}

#[test]
fn no_other_program_inherits_a_lock() {
    let temp = tempfile::tempdir().unwrap();
    let mut worker = Worker::start("start a program", temp.path());
    let program = worker.hear();
    worker.kill();
    // At once, but for the moment that the program may still need to get started.
    drop(acquire(&open(temp.path())));
    end_program(&program);
}

fn end_program(pid: &str) {
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
}

#[test]
fn a_shared_lock_ends_with_its_last_descriptor() {
    let temp = tempfile::tempdir().unwrap();
    Worker::start("share", temp.path()).end();
}

/// In a process of its own, since any program that is started meanwhile inherits the descriptor.
pub(crate) fn share(dir: &Path) {
    let (locks, other) = (open(dir), open(dir));
    let guard = acquire(&locks);
    let claim = guard.export();
    let shared = backend(&locks).share_descriptor(claim).unwrap();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", shared.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let close_on_exec = 0o2_000_000;
    assert_eq!(u32::from_str_radix(flags.trim(), 8).unwrap() & close_on_exec, 0);
    block_on(guard.release()).unwrap();
    assert!(try_acquire(&other).is_none());
    let error = backend(&locks).share_descriptor(claim).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost);
    drop(shared);
    assert!(try_acquire(&other).is_some());
}

/// Programs that are being started have a copy of every descriptor between fork and exec. A release undoes the lock for
/// those too.
#[test]
fn programs_that_are_being_started_do_not_keep_a_released_lock() {
    let temp = tempfile::tempdir().unwrap();
    let (locks, other) = (open(temp.path()), open(temp.path()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let mut program: Child = Command::new("true").spawn().unwrap();
                assert!(program.wait().unwrap().success());
            }
        });
        let late = (0..2_000).find(|_| try_acquire(&locks).is_none() || try_acquire(&other).is_none());
        done.store(true, Ordering::Relaxed);
        assert_eq!(late, None, "the lock was not free in this round");
    });
}

/// How long each holds the lock: long enough for the others to be waiting, rather than for a turn on a processor.
const HOLD: Duration = Duration::from_micros(200);

/// When one has had the lock so often, all of them stop and compare: however long that takes on a busy machine.
const ENOUGH: u32 = 200;

/// Takes the lock again and again until one of all has had it [`ENOUGH`]. Who holds it also holds a socket that only one process can have.
pub(crate) fn compete(dir: &Path) {
    let locks = open(dir);
    let witness = SocketAddr::from_abstract_name(dir.as_os_str().as_encoded_bytes()).unwrap();
    say("ready");
    assert!(may_go_on());
    let over = dir.join("over");
    let mut grants = 0_u32;
    let mut last = None;
    while !over.exists() {
        let guard = acquire(&locks);
        let alone = UnixListener::bind_addr(&witness).expect("nobody else holds the lock");
        let start = Instant::now();
        while start.elapsed() < HOLD {
            std::hint::spin_loop();
        }
        assert!(last < Some(guard.fencing_token()));
        last = Some(guard.fencing_token());
        grants += 1;
        if grants == ENOUGH {
            fs::write(&over, "").unwrap();
        }
        drop(alone);
        block_on(guard.release()).unwrap();
    }
    say(grants);
}

#[test]
fn eight_busy_processes_share_a_lock_fairly_and_never_hold_it_together() {
    let _alone = alone();
    let temp = tempfile::tempdir().unwrap();
    let mut workers: Vec<Worker> = (0..8).map(|_| Worker::start("compete", temp.path())).collect();
    for worker in &mut workers {
        assert_eq!(worker.hear(), "ready");
    }
    for worker in &mut workers {
        worker.go();
    }
    let grants: Vec<f64> = workers.iter_mut().map(|worker| worker.hear().parse().unwrap()).collect();
    for worker in workers {
        worker.end();
    }
    let sum: f64 = grants.iter().sum();
    let squares: f64 = grants.iter().map(|grants| grants * grants).sum();
    let jain = sum * sum / (8.0 * squares);
    println!("Jain {jain:.4} over {grants:?}");
    assert!(sum > 800.0, "{grants:?}");
    assert!(jain >= 0.95, "Jain {jain:.4} over {grants:?}");
}
