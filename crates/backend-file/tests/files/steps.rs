//! The steps of the backend, called directly, on real files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use locks_api::spi::{Attempt, Backend, Claim, Grant, Inline, InstanceId, Released};
use locks_api::{Busy, LockName};
use locks_backend_file::FileBackend;

use crate::worker::{Worker, say};

/// A backend and its steps.
pub(crate) struct Side {
    pub(crate) backend: FileBackend,
    instance: InstanceId,
}

impl Side {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { backend: FileBackend::open(dir).unwrap(), instance: InstanceId::random() }
    }

    pub(crate) fn inline(&self) -> &dyn Inline {
        self.backend.inline().unwrap()
    }

    pub(crate) fn claim(&self, name: &str) -> Claim {
        Claim::new(LockName::new(name).unwrap(), self.instance)
    }

    pub(crate) fn acquire(&self, claim: &Claim) -> Attempt {
        self.inline().acquire(claim).unwrap()
    }

    pub(crate) fn grant(&self, claim: &Claim) -> Grant {
        match self.acquire(claim) {
            Attempt::Granted(grant) => grant,
            other => panic!("not granted: {other:?}"),
        }
    }

    pub(crate) fn release(&self, grant: &Grant) {
        assert_eq!(self.inline().release(grant).unwrap(), Released::Done);
    }

    /// Asks until the claim is granted.
    pub(crate) fn wait_for(&self, claim: &Claim) -> Grant {
        until("the claim is granted", || match self.acquire(claim) {
            Attempt::Granted(grant) => Some(grant),
            Attempt::Queued { .. } => None,
            Attempt::Busy(busy) => panic!("{busy}"),
            other => panic!("{other:?}"),
        })
    }
}

/// Looks until there is something to see; these tests have no events to wait for.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::yield_now();
    }
}

/// How many threads of this process wait for a lock.
fn waiting_threads() -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter(|task| {
            let comm = fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
            comm.is_ok_and(|comm| comm.trim() == "locks-file-wait")
        })
        .count()
}

#[test]
fn a_repeated_claim_gets_the_grant_that_it_has() {
    let temp = tempfile::tempdir().unwrap();
    let side = Side::new(temp.path());
    let claim = side.claim("x");
    let grant = side.grant(&claim);
    assert_eq!(side.grant(&claim), grant);
    side.release(&grant);
    assert_eq!(side.inline().release(&grant).unwrap(), Released::NotHeld);
    assert!(side.grant(&side.claim("x")).tokens.first() > grant.tokens.last());
}

#[test]
fn backends_of_one_process_exclude_each_other_and_say_who_holds() {
    let temp = tempfile::tempdir().unwrap();
    let (first, second) = (Side::new(temp.path()), Side::new(temp.path()));
    let before = SystemTime::now() - Duration::from_millis(1);
    let mut claim = first.claim("x");
    claim.holder = std::sync::Arc::new(locks_api::Holder::this_process().with_label("nightly"));
    let grant = first.grant(&claim);
    let Attempt::Busy(Busy::Held { by: Some(holder) }) = second.acquire(&second.claim("x")) else { panic!() };
    assert_eq!(holder.pid, Some(std::process::id()));
    assert_eq!(holder.label.as_deref(), Some("nightly"));
    assert_eq!(holder.host, locks_api::Holder::this_process().host);
    let since = holder.since.unwrap();
    assert!(since > before && since <= SystemTime::now());
    assert!(matches!(second.acquire(&second.claim("y")), Attempt::Granted(_)));
    first.release(&grant);
    assert!(second.grant(&second.claim("x")).tokens.first() > grant.tokens.last());
}

#[test]
fn a_claim_that_waits_is_granted_and_later_ones_line_up() {
    let temp = tempfile::tempdir().unwrap();
    let (holder, waiter) = (Side::new(temp.path()), Side::new(temp.path()));
    let grant = holder.grant(&holder.claim("order"));
    let claims: Vec<Claim> = (0..3).map(|_| waiter.claim("order").waiting()).collect();
    for claim in &claims {
        assert!(matches!(waiter.acquire(claim), Attempt::Queued { by: Some(_), check_in: None, .. }));
    }
    holder.release(&grant);
    let mut last = grant.tokens.last();
    for claim in &claims {
        let grant = waiter.wait_for(claim);
        assert!(grant.tokens.first() > last, "first come, first served");
        last = grant.tokens.last();
        assert!(matches!(waiter.acquire(&waiter.claim("order")), Attempt::Busy(_)));
        waiter.release(&grant);
    }
}

