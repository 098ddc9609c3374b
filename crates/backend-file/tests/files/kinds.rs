//! Readers, permits, schedules and elections: the steps on real files, and processes that die.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use locks_api::spi::{Attempt, Backend, Claim, Grant, Mode, Released};
use locks_api::{Busy, Error, ErrorKind, Locks};
use pollster::block_on;

use crate::steps::{Side, until, until_blocked_on};
use crate::worker::{Worker, may_go_on, say};

const READ: Mode = Mode::Shared;
const WRITE: Mode = Mode::Exclusive;

fn permits(count: u32, limit: u32) -> Mode {
    Mode::Permits { count, limit }
}

impl Side {
    fn of(&self, mode: Mode) -> Claim {
        self.claim("x").with_mode(mode)
    }

    fn has(&self, mode: Mode) -> Grant {
        self.grant(&self.of(mode))
    }

    fn is_refused(&self, mode: Mode) {
        match self.acquire(&self.of(mode)) {
            Attempt::Busy(Busy::Held { .. }) => {}
            other => panic!("{mode} was not refused: {other:?}"),
        }
    }

    /// Queues a claim, which must not be granted now.
    fn waits(&self, mode: Mode) -> Claim {
        let claim = self.of(mode).waiting();
        assert!(matches!(self.acquire(&claim), Attempt::Queued { .. }), "{mode} was not queued");
        claim
    }

    fn mismatch(&self, mode: Mode) -> Error {
        let error = self.inline().acquire(&self.of(mode)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitMismatch);
        error
    }
}

fn sides<const N: usize>(dir: &Path) -> [Side; N] {
    [(); N].map(|()| Side::new(dir))
}

#[test]
fn modes_exclude_each_other_and_tokens_rise_over_all() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = sides(temp.path());
    let mut last = 0;
    let mut rises = |grant: &Grant| {
        assert!(grant.tokens.first().get() > last);
        last = grant.tokens.last().get();
    };
    for mode in [READ, permits(2, 5), WRITE, permits(1, 9), READ] {
        let grant = one.has(mode);
        rises(&grant);
        for other in [READ, WRITE, permits(1, 5)] {
            if !mode.fits_beside([other]) && mode.limit().is_none_or(|limit| other.limit() == Some(limit)) {
                two.is_refused(other);
            }
        }
        if mode != WRITE {
            let beside = two.has(mode);
            rises(&beside);
            two.release(&beside);
        }
        one.release(&grant);
    }
}

#[test]
fn an_idle_semaphore_takes_the_next_limit_and_one_in_use_names_both() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two, three] = sides(temp.path());
    let held = one.has(permits(3, 5));
    let error = two.mismatch(permits(1, 7)).to_string();
    assert!(error.contains('5') && error.contains('7'), "{error}");
    two.is_refused(permits(3, 5));
    one.release(&held);
    let held = two.has(permits(1, 7));
    one.mismatch(permits(1, 5));
    two.release(&held);
    // One that waits counts as well.
    let writer = one.has(WRITE);
    let waiting = two.waits(permits(1, 5));
    three.mismatch(permits(1, 7));
    two.inline().cancel(&waiting).unwrap();
    three.is_refused(permits(1, 7));
    one.release(&writer);
}

#[test]
fn a_waiting_writer_is_not_passed_until_it_is_cancelled() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two, three] = sides(temp.path());
    let reader = one.has(READ);
    let writer = two.waits(WRITE);
    three.is_refused(READ);
    let later = three.waits(READ);
    until_blocked_on(temp.path(), "x.lock");
    two.inline().cancel(&writer).unwrap();
    // The thread of the cancelled writer is still blocked in the kernel, which is in nobody's way.
    let beside = three.wait_for(&later);
    let another = two.has(READ);
    one.release(&reader);
    three.release(&beside);
    two.release(&another);
}

/// The thread of the second process is blocked for a writer that is gone, and another writer that is gone stood in front of its reader.
#[test]
fn a_thread_in_the_wrong_queue_of_the_kernel_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two, three] = sides(temp.path());
    for _ in 0..20 {
        let held = one.wait_for(&one.of(READ).waiting());
        let first = two.waits(WRITE);
        until_blocked_on(temp.path(), "x.lock");
        let second = three.waits(WRITE);
        two.inline().cancel(&first).unwrap();
        let reader = two.waits(READ);
        three.inline().cancel(&second).unwrap();
        let beside = two.wait_for(&reader);
        one.release(&held);
        two.release(&beside);
    }
}

