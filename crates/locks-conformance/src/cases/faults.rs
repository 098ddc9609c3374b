//! A bad line to a good store.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use locks_api::{ErrorKind, Locks};
use tokio::task::JoinSet;

use super::Case;
use super::exclusive::visit;
use super::rw::READERS;
use super::rw::crowds::crowd_over;
use super::semaphore::PERMITS;
use crate::checker::Strictness;
use crate::flaky::{Control, Flaky};
use crate::history::Recorder;
use crate::space::{PROMPT, Space, becomes_free, check_history, is_busy};
use crate::verdict::{Failure, Verdict, check, within};
use crate::worker::Mix;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "faults::lost_messages_do_no_harm",
        "with every eighth answer and every twelfth question lost, many tasks are inside one at a time and none hangs",
        |space| Box::pin(lost_messages_do_no_harm(space)),
    ),
    Case::new(
        "faults::doubled_messages_do_no_harm",
        "with every other step done twice, many tasks are inside one at a time and none hangs",
        |space| Box::pin(doubled_messages_do_no_harm(space)),
    ),
    Case::new(
        "faults::readers_and_writers_survive_bad_lines",
        "with messages lost and doubled, readers and writers are inside only as they may be and none hangs",
        |space| Box::pin(async move { kinds(&space, Mix::ReadersAndWriters { readers: 60 }).await }),
    )
    .needs(&[READERS]),
    Case::new(
        "faults::permits_survive_bad_lines",
        "with messages lost and doubled, never too many permits are out, none is lost for good and none hangs",
        |space| Box::pin(async move { kinds(&space, Mix::Permits { limit: 4 }).await }),
    )
    .needs(&[PERMITS]),
    Case::new(
        "faults::a_repeated_release_frees_nobody_else",
        "a release that is repeated because its answer was lost leaves alone whoever got the lock in between",
        |space| Box::pin(a_repeated_release_frees_nobody_else(space)),
    ),
    Case::new(
        "faults::a_store_out_of_reach_is_told",
        "a store out of reach ends every operation as Unavailable in bounded time, and all is well when it is back",
        |space| Box::pin(a_store_out_of_reach_is_told(space)),
    ),
];

async fn lost_messages_do_no_harm(space: Space) -> Verdict {
    crowd(&space, |line| {
        line.lost_answers.store(12, Ordering::Relaxed);
        line.lost_questions.store(8, Ordering::Relaxed);
    })
    .await
}

async fn doubled_messages_do_no_harm(space: Space) -> Verdict {
    crowd(&space, |line| line.doubled.store(50, Ordering::Relaxed)).await
}

/// Many tasks over two bad connections and a good one.
async fn kinds(space: &Space, mix: Mix) -> Verdict {
    let (lossy, doubling) = (space.connect_flaky().await?, space.connect_flaky().await?);
    lossy.1.lost_answers.store(8, Ordering::Relaxed);
    lossy.1.lost_questions.store(5, Ordering::Relaxed);
    doubling.1.doubled.store(50, Ordering::Relaxed);
    let instances = [space.connect().await?, lossy.0, doubling.0];
    crowd_over(space, &instances, mix, false).await?;
    lossy.1.lost_answers.store(0, Ordering::Relaxed);
    lossy.1.lost_questions.store(0, Ordering::Relaxed);
    Ok(())
}

/// Twelve tasks over three such connections, and one over a good one.
async fn crowd(space: &Space, spoil: impl Fn(&Control)) -> Verdict {
    let recorder = Recorder::memory();
    let name = space.name("crowded");
    let mut tasks = JoinSet::new();
    for instance in 0..3 {
        let (locks, line) = space.connect_flaky().await?;
        spoil(&line);
        for task in 0..4 {
            tasks.spawn(visit(locks.lock(&name), recorder.client(instance * 4 + task), 5));
        }
    }
    tasks.spawn(visit(space.connect().await?.lock(&name), recorder.client(12), 5));
    while let Some(outcome) = within(PROMPT * 2, "five turns on a bad line", tasks.join_next()).await? {
        outcome??;
    }
    check_history(&recorder.events(), Strictness::NoFaults)
}

async fn a_repeated_release_frees_nobody_else(space: Space) -> Verdict {
    let (locks, line) = space.connect_flaky().await?;
    let (second, third) = (space.connect().await?, space.connect().await?);
    let name = space.name("repeated");
    let first = locks.lock(&name).acquire().await?;
    line.lose_release.store(true, Ordering::SeqCst);
    let releasing = tokio::spawn(first.release());
    within(PROMPT, "the loss of the answer", line.release_lost()).await?;
    // The store has taken the release and the old holder does not know: it will ask again.
    let guard = within(PROMPT, "taking a released lock", second.lock(&name).acquire()).await??;
    line.admit_releases();
    within(PROMPT, "the end of a repeated release", releasing).await???;
    check!(guard.is_held(), "the repeated release ended the hold of another");
    is_busy(&third, &name).await?;
    is_busy(&locks, &name).await?;
    guard.release().await?;
    becomes_free(&third, &name, PROMPT).await
}

async fn a_store_out_of_reach_is_told(space: Space) -> Verdict {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let (flaky, line) = Flaky::new(space.backend().await?);
    let locks = Locks::builder(flaky).store_timeout(TIMEOUT).build();
    let other = space.connect().await?;
    let (held, wanted) = (space.name("held"), space.name("wanted"));
    let guard = locks.lock(&held).acquire().await?;
    line.cut.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let lock = locks.lock(&wanted);
    for outcome in [
        within(PROMPT, "a wait without a store", lock.acquire()).await?.map(drop),
        within(PROMPT, "a try without a store", lock.try_acquire()).await?.map(drop),
        within(PROMPT, "a wait without a store", lock.acquire_timeout(PROMPT)).await?.map(drop),
    ] {
        let kind = outcome.map_err(|error| error.kind());
        check!(kind == Err(ErrorKind::Unavailable), "{kind:?} without a store");
    }
    let took = began.elapsed();
    check!(took < TIMEOUT * 12, "three operations without a store took {took:?}");
    match within(PROMPT, "a release without a store", guard.release()).await? {
        // Lost, if its ttl has passed meanwhile.
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Lost) => {}
        other => return Err(Failure::new(format!("a release without a store gave {other:?}"))),
    }
    line.cut.store(false, Ordering::SeqCst);
    // What was released is owed to the store until it is back.
    becomes_free(&other, &held, space.crash_limit()).await?;
    becomes_free(&other, &wanted, space.crash_limit()).await?;
    becomes_free(&locks, &wanted, PROMPT).await
}
