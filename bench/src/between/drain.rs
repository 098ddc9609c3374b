//! A queue that drains: how long the lock is nobody's between two holders, and whether they come in order.

use std::cell::RefCell;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use locks_api::{Boottime, Locks};
use tokio::runtime::Runtime;

use super::contender::NAME;
use super::contention::Contest;
use super::{Store, With, open, runtime, wait_for_queue};
use crate::cores::Cores;
use crate::rounds::{Effort, Side, Spread, interleaved};
use crate::table::{Goal, Table, Unit};

/// `trip` says how long a bare round trip takes, in seconds.
pub(crate) fn measure(
    effort: Effort,
    cores: &Cores,
    store: &impl Store,
    trip: Side<'_>,
    table: &mut Table,
) -> Result<()> {
    let dir = tempfile::tempdir().context("can't make a directory")?;
    let name = store.name();
    let goal = if cores.count() == 1 { Goal::None } else { store.gap_goal() };
    let (mut gaps, mut inversions) = (Vec::new(), 0);
    // One after the other: who listens to the server may cost it something, also while the lock is another one's.
    let sizes: Vec<usize> = WAITERS.into_iter().filter(|waiters| *waiters <= effort.waiters).collect();
    for &waiters in &sizes {
        let drain = RefCell::new(Drain::new(dir.path(), store, waiters)?);
        let [gap, trip] = interleaved(effort, [&mut || drain.borrow_mut().turn(store), &mut *trip])?;
        let what = format!("{name}, queue of {waiters} drains, hand-off gap p50, over one round trip");
        table.row(what, goal, Unit::Times, Spread::of_ratios(&gap, &trip));
        gaps.push(gap.iter().zip(&trip).map(|(gap, trip)| gap / trip).collect::<Vec<_>>());
        let drain = drain.into_inner();
        inversions += drain.inversions;
        table.count_overlaps(drain.overlaps);
        drain.contest.end()?;
    }
    let ([few, .., many], [of_few, .., of_many]) = (&sizes[..], &gaps[..]) else {
        bail!("too few queues to compare")
    };
    let what = format!("{name}, hand-off gap p50, {many} waiters over {few}");
    table.row(what, Goal::AtMost(1.25), Unit::Times, Spread::of_ratios(of_many, of_few));
    let what = format!("{name}, queues that drain, inversions between store tickets");
    table.row(what, Goal::AtMost(0.0), Unit::Number, Spread::of(&[inversions as f64]));
    Ok(())
}

const WAITERS: [usize; 3] = [8, 64, 512];

/// Waiters, each with a connection of its own, and who has the lock before them.
struct Drain {
    contest: Contest,
    first: Locks,
    runtime: Runtime,
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
    fn new(dir: &Path, store: &impl Store, waiters: usize) -> Result<Self> {
        let contest = Contest::new(dir, store, With::Locks, waiters)?;
        let first = open(store.locks(), false)?;
        Ok(Self { contest, first, runtime: runtime()?, waiters, inversions: 0, overlaps: 0 })
    }

    /// The median gap in seconds: from when a holder begins to give the lock back until the next one has it.
    fn turn(&mut self, store: &impl Store) -> Result<f64> {
        self.contest.prepare()?;
        let guard = self.runtime.block_on(self.first.lock(NAME).acquire())?;
        self.contest.tell("queue")?;
        wait_for_queue(store, &[NAME.to_owned()], self.waiters)?;
        let order = store.queue(NAME)?;
        let mut gave = Boottime::now().as_nanos();
        self.runtime.block_on(guard.release())?;
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
        self.inversions += inversions(&order, &granted);
        Ok(Spread::of(&gaps).median)
    }
}

/// How many pairs of those who asked were granted in the other order. Others may have been granted too. Whoever was not granted as it had asked has gone
/// to the end, as one whose process did not take in time what it was given: that counts as one more.
pub(super) fn inversions(asked: &[u128], granted: &[u128]) -> usize {
    let places: Vec<usize> =
        granted.iter().filter_map(|claim| asked.iter().position(|other| other == claim)).collect();
    let later = |at: usize| places[at + 1..].iter().filter(|place| **place < places[at]).count();
    (0..places.len()).map(later).sum::<usize>() + (asked.len() - places.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inversions_are_pairs() {
        assert_eq!(inversions(&[1, 2, 3, 4], &[1, 2, 3, 4]), 0);
        assert_eq!(inversions(&[1, 2, 3, 4], &[2, 1, 4, 3]), 2);
        assert_eq!(inversions(&[1, 2, 3, 4], &[4, 3, 2, 1]), 6);
        assert_eq!(inversions(&[1, 2], &[9, 2, 8, 1]), 1);
        assert_eq!(inversions(&[1, 2], &[2]), 1);
    }
}