#[test]
fn one_thread_waits_for_a_lock_whatever_the_number_of_claims_and_none_is_left() {
    let temp = tempfile::tempdir().unwrap();
    let mut worker = Worker::start("threads", temp.path());
    assert_eq!(worker.hear(), "1 while 20 claims wait");
    assert_eq!(worker.hear(), "0 afterwards");
    worker.end();
}

/// In a process of its own, where nobody else waits.
pub(crate) fn threads(dir: &Path) {
    let (holder, waiter) = (Side::new(dir), Side::new(dir));
    let grant = holder.grant(&holder.claim("threads"));
    let claims: Vec<Claim> = (0..20).map(|_| waiter.claim("threads").waiting()).collect();
    for claim in &claims {
        assert!(matches!(waiter.acquire(claim), Attempt::Queued { .. }));
    }
    until_blocked_on(dir, "threads.lock");
    say(format_args!("{} while 20 claims wait", waiting_threads()));
    for claim in &claims {
        waiter.inline().cancel(claim).unwrap();
    }
    holder.release(&grant);
    until("the thread ends", || (waiting_threads() == 0).then_some(()));
    say(format_args!("{} afterwards", waiting_threads()));
}

#[test]
fn a_cancelled_claim_never_holds() {
    let temp = tempfile::tempdir().unwrap();
    let (holder, waiter) = (Side::new(temp.path()), Side::new(temp.path()));
    for _ in 0..100 {
        let grant = holder.wait_for(&holder.claim("cancelled").waiting());
        let claim = waiter.claim("cancelled").waiting();
        assert!(matches!(waiter.acquire(&claim), Attempt::Queued { .. }));
        // The release and the cancellation race with the thread that waits.
        std::thread::scope(|scope| {
            scope.spawn(|| holder.release(&grant));
            waiter.inline().cancel(&claim).unwrap();
        });
        // Whatever the thread got, it gave back: a third one is let in.
        let third = Side::new(temp.path());
        let claim = third.claim("cancelled").waiting();
        let grant = third.wait_for(&claim);
        third.release(&grant);
    }
}

#[test]
fn a_new_claim_takes_over_the_thread_that_waits_for_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let (holder, waiter) = (Side::new(temp.path()), Side::new(temp.path()));
    let grant = holder.grant(&holder.claim("adopted"));
    let cancelled = waiter.claim("adopted").waiting();
    assert!(matches!(waiter.acquire(&cancelled), Attempt::Queued { .. }));
    waiter.inline().cancel(&cancelled).unwrap();
    let claim = waiter.claim("adopted").waiting();
    assert!(matches!(waiter.acquire(&claim), Attempt::Queued { .. }));
    holder.release(&grant);
    let grant = waiter.wait_for(&claim);
    waiter.release(&grant);
}

#[test]
fn nobody_passes_one_who_waits() {
    let temp = tempfile::tempdir().unwrap();
    let (holder, waiter, late) = (Side::new(temp.path()), Side::new(temp.path()), Side::new(temp.path()));
    for _ in 0..100 {
        let grant = holder.wait_for(&holder.claim("turns").waiting());
        let claim = waiter.claim("turns").waiting();
        assert!(matches!(waiter.acquire(&claim), Attempt::Queued { .. }));
        until_blocked_on(temp.path(), "turns.lock");
        holder.release(&grant);
        // Free or not, the lock now belongs to the one who waits.
        match late.acquire(&late.claim("turns")) {
            Attempt::Busy(_) => {}
            other => panic!("passed the one who waits: {other:?}"),
        }
        let grant = waiter.wait_for(&claim);
        waiter.release(&grant);
    }
}

#[test]
fn the_mark_of_those_who_waited_goes_when_nobody_waits() {
    let temp = tempfile::tempdir().unwrap();
    let (holder, waiter) = (Side::new(temp.path()), Side::new(temp.path()));
    let marked = || fs::read(temp.path().join("marked.lock")).unwrap()[511] != 0;
    let grant = holder.grant(&holder.claim("marked"));
    let claim = waiter.claim("marked").waiting();
    assert!(matches!(waiter.acquire(&claim), Attempt::Queued { .. }));
    assert!(marked());
    holder.release(&grant);
    let grant = waiter.wait_for(&claim);
    waiter.release(&grant);
    // The thread that waited leaves the line a moment after its claim was granted.
    until("the mark goes", || {
        let grant = holder.wait_for(&holder.claim("marked").waiting());
        holder.release(&grant);
        (!marked()).then_some(())
    });
}

/// Waits until somebody is blocked in flock on the file: the kernel marks those with an arrow.
pub(crate) fn until_blocked_on(dir: &Path, file: &str) {
    let inode = format!(":{} ", fs::metadata(dir.join(file)).unwrap().ino());
    until("somebody waits", || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&inode)).then_some(())
    });
}

