//! Holders and waiters of all kinds of locks that are killed.

use std::time::Duration;

use super::{Victims, kills};
use crate::cases::Case;
use crate::cases::election::VALUES;
use crate::cases::process::PROCESSES;
use crate::cases::rw::READERS;
use crate::cases::semaphore::PERMITS;
use crate::cases::wanting::{becomes_free_for, begin, gets, has, is_refused, still_waits};
use crate::checker::Strictness;
use crate::kind::{Held, Kind, Want};
use crate::space::{PROMPT, Space, becomes_free, check_history_file, is_busy};
use crate::verdict::{Verdict, check, pause_for, within};
use crate::worker::{Mix, Order};

pub(in crate::cases) const CASES: &[Case] = &[
    Case::new(
        "crash::a_killed_reader_frees_its_share",
        "a killed reader frees its share within the promised time and nothing of the other readers', and a writer gets in after them",
        |space| Box::pin(a_killed_reader_frees_its_share(space)),
    )
    .needs(&[READERS, PROCESSES])
    .deadline(120),
    Case::new(
        "crash::a_killed_writer_lets_readers_in",
        "readers that wait for a writer come in together once it was killed",
        |space| Box::pin(a_killed_writer_lets_readers_in(space)),
    )
    .needs(&[READERS, PROCESSES])
    .deadline(120),
    Case::new(
        "crash::a_killed_waiting_writer_lets_readers_in",
        "a writer that is killed while it waits holds up readers behind it no longer than promised",
        |space| Box::pin(a_killed_waiting_writer_lets_readers_in(space)),
    )
    .needs(&[READERS, PROCESSES])
    .deadline(120),
    Case::new(
        "crash::a_killed_holder_returns_its_permits",
        "killing a holder of some permits returns exactly those, within the promised time",
        |space| Box::pin(a_killed_holder_returns_its_permits(space)),
    )
    .needs(&[PERMITS, PROCESSES])
    .deadline(120),
    Case::new(
        "crash::a_killed_waiter_for_permits_holds_up_nobody",
        "who is killed while it waits for many permits holds up those who want few no longer than promised, and takes none",
        |space| Box::pin(a_killed_waiter_for_permits_holds_up_nobody(space)),
    )
    .needs(&[PERMITS, PROCESSES])
    .deadline(120),
    Case::new(
        "crash::a_killed_holder_of_several_frees_all",
        "killing a holder of several locks, or one that waits while it has some of them, frees all within the promised time",
        |space| Box::pin(a_killed_holder_of_several_frees_all(space)),
    )
    .needs(&[PROCESSES])
    .deadline(120),
    Case::new(
        "crash::a_killed_candidate_holds_up_nobody",
        "a candidate that is killed while it waits holds up the next one no longer than promised and never leads",
        |space| Box::pin(a_killed_candidate_holds_up_nobody(space)),
    )
    .needs(&[VALUES, PROCESSES])
    .deadline(120),
    Case::new(
        "crash::readers_and_writers_killed_at_random",
        "readers and writers of several processes are killed at random moments: nobody is inside with a writer, tokens grow, it goes on",
        |space| Box::pin(async move { killed_at_random(&space, Mix::ReadersAndWriters { readers: 70 }).await }),
    )
    .needs(&[READERS, PROCESSES])
    .deadline(300),
    Case::new(
        "crash::holders_of_permits_killed_at_random",
        "holders of permits of several processes are killed at random moments: never too many are inside, none is lost for good",
        |space| Box::pin(async move { killed_at_random(&space, Mix::Permits { limit: 3 }).await }),
    )
    .needs(&[PERMITS, PROCESSES])
    .deadline(300),
];

