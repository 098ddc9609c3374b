//! Clearing away unused files while others take locks.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use locks_api::Locks;
use locks_api::spi::{Backend, Mode, Released};
use locks_backend_file::FileBackend;
use pollster::block_on;

use crate::steps::Side;
use crate::worker::{Worker, alone, say};

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn only_what_nobody_uses_or_needs_is_removed() {
    let temp = tempfile::tempdir().unwrap();
    let side = Side::new(temp.path());
    let other = FileBackend::open(temp.path()).unwrap();
    let take = |name: &str, mode| side.grant(&side.claim(name).with_mode(mode));
    let held = [
        take("held", Mode::Exclusive),
        take("read", Mode::Shared),
        take("permits", Mode::Permits { count: 1, limit: 2 }),
    ];
    let waiting = Side::new(temp.path());
    assert!(matches!(
        waiting.acquire(&waiting.claim("held").waiting()),
        locks_api::spi::Attempt::Queued { .. }
    ));
    let hour = Duration::from_secs(3600);
    side.release(&side.grant(&side.claim("for an hour").with_min_hold(hour)));
    let done = side.grant(&side.claim("every hour").with_once_per(hour));
    assert_eq!(block_on(side.backend.abilities().schedule.unwrap().complete(&done)).unwrap(), Released::Done);
    let long = "n".repeat(500);
    let mut last = Vec::new();
    for name in ["unused", &long] {
        let grant = take(name, Mode::Exclusive);
        side.release(&grant);
        last.push((name, grant.tokens.last()));
    }
    let collected = other.collect_garbage(hour).unwrap();
    assert_eq!((collected.removed, collected.kept), (0, 7));
    fs::write(temp.path().join("note.txt"), "not ours").unwrap();
    let before = files(temp.path());
    let collected = other.collect_garbage(Duration::ZERO).unwrap();
    assert_eq!((collected.removed, collected.kept), (2, 5));
    assert_eq!(files(temp.path()), before - 2);
    for (name, token) in last {
        let grant = take(name, Mode::Exclusive);
        assert!(grant.tokens.first() > token);
        side.release(&grant);
    }
    for grant in &held[1..] {
        assert!(matches!(
            waiting.acquire(&waiting.claim(grant.name.as_str())),
            locks_api::spi::Attempt::Busy(_)
        ));
    }
}

#[test]
fn side_files_of_paths_are_cleared_away_unless_the_path_is_locked() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = [(); 2]
        .map(|()| Locks::new(FileBackend::options().paths(true).open(temp.path().join("locks")).unwrap()));
    let [held, free] = ["held", "free"].map(|name| temp.path().join(name).to_str().unwrap().to_owned());
    let guard = block_on(one.lock(&held).acquire()).unwrap();
    let last = block_on(one.lock(&free).acquire()).unwrap().fencing_token();
    let backend: &FileBackend = (two.backend() as &dyn std::any::Any).downcast_ref().unwrap();
    let collected = backend.collect_garbage(Duration::ZERO).unwrap();
    assert_eq!((collected.removed, collected.kept), (1, 1));
    assert!(Path::new(&free).exists(), "only what lies in the lock directory is ours");
    assert!(block_on(two.lock(&free).acquire()).unwrap().fencing_token() > last);
    let first = guard.fencing_token();
    block_on(guard.release()).unwrap();
    assert!(block_on(two.lock(&held).acquire()).unwrap().fencing_token() > first);
}

/// Clears files away as fast as it can for two seconds.
pub(crate) fn clear_away(dir: &Path) {
    let backend = FileBackend::open(dir).unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    let mut removed = 0;
    while Instant::now() < end {
        removed += backend.collect_garbage(Duration::ZERO).unwrap().removed;
    }
    say(removed);
}

/// Takes a few locks again and again for two seconds. Who holds one exclusively also holds a socket that only one can have, and looks at the last token.
pub(crate) fn come_and_go(dir: &Path) {
    let locks = locks_backend_file::open(dir).unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    let mut dice = u64::from(std::process::id());
    let mut grants = 0;
    while Instant::now() < end {
        dice = dice.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        let name = format!("lock{}", (dice >> 33) % 3);
        let witness = SocketAddr::from_abstract_name(format!("{}/{name}", dir.display())).unwrap();
        let timeout = Duration::from_secs(20);
        if (dice >> 40).is_multiple_of(4) {
            // A reader has the lock in another way, and keeps writers out all the same.
            let guard = block_on(locks.rw_lock(&name).read_timeout(timeout)).unwrap();
            let alone = UnixListener::bind_addr(&witness);
            drop(alone);
            drop(guard);
            continue;
        }
        let guard = block_on(locks.lock(&name).acquire_timeout(timeout)).unwrap();
        let alone = match UnixListener::bind_addr(&witness) {
            Ok(alone) => alone,
            Err(error) => panic!("somebody else holds {name}: {error}"),
        };
        let last = dir.join(format!("../{name}.last"));
        let before = fs::read_to_string(&last).map_or(0, |last| last.parse::<u64>().unwrap());
        assert!(guard.fencing_token().get() > before, "{before} and then {}", guard.fencing_token());
        fs::write(&last, guard.fencing_token().to_string()).unwrap();
        grants += 1;
        drop(alone);
        block_on(guard.release()).unwrap();
    }
    say(grants);
}

#[test]
fn a_storm_of_takers_never_notices() {
    let _alone = alone();
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("locks");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut takers: Vec<Worker> = (0..4).map(|_| Worker::start("come and go", &dir)).collect();
    let mut cleaners: Vec<Worker> = (0..2).map(|_| Worker::start("clear away", &dir)).collect();
    let [grants, removed] = [&mut takers, &mut cleaners]
        .map(|workers| workers.iter_mut().map(|worker| worker.hear().parse::<u64>().unwrap()).sum::<u64>());
    println!("{grants} grants, {removed} removals");
    assert!(grants > 100 && removed > 20, "{grants} grants, {removed} removals");
    for worker in takers.into_iter().chain(cleaners) {
        worker.end();
    }
}