#[test]
fn who_waits_at_a_deleted_file_moves_on_to_the_one_in_its_place() {
    let temp = tempfile::tempdir().unwrap();
    let (holder, waiter, third) = (Side::new(temp.path()), Side::new(temp.path()), Side::new(temp.path()));
    let old = holder.grant(&holder.claim("gone"));
    let claim = waiter.claim("gone").waiting();
    assert!(matches!(waiter.acquire(&claim), Attempt::Queued { .. }));
    until_blocked_on(temp.path(), "gone.lock");
    fs::remove_file(temp.path().join("gone.lock")).unwrap();
    // Now there are two holders, which is what becomes of deleting lock files. There must not be a third.
    let new = third.grant(&third.claim("gone"));
    assert!(new.tokens.first() > old.tokens.last());
    holder.release(&old);
    until_blocked_on(temp.path(), "gone.lock");
    assert!(matches!(waiter.acquire(&claim), Attempt::Queued { .. }));
    third.release(&new);
    let grant = waiter.wait_for(&claim);
    assert!(grant.tokens.first() > new.tokens.last());
    waiter.release(&grant);
}

#[test]
fn the_lock_file_stays_and_keeps_its_mode() {
    let temp = tempfile::tempdir().unwrap();
    let side = Side::new(temp.path());
    let grant = side.grant(&side.claim("Stays/put"));
    side.release(&grant);
    let path = temp.path().join("+stays%2fput.lock");
    let first = fs::metadata(&path).unwrap();
    assert_eq!(first.mode() & 0o777, 0o600);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let grant = side.grant(&side.claim("Stays/put"));
    side.release(&grant);
    let second = fs::metadata(&path).unwrap();
    assert_eq!((second.ino(), second.mode() & 0o777), (first.ino(), 0o666));
    // A lock that nobody ever waited for has no second file.
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn long_names_are_kept_in_full_and_compared() {
    let temp = tempfile::tempdir().unwrap();
    let side = Side::new(temp.path());
    let names = ["n".repeat(1024), format!("{}m", "n".repeat(1023)), "é".repeat(512)];
    let grants: Vec<Grant> = names.iter().map(|name| side.grant(&side.claim(name))).collect();
    for grant in &grants {
        side.release(grant);
    }
    let files: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3);
    // One lock's file under another lock's name is refused, and what it says is left alone.
    let holds =
        |name: &str| files.iter().find(|file| fs::read(file).unwrap().ends_with(name.as_bytes())).unwrap();
    let (from, to) = (holds(&names[2]), holds(&names[0]));
    fs::copy(from, to).unwrap();
    let error = side.inline().acquire(&side.claim(&names[0])).unwrap_err();
    assert!(error.to_string().contains("another lock"), "{error}");
    assert_eq!(fs::read(from).unwrap(), fs::read(to).unwrap());
    let grant = side.grant(&side.claim(&names[1]));
    side.release(&grant);
}

#[test]
fn durable_grants_work_the_same_but_not_on_the_callers_thread() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("new/locks");
    let durable = FileBackend::options().durable(true).open(&dir).unwrap();
    let backend: &dyn Backend = &durable;
    assert!(backend.inline().is_none());
    let claim = Claim::new(LockName::new("x").unwrap(), InstanceId::random());
    let first = match pollster::block_on(backend.acquire(&[claim])).unwrap().remove(0).unwrap() {
        Attempt::Granted(grant) => grant,
        other => panic!("not granted: {other:?}"),
    };
    let other = Side::new(&dir);
    assert!(matches!(other.acquire(&other.claim("x")), Attempt::Busy(_)));
    let released =
        pollster::block_on(backend.release(std::slice::from_ref(&first))).unwrap().remove(0).unwrap();
    assert_eq!(released, Released::Done);
    assert!(other.grant(&other.claim("x")).tokens.first() > first.tokens.last());
}

#[test]
fn closing_gives_back_what_is_held_and_refuses_what_comes() {
    let temp = tempfile::tempdir().unwrap();
    let (closed, other) = (Side::new(temp.path()), Side::new(temp.path()));
    let grant = closed.grant(&closed.claim("x"));
    pollster::block_on(closed.backend.close()).unwrap();
    other.release(&other.grant(&other.claim("x")));
    assert_eq!(closed.inline().release(&grant).unwrap(), Released::NotHeld);
    let error = closed.inline().acquire(&closed.claim("x")).unwrap_err();
    assert_eq!(error.kind(), locks_api::ErrorKind::Closed);
    drop(other.grant(&other.claim("y")));
    drop(other);
    let third = Side::new(temp.path());
    third.release(&third.grant(&third.claim("y")));
}