async fn a_killed_reader_frees_its_share(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("shared");
    let read = Want::new(Kind::Read, &name).ttl(space.short_ttl());
    let write = Want::new(Kind::Write, &name).ttl(space.short_ttl());
    for _ in 0..2 {
        let (mut victim, mut other) = (space.worker().await?, space.worker().await?);
        let mut highest = victim.get(&read).await?.max(other.get(&read).await?);
        let mine = has(&one, &read).await?;
        highest = highest.max(mine.token());
        let writer = begin(&two, &write);
        still_waits(&writer, "while readers held").await?;
        victim.kill()?;
        // Whether or not the dead one is noticed, two are left.
        pause_for(space.short_ttl().unwrap_or(Duration::from_millis(100)) * 3 / 2).await;
        still_waits(&writer, "while other readers held").await?;
        check!(mine.is_held(), "another reader's death ended the hold");
        let held = other.ask(&Order::Check).await?;
        check!(held == crate::worker::Reply::Held(true), "another reader's death ended the hold: {held:?}");
        mine.release().await?;
        still_waits(&writer, "while another process read").await?;
        other.kill()?;
        let written = gets(writer, space.crash_limit(), "the writer after the last reader").await?;
        check!(written.token() > highest, "token {} after {highest}", written.token());
        written.release().await?;
    }
    Ok(())
}

async fn a_killed_writer_lets_readers_in(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("written");
    let read = Want::new(Kind::Read, &name).ttl(space.short_ttl());
    let write = Want::new(Kind::Write, &name).ttl(space.short_ttl());
    let mut victim = space.worker().await?;
    let token = victim.get(&write).await?;
    let waits = [begin(&one, &read), begin(&two, &read), begin(&one, &read)];
    for wait in &waits {
        still_waits(wait, "while a writer held").await?;
    }
    is_refused(&one, &read).await?;
    victim.kill()?;
    let mut readers = Vec::new();
    for wait in waits {
        let reader = gets(wait, space.crash_limit(), "a reader after the writer's death").await?;
        check!(reader.token() > token, "token {} after {token}", reader.token());
        readers.push(reader);
    }
    is_refused(&two, &write).await?;
    for reader in readers {
        reader.release().await?;
    }
    Ok(())
}

async fn a_killed_waiting_writer_lets_readers_in(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("queue");
    let read = Want::new(Kind::Read, &name).ttl(space.short_ttl());
    let write = Want::new(Kind::Write, &name).ttl(space.short_ttl());
    let mine = has(&one, &read).await?;
    let mut victim = space.worker().await?;
    victim.order(&Order::Take { want: write, wait: true })?;
    pause_for(Duration::from_millis(50)).await;
    let behind = begin(&two, &read);
    pause_for(Duration::from_millis(20)).await;
    victim.kill()?;
    let beside = gets(behind, space.crash_limit(), "a reader behind a writer that was killed").await?;
    check!(mine.is_held(), "the death of a waiting writer ended a reader's hold");
    beside.release().await?;
    mine.release().await?;
    becomes_free(&two, &name, space.crash_limit()).await
}

async fn a_killed_holder_returns_its_permits(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("permits");
    let permits = |count| Want::new(Kind::Permits { count, limit: 5 }, &name).ttl(space.short_ttl());
    for round in 0..2 {
        let mut victim = space.worker().await?;
        let theirs = victim.get(&permits(2)).await?;
        let mine = has(&one, &permits(2)).await?;
        is_refused(&two, &permits(2)).await?;
        let waiting = (round == 1).then(|| begin(&two, &permits(3)));
        victim.kill()?;
        let three = match waiting {
            Some(wait) => gets(wait, space.crash_limit(), "three permits after a kill").await?,
            None => {
                let limit = space.crash_limit();
                within(limit + PROMPT, "three permits after a kill", permits(3).acquire_timeout(&two, limit))
                    .await??
            }
        };
        check!(three.token() > theirs, "token {} after {theirs}", three.token());
        // Those two came back, and no more.
        is_refused(&two, &permits(1)).await?;
        is_refused(&one, &permits(1)).await?;
        check!(mine.is_held(), "somebody else's death ended the hold");
        mine.release().await?;
        three.release().await?;
        has(&one, &permits(5)).await?.release().await?;
    }
    Ok(())
}

