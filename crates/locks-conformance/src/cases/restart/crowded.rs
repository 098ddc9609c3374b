//! A store that goes down again and again while processes take a lock in turns.

use std::time::Duration;

use crate::cases::crash::still_at_work;
use crate::cases::process::PROCESSES;
use crate::cases::progress::Grants;
use crate::cases::{Case, fault};
use crate::checker::Strictness;
use crate::harness::Fault;
use crate::space::{Space, becomes_free, check_history_file};
use crate::verdict::{Verdict, pause_for};
use crate::worker::{Hammer, HistoryFile, Mix, Order};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "restart::a_crowd_over_restarts",
        "processes that take a lock in turns while the store goes down again and again: tokens grow, and no stale guard says that it holds",
        |space| Box::pin(crowd(space, Fault::Restart)),
    )
    .needs(&[PROCESSES, fault(Fault::Restart)])
    .deadline(300),
    Case::new(
        "restart::a_crowd_over_data_losses",
        "the same while the store loses its data again and again",
        |space| Box::pin(crowd(space, Fault::DataLoss)),
    )
    .needs(&[PROCESSES, fault(Fault::DataLoss)])
    .deadline(300),
    Case::new(
        "restart::a_crowd_over_promotions",
        "the same while standbys that missed the last grants and releases take the store's place",
        |space| Box::pin(crowd(space, Fault::Promotion)),
    )
    .needs(&[PROCESSES, fault(Fault::Promotion)])
    .deadline(300),
    Case::new(
        "restart::a_crowd_over_restores",
        "the same while older copies of the data come back",
        |space| Box::pin(crowd(space, Fault::Restore)),
    )
    .needs(&[PROCESSES, fault(Fault::Restore)])
    .deadline(300),
];

/// How often the fault strikes: each may cost a grace.
const STRIKES: u32 = 3;

const WORKERS: usize = 4;

/// Longer than a store takes to come back, so that whoever holds when it goes is still inside when it grants again, and shorter
/// than it takes until a renewal would notice.
const HOLD: Duration = Duration::from_millis(400);

async fn crowd(space: Space, fault: Fault) -> Verdict {
    let name = space.name("struck");
    let history = HistoryFile::new();
    let hammer = Order::Hammer(Hammer {
        name: name.clone(),
        mix: Mix::Exclusive,
        ttl: space.short_ttl(),
        rounds: u32::MAX,
        until: u64::MAX,
        hold: HOLD,
        history: Some(history.path().to_owned()),
        // Whoever has lost the lock is inside until it looks again, together with the next one.
        witness: false,
        patient: true,
    });
    let mut workers = space.workers(WORKERS).await?;
    for worker in &mut workers {
        worker.order(&hammer)?;
    }
    let mut grants = Grants::new(WORKERS);
    grants.go_on(history.path(), space.crash_limit()).await?;
    for _ in 0..STRIKES {
        if matches!(fault, Fault::Promotion | Fault::Restore) {
            space.checkpoint().await?;
            grants.go_on(history.path(), space.crash_limit()).await?;
        }
        pause_for(HOLD.mul_f64(fastrand::f64())).await;
        space.inject(fault).await?;
        grants.go_on(history.path(), space.grace_limit()).await?;
    }
    for worker in &mut workers {
        worker.kill()?;
        still_at_work(worker).await?;
    }
    let locks = space.connect().await?;
    becomes_free(&locks, &name, space.grace_limit()).await?;
    check_history_file(history.path(), 1, Strictness::Loss)
}
