//! Ten thousand locks that one `Locks` holds at the same time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use locks_api::{LockGuard, Locks};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::rounds::Spread;
use crate::table::{Goal, Table, Unit};

pub(crate) const HELD: u64 = 10_000;

/// Renewed every 1.8 s.
const TTL: Duration = Duration::from_secs(6);

/// Takes all of them.
pub(crate) fn hold(runtime: &Runtime, locks: &Locks) -> Result<Vec<LockGuard>> {
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..HELD {
            let lock = locks.lock(format!("held-{number}")).ttl(TTL);
            tasks.spawn(async move { lock.acquire().await });
        }
        let mut guards = Vec::new();
        while let Some(guard) = tasks.join_next().await {
            guards.push(guard.context("a task panicked")??);
        }
        Ok(guards)
    })
}

/// Gives them back, and says how many were lost.
pub(crate) fn give_back(
    runtime: &Runtime,
    store: &str,
    guards: Vec<LockGuard>,
    table: &mut Table,
) -> Result<()> {
    let (held, lost): (Vec<_>, Vec<_>) = guards.into_iter().partition(LockGuard::is_held);
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for guard in held {
            tasks.spawn(guard.release());
        }
        while let Some(released) = tasks.join_next().await {
            released.context("a task panicked")??;
        }
        anyhow::Ok(())
    })?;
    row(store, "lost", Goal::AtMost(0.0), lost.len() as f64, table);
    Ok(())
}

/// A row about all of them.
pub(crate) fn row(store: &str, what: &str, goal: Goal, value: f64, table: &mut Table) {
    table.row(format!("{store}, {HELD} held locks, {what}"), goal, Unit::Number, Spread::of(&[value]));
}
