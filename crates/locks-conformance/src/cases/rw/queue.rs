//! Readers and writers that wait for each other.

use std::time::Duration;

use locks_api::Locks;
use locks_api::spi::Offer;
use tokio::task::JoinSet;

use super::{READERS, both};
use crate::cases::wanting::{becomes_refused, begin, gets, has, is_refused, still_waits};
use crate::cases::{Case, Need, Requirement, need};
use crate::space::{PROMPT, Space};
use crate::verdict::{Verdict, check, within};

/// Those who wait are known to the store, so that nobody passes them.
const ORDER: Requirement = need(Need::Order, "rw::everybody_gets_a_turn");

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "rw::a_waiting_writer_is_not_passed",
        "while a writer waits, readers that come later neither get in by trying nor by waiting, and it is served first",
        |space| Box::pin(a_waiting_writer_is_not_passed(space)),
    )
    .needs(&[READERS, ORDER]),
    Case::new(
        "rw::readers_come_in_together",
        "readers that wait behind a writer, of several instances, all come in when it has gone",
        |space| Box::pin(readers_come_in_together(space)),
    )
    .needs(&[READERS]),
    Case::new(
        "rw::a_writer_that_leaves_lets_readers_in",
        "readers behind a writer that gave up waiting come in beside the reader that it waited for",
        |space| Box::pin(a_writer_that_leaves_lets_readers_in(space)),
    )
    .needs(&[READERS]),
    Case::new(
        "rw::a_downgrade_passes_no_writer",
        "readers that come after a waiting writer do not pass it when the holder becomes a reader",
        |space| Box::pin(a_downgrade_passes_no_writer(space)),
    )
    .needs(&[READERS, ORDER, need(Need::Offer(Offer::Downgrade), "offers::no_downgrade")]),
    Case::new(
        "rw::everybody_gets_a_turn",
        "readers and writers of several instances that always want the lock all come to their end",
        |space| Box::pin(everybody_gets_a_turn(space)),
    )
    .needs(&[READERS]),
];

async fn a_waiting_writer_is_not_passed(space: Space) -> Verdict {
    let (one, two, three) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let (read, write) = both(&space, "queue");
    for (holder, writer, late) in [(&one, &two, &three), (&one, &two, &two), (&one, &one, &one)] {
        let first = has(holder, &read).await?;
        let waiting = begin(writer, &write);
        becomes_refused(late, &read).await?;
        is_refused(holder, &read).await?;
        let behind = begin(late, &read);
        still_waits(&waiting, "while a reader held").await?;
        still_waits(&behind, "before a writer that waits longer").await?;
        check!(first.is_held(), "a writer that waits ended a reader's hold");
        let token = first.token();
        first.release().await?;
        let written = gets(waiting, PROMPT, "the writer after the reader").await?;
        check!(written.token() > token, "token {} after token {token}", written.token());
        still_waits(&behind, "while a writer held").await?;
        let token = written.token();
        written.release().await?;
        let last = gets(behind, PROMPT, "the reader after the writer").await?;
        check!(last.token() > token, "token {} after token {token}", last.token());
        last.release().await?;
    }
    Ok(())
}

async fn readers_come_in_together(space: Space) -> Verdict {
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    let (read, write) = both(&space, "together");
    for holder in &instances[..2] {
        let writer = has(holder, &write).await?;
        let waits: Vec<_> = (0..9).map(|number| begin(&instances[number % 3], &read)).collect();
        for wait in &waits {
            check!(!wait.is_finished(), "a reader got in beside a writer");
        }
        still_waits(&waits[8], "while a writer held").await?;
        writer.release().await?;
        // Each keeps its guard until all have theirs.
        let mut readers = Vec::new();
        for wait in waits {
            readers.push(gets(wait, PROMPT, "a reader beside other readers").await?);
        }
        for reader in readers {
            reader.release().await?;
        }
    }
    Ok(())
}

async fn a_writer_that_leaves_lets_readers_in(space: Space) -> Verdict {
    let (one, two, three) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let (read, write) = both(&space, "left");
    for (writer, late) in [(&two, &three), (&one, &one)] {
        for drops in [true, false] {
            // What the last round's writer has left in the store, it may take a moment to undo.
            let first = within(PROMPT, "a lock that is free soon", read.acquire(&one)).await??;
            let waiting = begin(writer, &write);
            still_waits(&waiting, "while a reader held").await?;
            let timed_out = write.acquire_timeout(writer, Duration::from_millis(50));
            let behind: Vec<_> = if drops {
                let behind = (0..3).map(|_| begin(late, &read)).collect();
                waiting.abort();
                behind
            } else {
                waiting.abort();
                let (timed_out, behind) =
                    tokio::join!(timed_out, async { (0..3).map(|_| begin(late, &read)).collect() });
                check!(timed_out.is_err(), "a writer got in beside a reader");
                behind
            };
            let mut readers = Vec::new();
            for wait in behind {
                readers.push(gets(wait, PROMPT, "a reader behind a writer that left").await?);
            }
            check!(first.is_held(), "a writer that left ended a reader's hold");
            first.release().await?;
            for reader in readers {
                reader.release().await?;
            }
        }
    }
    Ok(())
}

async fn a_downgrade_passes_no_writer(space: Space) -> Verdict {
    let (one, two, three) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let (read, write) = both(&space, "queue");
    for late in [&three, &one] {
        let writer = within(PROMPT, "a free lock", one.rw_lock(&read.name).write()).await??;
        let waiting = begin(&two, &write);
        still_waits(&waiting, "while a writer held").await?;
        let reader = within(PROMPT, "a downgrade", writer.downgrade()).await??;
        becomes_refused(late, &read).await?;
        let behind = begin(late, &read);
        still_waits(&behind, "before a writer that waits longer").await?;
        still_waits(&waiting, "beside a downgraded writer").await?;
        check!(reader.is_held(), "a downgraded writer lost its hold");
        reader.release().await?;
        gets(waiting, PROMPT, "the writer after the downgraded one").await?.release().await?;
        gets(behind, PROMPT, "the reader after the writer").await?.release().await?;
    }
    Ok(())
}

async fn everybody_gets_a_turn(space: Space) -> Verdict {
    let (read, write) = both(&space, "wanted");
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let locks: Locks = space.connect().await?;
        for want in [&read, &read, &write] {
            let (locks, want) = (locks.clone(), want.clone());
            tasks.spawn(async move {
                for _ in 0..20 {
                    let held = want.acquire(&locks).await?;
                    tokio::task::yield_now().await;
                    held.release().await?;
                }
                Ok::<_, locks_api::Error>(())
            });
        }
    }
    while let Some(outcome) = within(PROMPT * 2, "twenty turns for everybody", tasks.join_next()).await? {
        outcome??;
    }
    Ok(())
}
