//! A queue that drains: how long the lock is nobody's between two holders, and whether they come in order.

use std::cell::RefCell;

use anyhow::{Context as _, Result, ensure};
use locks_api::{Boottime, Locks};
use locks_backend_redis::RedisBackend;
use tokio::runtime::{Builder, Runtime};

use super::contention::Contest;
use super::contest::{NAME, With};
use super::free::Bare;
use super::server::Server;
use crate::cores::Cores;
use crate::rounds::{Effort, Spread, interleaved};
use crate::table::{Goal, Table, Unit};

pub(crate) fn measure(effort: Effort, cores: &Cores, server: &Server, table: &mut Table) -> Result<()> {
    let dir = tempfile::tempdir().context("can't make a directory")?;
    let mut bare = Bare::connect(server)?;
    let first = Locks::new(RedisBackend::from_url(server.locks())?);
    let runtime = Builder::new_current_thread().enable_all().build().context("can't start a runtime")?;
    let drain = |waiters| {
        let contest = Contest::new(dir.path(), server, With::Locks, waiters)?;
        anyhow::Ok(Drain { contest, waiters, inversions: 0, overlaps: 0 })
    };
    let [few, some, many] = [8, 64, 512];
    let drains = [RefCell::new(drain(few)?), RefCell::new(drain(some)?), RefCell::new(drain(many)?)];
    let turn = |drain: &RefCell<Drain>| drain.borrow_mut().turn(server, &first, &runtime);
    let [trip, gap_few, gap_some, gap_many] = interleaved(
        effort,
        [
            &mut || {
                let mut times = Vec::new();
                bare.trips(effort.trips, |took| times.push(took.as_secs_f64()))?;
                Ok(Spread::of(&times).median)
            },
            &mut || turn(&drains[0]),
            &mut || turn(&drains[1]),
            &mut || turn(&drains[2]),
        ],
    )?;
    let goal = if cores.count() == 1 { Goal::None } else { Goal::AtMost(1.5) };
    for (waiters, gap) in [(few, &gap_few), (some, &gap_some), (many, &gap_many)] {
        let what = format!("redis, queue of {waiters} drains, hand-off gap p50, over one round trip");
        table.row(what, goal, Unit::Times, Spread::of_ratios(gap, &trip));
    }
    let what = format!("redis, hand-off gap p50, {many} waiters over {few}");
    table.row(what, Goal::AtMost(1.25), Unit::Times, Spread::of_ratios(&gap_many, &gap_few));
    let mut inversions = 0;
    for drain in drains {
        let drain = drain.into_inner();
        inversions += drain.inversions;
        table.count_overlaps(drain.overlaps);
        drain.contest.end()?;
    }
    let what = "redis, queues that drain, inversions between store tickets";
    table.row(what, Goal::AtMost(0.0), Unit::Number, Spread::of(&[inversions as f64]));
    Ok(())
}

/// Waiters, each with a connection of its own.
struct Drain {
    contest: Contest,
    waiters: usize,
    inversions: usize,
    overlaps: u64,
}

/// What a waiter says of its turn.
struct Turn {
    got: u64,
    gave: u64,
    token: u64,
    claim: u128,
}

impl Drain {
    /// The median gap in seconds: from when a holder begins to give the lock back until the next one has it.
    fn turn(&mut self, server: &Server, first: &Locks, runtime: &Runtime) -> Result<f64> {
        self.contest.prepare()?;
        let guard = runtime.block_on(first.lock(NAME).acquire())?;
        self.contest.tell("queue")?;
        server.wait_for_queue(&[NAME.to_owned()], self.waiters)?;
        let order: Vec<u128> = server
            .queue(NAME)?
            .iter()
            .map(|claim| u128::from_str_radix(claim, 16).context("a strange claim"))
            .collect::<Result<_>>()?;
        let mut gave = Boottime::now().as_nanos();
        runtime.block_on(guard.release())?;
        let mut turns = Vec::new();
        for child in &mut self.contest.children {
            for turn in child.numbers()?.chunks_exact(6) {
                let claim = u128::from(turn[3]) << 64 | u128::from(turn[4]);
                turns.push(Turn { got: turn[0], gave: turn[1], token: turn[2], claim });
                self.overlaps += turn[5];
            }
        }
        turns.sort_by_key(|turn| turn.token);
        let mut gaps = Vec::new();
        for turn in &turns {
            // Who has it before the other one gave it back overlaps, whatever the arena saw.
            self.overlaps += u64::from(turn.got < gave);
            gaps.push(turn.got.saturating_sub(gave) as f64 / 1e9);
            gave = turn.gave;
        }
        let granted: Vec<u128> = turns.iter().map(|turn| turn.claim).collect();
        self.inversions += inversions(&order, &granted)?;
        Ok(Spread::of(&gaps).median)
    }
}

/// How many pairs of those who asked were granted in the other order. Others may have been granted too.
pub(super) fn inversions(asked: &[u128], granted: &[u128]) -> Result<usize> {
    let places: Vec<usize> =
        granted.iter().filter_map(|claim| asked.iter().position(|other| other == claim)).collect();
    ensure!(places.len() == asked.len(), "{} asked and {} of them were granted", asked.len(), places.len());
    let later = |at: usize| places[at + 1..].iter().filter(|place| **place < places[at]).count();
    Ok((0..places.len()).map(later).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inversions_are_pairs() {
        assert_eq!(inversions(&[1, 2, 3, 4], &[1, 2, 3, 4]).unwrap(), 0);
        assert_eq!(inversions(&[1, 2, 3, 4], &[2, 1, 4, 3]).unwrap(), 2);
        assert_eq!(inversions(&[1, 2, 3, 4], &[4, 3, 2, 1]).unwrap(), 6);
        assert_eq!(inversions(&[1, 2], &[9, 2, 8, 1]).unwrap(), 1);
        assert!(inversions(&[1, 2], &[2]).is_err());
    }
}
