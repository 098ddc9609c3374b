//! Many processes that want one lock in every way, some of which are killed while they have it.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use locks_api::spi::Mode;
use pollster::block_on;

use crate::worker::{Worker, alone, may_go_on, say};

const LIMIT: u32 = 4;

/// Takes the lock in one way after the other, and says what it has and for how long. Ends when it is told to.
pub(crate) fn every_kind(dir: &Path) {
    let locks = locks_backend_file::open(dir).unwrap();
    let (plain, rw, semaphore) = (locks.lock("x"), locks.rw_lock("x"), locks.semaphore("x", LIMIT));
    say("ready");
    assert!(may_go_on());
    let end = SystemTime::now() + Duration::from_millis(1500);
    let mut dice = u64::from(std::process::id());
    while SystemTime::now() < end {
        dice = dice.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        let timeout = Duration::from_secs(20);
        let asked = micros();
        let (mode, token, done): (_, _, Box<dyn FnOnce()>) = match (dice >> 33) % 4 {
            0 => {
                let guard = block_on(plain.acquire_timeout(timeout)).unwrap();
                (0, guard.fencing_token(), Box::new(move || drop(guard)))
            }
            1 => {
                let guard = block_on(rw.read_timeout(timeout)).unwrap();
                (1, guard.fencing_token(), Box::new(move || drop(guard)))
            }
            many => {
                let count = if many == 2 { 1 } else { 3 };
                let guard = block_on(semaphore.acquire_many_timeout(count, timeout)).unwrap();
                (1 + count, guard.fencing_token(), Box::new(move || drop(guard)))
            }
        };
        let start = micros();
        say(format_args!("has {mode} {token} {asked} {start}"));
        while micros() < start + u128::from(dice % 400) {
            std::thread::yield_now();
        }
        say(format_args!("had {token} {}", micros()));
        done();
    }
    say("done");
}

fn micros() -> u128 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros()
}

#[derive(Debug)]
struct Span {
    mode: Mode,
    token: u64,
    asked: u128,
    start: u128,
    end: u128,
}

/// Reads what a worker says until it is done or dead; kills it after so many words.
fn spans(worker: &mut Worker, kill_after: Option<usize>) -> Vec<Span> {
    let mut spans: HashMap<u64, Span> = HashMap::new();
    for count in 0.. {
        if Some(count) == kill_after {
            worker.kill();
        }
        let Some(line) = worker.hear_or_end() else { break };
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["has", mode, token, asked, start] => {
                let mode = match mode {
                    "0" => Mode::Exclusive,
                    "1" => Mode::Shared,
                    more => Mode::Permits { count: more.parse::<u32>().unwrap() - 1, limit: LIMIT },
                };
                let (token, asked, start) =
                    (token.parse().unwrap(), asked.parse().unwrap(), start.parse().unwrap());
                // Of one that is killed nothing more is known than that it had it.
                spans.insert(token, Span { mode, token, asked, start, end: start });
            }
            ["had", token, end] => {
                spans.get_mut(&token.parse().unwrap()).unwrap().end = end.parse().unwrap();
            }
            ["done"] => break,
            _ => panic!("{line}"),
        }
    }
    spans.into_values().collect()
}

#[test]
fn no_two_hold_what_excludes_each_other_and_tokens_rise_whoever_is_killed() {
    let _alone = alone();
    for round in 0..3 {
        let temp = tempfile::tempdir().unwrap();
        let mut workers: Vec<Worker> = (0..6).map(|_| Worker::start("every kind", temp.path())).collect();
        for worker in &mut workers {
            assert_eq!(worker.hear(), "ready");
            worker.go();
        }
        let mut all = std::thread::scope(|scope| {
            let threads: Vec<_> = workers
                .iter_mut()
                .enumerate()
                .map(|(index, worker)| {
                    scope.spawn(move || spans(worker, (index < 2).then_some(50 + 31 * round + index)))
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        all.sort_by_key(|span| span.start);
        assert!(all.len() > 20, "only {} grants", all.len());
        for (index, span) in all.iter().enumerate() {
            let beside = || all[..index].iter().filter(|other| other.end > span.start);
            let modes = beside().map(|other| other.mode);
            assert!(span.mode.fits_beside(modes), "{span:?} beside {:?}", beside().collect::<Vec<_>>());
            for before in all[..index].iter().filter(|other| other.end < span.asked) {
                assert!(before.token < span.token, "{before:?} came before {span:?}");
            }
        }
        let mut tokens: Vec<u64> = all.iter().map(|span| span.token).collect();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), all.len());
    }
}