#[test]
fn readers_in_a_row_come_in_together() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two, three] = sides(temp.path());
    let writer = one.has(WRITE);
    let readers = [two.waits(READ), three.waits(READ), two.waits(READ)];
    let next = three.waits(WRITE);
    one.release(&writer);
    let held: Vec<Grant> =
        readers.iter().zip([&two, &three, &two]).map(|(claim, side)| side.wait_for(claim)).collect();
    assert!(matches!(three.acquire(&next), Attempt::Queued { .. }));
    for (grant, side) in held.iter().zip([&two, &three, &two]) {
        side.release(grant);
    }
    let grant = three.wait_for(&next);
    three.release(&grant);
}

#[test]
fn one_permit_does_not_pass_a_claim_of_many_and_all_are_woken() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two, three] = sides(temp.path());
    for _ in 0..20 {
        let [first, second] = [1, 1].map(|count| one.wait_for(&one.of(permits(count, 3)).waiting()));
        let many = two.waits(permits(3, 3));
        three.is_refused(permits(1, 3));
        let few = three.waits(permits(1, 3));
        one.release(&first);
        assert!(matches!(two.acquire(&many), Attempt::Queued { .. }));
        assert!(matches!(three.acquire(&few), Attempt::Queued { .. }));
        one.release(&second);
        let grant = two.wait_for(&many);
        two.release(&grant);
        let grant = three.wait_for(&few);
        three.release(&grant);
    }
}

#[test]
fn a_downgrade_keeps_writers_out_and_lets_readers_in() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two, three] = sides(temp.path());
    for _ in 0..20 {
        let claim = one.of(WRITE).waiting();
        let grant = one.wait_for(&claim);
        let reader = two.waits(READ);
        let writer = three.waits(WRITE);
        let downgrade = one.backend.abilities().downgrade.unwrap();
        for _ in 0..2 {
            assert_eq!(block_on(downgrade.downgrade(&grant)).unwrap(), Released::Done);
        }
        assert_eq!(one.grant(&claim), grant);
        let beside = two.wait_for(&reader);
        assert!(matches!(three.acquire(&writer), Attempt::Queued { .. }));
        two.release(&beside);
        three.is_refused(WRITE);
        one.release(&grant);
        assert_eq!(block_on(downgrade.downgrade(&grant)).unwrap(), Released::NotHeld);
        let grant = three.wait_for(&writer);
        three.release(&grant);
    }
}

#[test]
fn a_schedule_is_kept_in_the_file() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = sides(temp.path());
    let not_due = |side: &Side, claim: &Claim| match side.acquire(claim) {
        Attempt::Busy(Busy::NotDue { remaining }) => remaining,
        other => panic!("{other:?}"),
    };
    let hour = Duration::from_secs(3600);
    // Nobody got this one.
    let undone = one.of(READ).with_min_hold(hour);
    one.grant(&undone);
    two.is_refused(READ);
    one.inline().cancel(&undone).unwrap();
    let claim = one.of(WRITE).with_once_per(hour);
    let grant = one.grant(&claim);
    let complete = |side: &Side, grant| block_on(side.backend.abilities().schedule.unwrap().complete(grant));
    assert_eq!(complete(&one, &grant).unwrap(), Released::Done);
    assert_eq!(complete(&one, &grant).unwrap(), Released::NotHeld);
    for mode in [WRITE, READ, permits(1, 2)] {
        let left = not_due(&two, &two.of(mode).with_once_per(hour));
        assert!(left > hour / 2 && left <= hour);
        let grant = two.has(mode);
        two.release(&grant);
    }
    // Who waits for it and comes late is told, too.
    let held = two.has(WRITE);
    let due = one.grant_or_queue(&one.of(WRITE).with_once_per(Duration::from_millis(1)).waiting());
    assert!(due.is_none());
    assert_eq!(complete(&two, &held).unwrap(), Released::Done);
    let held = one.wait_for(&one.of(WRITE).with_min_hold(hour).waiting());
    one.release(&held);
    assert!(not_due(&two, &two.of(READ)) > hour / 2);
    assert!(not_due(&two, &two.of(WRITE).waiting()) > hour / 2);
    let state = block_on(two.backend.abilities().inspect.unwrap().state(&held.name)).unwrap();
    assert!(state.not_due_for.unwrap() > hour / 2);
}

