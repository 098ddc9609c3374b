//! A thousand tasks that wait for a hundred locks, in eight processes with one `Locks` each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use locks_api::{Lock, LockGuard};
use tokio::task::{JoinSet, yield_now};

use super::drain::inversions;
use super::{PROCESSES, Store, open, runtime, wait_for_queue};
use crate::child::Child;
use crate::rounds::Spread;
use crate::table::{Goal, Table, Unit};

const TASKS: usize = 1_000;
const LOCKS: usize = 100;

/// Each process may have so many connections.
pub(crate) fn measure(store: &impl Store, most_connections: f64, table: &mut Table) -> Result<()> {
    let runtime = runtime()?;
    let locks = open(store.locks(), true)?;
    let names: Vec<String> = (0..LOCKS).map(name).collect();
    let mut held: Vec<LockGuard> = Vec::new();
    for name in &names {
        held.push(runtime.block_on(locks.lock(name).acquire())?);
    }
    let before = store.connections()?;
    let mut children: Vec<Child> = (0..PROCESSES)
        .map(|process| Child::start(["crowd", store.locks(), &process.to_string()]))
        .collect::<Result<_>>()?;
    for child in &mut children {
        child.hear()?;
    }
    // Every process has more tasks than there are locks, and waits once for each.
    wait_for_queue(store, &names, PROCESSES * LOCKS)?;
    let connections = (store.connections()? - before) as f64 / PROCESSES as f64;
    let order: Vec<Vec<u128>> = names.iter().map(|name| store.queue(name)).collect::<Result<_>>()?;
    for guard in held {
        runtime.block_on(guard.release())?;
    }
    let mut served = Vec::new();
    for (process, mut child) in children.into_iter().enumerate() {
        let said = child.numbers()?;
        served.extend(said.chunks_exact(5).map(|turn| Turn {
            process,
            lock: turn[0],
            asked: turn[1],
            token: turn[2],
            claim: u128::from(turn[3]) << 64 | u128::from(turn[4]),
        }));
        child.end()?;
    }
    let what = |what: &str| {
        format!(
            "{store}, {TASKS} tasks wait for {LOCKS} locks in {PROCESSES} processes, {what}",
            store = store.name()
        )
    };
    let number = |value: f64| Spread::of(&[value]);
    table.row(what("served"), Goal::AtLeast(TASKS as f64), Unit::Number, number(served.len() as f64));
    table.row(
        what("connections per process"),
        Goal::AtMost(most_connections),
        Unit::Number,
        number(connections),
    );
    let inside = inside_processes(&served) as f64;
    table.row(what("inversions inside a process"), Goal::AtMost(0.0), Unit::Number, number(inside));
    let tickets = between_tickets(&served, &order) as f64;
    table.row(what("inversions between store tickets"), Goal::AtMost(0.0), Unit::Number, number(tickets));
    Ok(())
}

/// A task's turn with a lock.
struct Turn {
    process: usize,
    lock: u64,
    /// When it asked: a number that grows within its process.
    asked: u64,
    token: u64,
    claim: u128,
}

fn inside_processes(served: &[Turn]) -> usize {
    let mut groups: BTreeMap<(usize, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for turn in served {
        groups.entry((turn.process, turn.lock)).or_default().push((turn.token, turn.asked));
    }
    let of_group = |turns: &mut Vec<(u64, u64)>| {
        turns.sort_unstable();
        let granted: Vec<u128> = turns.iter().map(|(_, asked)| u128::from(*asked)).collect();
        let mut asked = granted.clone();
        asked.sort_unstable();
        inversions(&asked, &granted)
    };
    groups.values_mut().map(of_group).sum()
}

fn between_tickets(served: &[Turn], order: &[Vec<u128>]) -> usize {
    let mut sum = 0;
    for (lock, order) in order.iter().enumerate() {
        let mut turns: Vec<&Turn> = served.iter().filter(|turn| turn.lock == lock as u64).collect();
        turns.sort_by_key(|turn| turn.token);
        let mut granted: Vec<u128> = turns.iter().map(|turn| turn.claim).collect();
        // A claim that is handed on stays the same.
        granted.dedup();
        sum += inversions(order, &granted);
    }
    sum
}

fn name(lock: usize) -> String {
    format!("crowded-{lock}")
}

/// One of the processes, as it sees itself.
#[derive(clap::Args)]
pub(crate) struct Crowd {
    url: String,
    process: usize,
}

impl Crowd {
    /// Lets all tasks ask, says so, and says what each got when all have been served.
    pub(crate) fn run(&self) -> Result<()> {
        let runtime = runtime()?;
        let locks = open(&self.url, true)?;
        let asked = Arc::new(AtomicU64::new(0));
        let each = TASKS / PROCESSES;
        let turns = runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for task in self.process * each..(self.process + 1) * each {
                let lock = task % LOCKS;
                tasks.spawn(turn(locks.lock(name(lock)), lock, Arc::clone(&asked)));
            }
            while asked.load(Ordering::SeqCst) < each as u64 {
                yield_now().await;
            }
            println!("asked");
            let mut turns = String::new();
            while let Some(turn) = tasks.join_next().await {
                turns += &turn.context("a task panicked")??;
            }
            anyhow::Ok(turns)
        })?;
        println!("{turns}");
        match std::io::stdin().lines().next() {
            None => Ok(()),
            Some(line) => bail!("told to {:?}", line?),
        }
    }
}

/// `<lock> <asked> <token> <claim> `, in numbers; the claim is two of them.
async fn turn(lock: Lock, number: usize, asked: Arc<AtomicU64>) -> Result<String> {
    let asked = asked.fetch_add(1, Ordering::SeqCst);
    let guard = lock.acquire().await?;
    let claim = u128::from_str_radix(&guard.claim_id().to_string(), 16).context("a strange claim")?;
    let token = guard.fencing_token().get();
    guard.release().await?;
    let (high, low) = ((claim >> 64) as u64, claim as u64);
    Ok(format!("{number} {asked} {token} {high} {low} "))
}
