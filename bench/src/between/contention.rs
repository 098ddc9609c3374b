//! Hand-offs between processes, as many as there can be.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;

use super::{PROCESSES, Store, With};
use crate::child::Child;
use crate::rounds::{Effort, Spread, interleaved, jain};
use crate::table::{Goal, Table, Unit};

/// What else people use with a store, and by how much it is to be surpassed.
pub(crate) struct Rival {
    pub(crate) with: With,
    pub(crate) name: &'static str,
    /// So many waiters, so many times as many hand-offs.
    pub(crate) goals: &'static [(usize, f64)],
    /// What is measured beside a `Locks` for each waiter, and how that is called.
    pub(crate) also: &'static [(With, &'static str)],
}

pub(crate) fn measure(effort: Effort, store: &impl Store, rival: &Rival, table: &mut Table) -> Result<()> {
    for &(waiters, goal) in rival.goals.iter().filter(|(waiters, _)| *waiters <= effort.waiters) {
        let all = format!("{}, {waiters} waiters in {PROCESSES} processes", store.name());
        compare(effort, store, (With::Locks, &all), rival, (waiters, goal), table)?;
        for &(with, how) in rival.also {
            // With one waiter for each process there is nothing to share.
            if with == With::SharedLocks && waiters == PROCESSES {
                continue;
            }
            let all = format!("{all} {how}");
            compare(effort, store, (with, &all), rival, (waiters, goal), table)?;
        }
    }
    Ok(())
}

fn compare(
    effort: Effort,
    store: &impl Store,
    (with, all): (With, &str),
    rival: &Rival,
    (waiters, goal): (usize, f64),
    table: &mut Table,
) -> Result<()> {
    let dir = tempfile::tempdir().context("can't make a directory")?;
    let contest = |with| Contest::new(dir.path(), store, with, waiters).map(RefCell::new);
    let (ours, peers) = (contest(with)?, contest(rival.with)?);
    let turn = |contest: &RefCell<Contest>| contest.borrow_mut().turn(store, effort.slow_contention);
    let [mine, theirs] = interleaved(effort, [&mut || turn(&ours), &mut || turn(&peers)])?;
    let (ours, peers) = (ours.into_inner(), peers.into_inner());
    table.count_overlaps(ours.overlaps + peers.overlaps);
    let (peer, what) = (rival.name, |what: &str| format!("{all}, {what}"));
    let ratio = Spread::of_ratios(&mine, &theirs);
    table.row(what(&format!("hand-offs over {peer}'s")), Goal::AtLeast(goal), Unit::Times, ratio);
    let requests = Spread::of(&ours.requests);
    table.row(what("requests to the store per hand-off"), Goal::AtMost(2.1), Unit::Number, requests);
    let requests = Spread::of(&peers.requests);
    let of_peer = what(&format!("{peer}, requests to the store per hand-off"));
    table.row(of_peer, Goal::None, Unit::Number, requests);
    // With more waiters a short round ends before all have had their turn.
    if waiters == PROCESSES {
        let fairness = Spread::of(&ours.fairness);
        // Sessions promise no order.
        let goal = if with == With::Sessions { Goal::None } else { Goal::AtLeast(0.95) };
        table.row(what("fairness (Jain)"), goal, Unit::Number, fairness);
    }
    ours.end()?;
    peers.end()
}

/// The processes of one side, and what was seen of them beside how fast they are.
pub(super) struct Contest {
    with: With,
    pub(super) children: Vec<Child>,
    requests: Vec<f64>,
    fairness: Vec<f64>,
    overlaps: u64,
}

impl Contest {
    pub(super) fn new(dir: &Path, store: &impl Store, with: With, waiters: usize) -> Result<Self> {
        let name = with.to_possible_value().context("a way to lock without a name")?;
        let arena = dir.join(format!("{}-{waiters}", name.get_name()));
        fs::write(&arena, u32::MAX.to_ne_bytes()).context("can't make an arena")?;
        let url = match with {
            With::Locks | With::SharedLocks => store.locks().to_owned(),
            With::Sessions => format!("{}?mode=session&restart_grace=off", store.url()),
            _ => store.url().to_owned(),
        };
        let each = waiters / PROCESSES;
        let mut children = Vec::new();
        for process in 0..PROCESSES {
            let (first, each) = ((process * each).to_string(), each.to_string());
            let arguments: [&OsStr; 6] = [
                "waiters".as_ref(),
                url.as_ref(),
                name.get_name().as_ref(),
                arena.as_ref(),
                first.as_ref(),
                each.as_ref(),
            ];
            children.push(Child::start(arguments)?);
        }
        Ok(Self { with, children, requests: Vec::new(), fairness: Vec::new(), overlaps: 0 })
    }

    /// Everybody connects, or shows that it still is.
    pub(super) fn prepare(&mut self) -> Result<()> {
        self.tell("prepare")?;
        self.children.iter_mut().try_for_each(|child| child.hear().map(drop))
    }

    /// Hand-offs per second.
    fn turn(&mut self, store: &impl Store, time: Duration) -> Result<f64> {
        self.prepare()?;
        let before = store.requests(self.with)?;
        self.tell(&format!("contend {}", time.as_millis()))?;
        let (mut shares, mut sum) = (Vec::new(), [0; 4]);
        for child in &mut self.children {
            let said = child.numbers()?;
            let [share, hand_offs, all, overlaps] = said[..] else { bail!("a contender said {said:?}") };
            shares.push(share);
            sum = [sum[0] + share, sum[1] + hand_offs, sum[2] + all, sum[3] + overlaps];
        }
        let [_, hand_offs, all, overlaps] = sum;
        self.requests.push((store.requests(self.with)? - before) as f64 / all as f64);
        self.fairness.push(jain(&shares));
        self.overlaps += overlaps;
        // Nothing is faster than none at all.
        Ok(hand_offs.max(1) as f64 / time.as_secs_f64())
    }

    pub(super) fn tell(&mut self, what: &str) -> Result<()> {
        self.children.iter_mut().try_for_each(|child| child.tell(what))
    }

    pub(super) fn end(self) -> Result<()> {
        self.children.into_iter().try_for_each(Child::end)
    }
}