impl Side {
    fn grant_or_queue(&self, claim: &Claim) -> Option<Grant> {
        match self.acquire(claim) {
            Attempt::Granted(grant) => Some(grant),
            Attempt::Queued { .. } => {
                self.inline().cancel(claim).unwrap();
                None
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Holds the lock as the task says, until it is told to go on.
pub(crate) fn hold(dir: &Path, how: &str) {
    let side = Side::new(dir);
    let claim = match how {
        "reads" => side.of(READ),
        "writes" => side.of(WRITE),
        "has 2 of 5" => side.of(permits(2, 5)),
        "waits for 4 of 5" => side.of(permits(4, 5)).waiting(),
        "writes for an hour" => side.of(WRITE).with_min_hold(Duration::from_secs(3600)),
        "leads" => side.of(WRITE).with_value("10.0.0.7"),
        other => panic!("no way to hold: {other}"),
    };
    match side.acquire(&claim) {
        Attempt::Granted(grant) => say(grant.tokens.first()),
        Attempt::Queued { .. } => say("waits"),
        other => panic!("{other:?}"),
    }
    may_go_on();
}

#[test]
fn a_killed_holder_or_waiter_of_any_kind_frees_exactly_what_it_had() {
    let temp = tempfile::tempdir().unwrap();
    let side = Side::new(temp.path());
    let start = |how: &str| {
        let mut worker = Worker::start(&format!("kind: {how}"), temp.path());
        worker.hear();
        worker
    };
    // Readers: the writer comes in after the last one.
    let [mut one, mut two] = [start("reads"), start("reads")];
    let writer = side.waits(WRITE);
    one.kill();
    until_blocked_on(temp.path(), "x.lock");
    assert!(matches!(side.acquire(&writer), Attempt::Queued { .. }));
    two.kill();
    let grant = side.wait_for(&writer);
    side.release(&grant);
    // Permits: as many come back as it had, while others stay.
    let [mut one, mut two] = [start("has 2 of 5"), start("has 2 of 5")];
    let grant = side.has(permits(1, 5));
    let waiting = side.waits(permits(2, 5));
    one.kill();
    let more = side.wait_for(&waiting);
    side.is_refused(permits(1, 5));
    // Somebody who waits for many holds up others only while it lives.
    side.release(&more);
    let mut many = start("waits for 4 of 5");
    side.is_refused(permits(1, 5));
    many.kill();
    let again = side.wait_for(&side.of(permits(2, 5)).waiting());
    side.is_refused(permits(1, 5));
    two.kill();
    let last = side.wait_for(&side.of(permits(2, 5)).waiting());
    for grant in [&grant, &again, &last] {
        side.release(grant);
    }
    // A writer, and what it said about the time after it.
    let mut writer = start("writes for an hour");
    side.is_refused(READ);
    writer.kill();
    let not_due = until("the writer is gone", || match side.acquire(&side.of(READ)) {
        Attempt::Busy(Busy::NotDue { remaining }) => Some(remaining),
        _ => None,
    });
    assert!(not_due > Duration::from_secs(1800));
}

#[test]
fn the_death_of_a_leader_is_seen_soon() {
    let temp = tempfile::tempdir().unwrap();
    let locks: Locks = locks_backend_file::open(temp.path()).unwrap();
    let election = locks.election("x");
    let mut observer = election.observe();
    for _ in 0..3 {
        let mut worker = Worker::start("kind: leads", temp.path());
        let token = worker.hear();
        let leader = loop {
            if let Some(leader) = block_on(observer.next()).unwrap() {
                break leader;
            }
        };
        assert_eq!((&*leader.value, leader.token.to_string()), ("10.0.0.7", token));
        assert_eq!(leader.holder.unwrap().pid, Some(worker.pid()));
        worker.kill();
        assert!(block_on(observer.next()).unwrap().is_none(), "nobody leads");
    }
}

#[test]
fn values_belong_to_one_grant() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = sides(temp.path());
    let values = one.backend.abilities().values.unwrap();
    let leader = || block_on(two.backend.abilities().values.unwrap().leader(&one.of(WRITE).name)).unwrap();
    assert_eq!(leader(), None);
    let grant = one.grant(&one.of(WRITE).with_value("first"));
    assert_eq!(&*leader().unwrap().value, "first");
    let long: Arc<str> = "é".repeat(2048).into();
    assert_eq!(block_on(values.publish(&grant, &long)).unwrap(), Released::Done);
    assert_eq!(leader().unwrap().value, long);
    one.release(&grant);
    assert_eq!(leader(), None);
    assert_eq!(block_on(values.publish(&grant, "late")).unwrap(), Released::NotHeld);
    let plain = two.has(WRITE);
    assert_eq!(leader(), None);
    two.release(&plain);
    let reader = two.has(READ);
    assert_eq!(leader(), None);
    two.release(&reader);
}

/// Ends the questions also when the test fails.
struct EndAsking<'a>(&'a AtomicBool);

impl Drop for EndAsking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn inspection_tells_who_holds_and_waits_and_disturbs_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two, three] = sides(temp.path());
    let inspect = three.backend.abilities().inspect.unwrap();
    let state = |name: &str| block_on(inspect.state(&one.claim(name).name)).unwrap();
    assert!(!state("x").is_in_use());
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "a question makes no file");
    for mode in [WRITE, READ, permits(2, 5)] {
        // Each in a lock of its own: the threads of those who are cancelled may still get it for a moment.
        let name = mode.to_string();
        let claims = [&one, &two].map(|side| side.claim(&name).with_mode(mode));
        let grant = one.grant(&claims[0]);
        let beside = (mode != WRITE).then(|| two.grant(&claims[1]));
        let waiting = [(&two, WRITE), (&one, READ)].map(|(side, mode)| {
            let claim = side.claim(&name).with_mode(mode).waiting();
            assert!(matches!(side.acquire(&claim), Attempt::Queued { .. }));
            claim
        });
        let seen = state(&name);
        let holders: Vec<_> = seen.holders.iter().map(|held| (held.mode, held.claim, held.token)).collect();
        let expected = std::iter::once(&grant).chain(&beside);
        let expected: Vec<_> =
            expected.map(|grant| (mode, Some(grant.claim), Some(grant.tokens.first()))).collect();
        assert_eq!(holders, expected);
        assert!(
            seen.holders.iter().all(|held| held.holder.as_ref().unwrap().pid == Some(std::process::id()))
        );
        let waiters: Vec<_> =
            seen.waiters.unwrap().iter().map(|waiter| (waiter.mode, waiter.claim)).collect();
        assert_eq!(waiters, [0, 1].map(|at: usize| (Some(waiting[at].mode), Some(waiting[at].id))));
        assert_eq!(block_on(inspect.list(&name)).unwrap().len(), 1);
        assert_eq!(block_on(inspect.list("y")).unwrap().len(), 0);
        two.inline().cancel(&waiting[0]).unwrap();
        one.inline().cancel(&waiting[1]).unwrap();
        one.release(&grant);
        if let Some(beside) = beside {
            two.release(&beside);
        }
        until("nobody holds", || (!state(&name).is_in_use()).then_some(()));
    }
    // However often it is asked, a free lock is never busy.
    let asking = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while asking.load(Ordering::Relaxed) {
                block_on(inspect.state(&one.claim("free").name)).unwrap();
            }
        });
        let ending = EndAsking(&asking);
        for _ in 0..500 {
            for mode in [WRITE, READ, permits(1, 2)] {
                one.release(&one.grant(&one.claim("free").with_mode(mode)));
            }
        }
        drop(ending);
    });
    for error in [
        block_on(inspect.break_lock(&one.of(WRITE).name, None)),
        block_on(inspect.revoke(&one.of(WRITE).name, None)),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("pid"), "{error}");
    }
}