async fn a_killed_waiter_for_permits_holds_up_nobody(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("permits");
    let permits = |count| Want::new(Kind::Permits { count, limit: 3 }, &name).ttl(space.short_ttl());
    let mine = has(&one, &permits(1)).await?;
    let mut victim = space.worker().await?;
    victim.order(&Order::Take { want: permits(3), wait: true })?;
    pause_for(Duration::from_millis(50)).await;
    let waits = [begin(&two, &permits(1)), begin(&two, &permits(1))];
    pause_for(Duration::from_millis(20)).await;
    victim.kill()?;
    let mut held = vec![mine];
    for wait in waits {
        held.push(gets(wait, space.crash_limit(), "a permit behind one who was killed").await?);
    }
    is_refused(&one, &permits(1)).await?;
    check!(held.iter().all(Held::is_held), "the death of a waiter ended somebody's hold");
    for permit in held {
        permit.release().await?;
    }
    becomes_free_for(&two, &permits(3), space.crash_limit()).await
}

async fn a_killed_holder_of_several_frees_all(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let names = ["a", "b", "c"].map(|tag| space.name(tag));
    let [a, b, c] = &names;
    let all = Want::new(Kind::All { also: vec![a.clone(), b.clone()] }, c).ttl(space.short_ttl());
    let mut victim = space.worker().await?;
    victim.get(&all).await?;
    for name in &names {
        is_busy(&locks, name).await?;
    }
    victim.kill()?;
    for name in &names {
        becomes_free(&locks, name, space.crash_limit()).await?;
    }
    // One that has the first two and waits for the last.
    let guard = within(PROMPT, "a free lock", locks.lock(c).acquire()).await??;
    let mut victim = space.worker().await?;
    victim.order(&Order::Take { want: all.clone(), wait: true })?;
    let taken = async {
        while let Some(guard) = locks.lock(b).try_acquire().await? {
            guard.release().await?;
            pause_for(Duration::from_millis(1)).await;
        }
        Verdict::Ok(())
    };
    within(PROMPT, "a wait for several locks that has some", taken).await??;
    victim.kill()?;
    for name in [a, b] {
        becomes_free(&locks, name, space.crash_limit()).await?;
    }
    check!(guard.is_held(), "somebody else's death ended the hold");
    guard.release().await?;
    becomes_free_for(&locks, &all, space.crash_limit()).await
}

async fn a_killed_candidate_holds_up_nobody(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("led");
    let candidate =
        |value: &str| Want::new(Kind::Leader { value: value.into() }, &name).ttl(space.short_ttl());
    let mine = has(&one, &candidate("mine")).await?;
    let mut victim = space.worker().await?;
    victim.order(&Order::Take { want: candidate("dead"), wait: true })?;
    pause_for(Duration::from_millis(50)).await;
    let heir = begin(&two, &candidate("heir"));
    still_waits(&heir, "while somebody led").await?;
    victim.kill()?;
    mine.release().await?;
    // A store that does not know of the death yet may let it lead, until its time is up.
    let heir = gets(heir, space.crash_limit() * 2, "the lead behind a candidate that was killed").await?;
    let leader = one.election(&name).leader().await?;
    check!(leader.is_some_and(|leader| &*leader.value == "heir"), "the heir leads and is not seen to");
    heir.release().await?;
    Ok(())
}

/// So many kills hit many moments.
const MANY: usize = 120;

async fn killed_at_random(space: &Space, mix: Mix) -> Verdict {
    let kills = kills(space, MANY, 8);
    let victims = Victims { mix, workers: 4, kills, hurried: kills == MANY };
    let (name, history) = victims.kill_at_random(space).await?;
    if let Mix::Permits { limit } = mix {
        let locks = space.connect().await?;
        becomes_free_for(&locks, &Want::new(Kind::Permits { count: limit, limit }, &name), PROMPT).await?;
    }
    check_history_file(history.path(), 1, Strictness::Crashes)
}
