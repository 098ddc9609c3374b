//! Who leads.

use std::sync::atomic::Ordering;
use std::time::Duration;

use locks_api::spi::{Backend as _, Grant, Offer, Released, Values};
use locks_api::{Boottime, Election, ErrorKind, Locks, LossReason};

use super::process::PROCESSES;
use super::wanting::{becomes_refused, begin, gets, has, is_refused, still_waits};
use super::{Case, Need, Requirement, need};
use crate::direct::Direct;
use crate::kind::{Held, Kind, Want};
use crate::space::{PROMPT, Space, is_busy};
use crate::verdict::{Failure, Verdict, check, within};
use crate::worker::Order;

pub(super) mod observers;

/// The need of every case with a leader in it.
pub(super) const VALUES: Requirement = need(Need::Offer(Offer::Values), "offers::no_elections");

pub(super) const CASES: &[Case] = &[
    Case::new(
        "election::everybody_sees_who_leads",
        "one of those who campaign leads, and everybody sees its value, its token and its process until it resigns",
        |space| Box::pin(everybody_sees_who_leads(space)),
    )
    .needs(&[VALUES]),
    Case::new(
        "election::the_next_candidate_takes_over",
        "who waits to lead does so after a resignation, with its own value and a higher token",
        |space| Box::pin(the_next_candidate_takes_over(space)),
    )
    .needs(&[VALUES]),
    Case::new(
        "election::a_value_is_replaced",
        "what a leader publishes replaces its value under the same token, and only its own",
        |space| Box::pin(a_value_is_replaced(space)),
    )
    .needs(&[VALUES]),
    Case::new(
        "election::any_text_is_a_value",
        "empty, multi-line and non-ASCII values up to the largest size come back as they are, and larger ones are refused before any I/O",
        |space| Box::pin(any_text_is_a_value(space)),
    )
    .needs(&[VALUES]),
    Case::new(
        "election::a_lock_without_a_value_leads_nothing",
        "whoever holds the lock of that name without campaigning keeps candidates out and is no leader",
        |space| Box::pin(a_lock_without_a_value_leads_nothing(space)),
    )
    .needs(&[VALUES]),
    Case::new(
        "election::only_the_leader_publishes",
        "the step `publish` changes nothing under another claim or after the release",
        |space| Box::pin(only_the_leader_publishes(space)),
    )
    .needs(&[VALUES]),
    Case::new(
        "election::a_stale_leader_knows",
        "a leader that can't reach the store knows at its deadline that it leads no more, before the next one does, and publishes nothing",
        |space| Box::pin(a_stale_leader_knows(space)),
    )
    .needs(&[VALUES, need(Need::Expiry, "lease::without_expiry_nothing_ends")]),
    Case::new(
        "election::a_killed_leader_is_followed",
        "when the leader is killed a candidate of another process leads within the promised time, and everybody sees it",
        |space| Box::pin(a_killed_leader_is_followed(space)),
    )
    .needs(&[VALUES, PROCESSES])
    .deadline(120),
];

/// A candidate with this value.
fn candidate(name: &str, value: &str) -> Want {
    Want::new(Kind::Leader { value: value.to_owned() }, name)
}

/// Fails unless this is who leads, as seen over each of these connections.
async fn leads(connections: &[&Locks], name: &str, expected: Option<(u64, &str)>) -> Verdict {
    for locks in connections {
        let seen = within(PROMPT, "asking who leads", locks.election(name).leader()).await??;
        let seen = seen.as_ref().map(|leader| (leader.token.get(), &*leader.value));
        check!(seen == expected, "{seen:?} is seen to lead instead of {expected:?}");
    }
    Ok(())
}

async fn everybody_sees_who_leads(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("led");
    for (locks, other) in [(&one, &two), (&two, &one)] {
        leads(&[&one, &two], &name, None).await?;
        let leadership = within(PROMPT, "a campaign", locks.election(&name).campaign("here")).await??;
        let token = leadership.fencing_token().get();
        leads(&[&one, &two], &name, Some((token, "here"))).await?;
        let seen = other.election(&name).leader().await?;
        if let Some(pid) = seen.and_then(|leader| leader.holder).and_then(|holder| holder.pid) {
            check!(pid == std::process::id(), "process {pid} is said to lead");
        }
        is_refused(other, &candidate(&name, "there")).await?;
        is_refused(locks, &candidate(&name, "there")).await?;
        is_busy(other, &name).await?;
        leads(&[&one, &two], &name, Some((token, "here"))).await?;
        leadership.resign().await?;
        leads(&[&one, &two], &name, None).await?;
    }
    Ok(())
}

async fn the_next_candidate_takes_over(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("led");
    let mut leader = has(&one, &candidate(&name, "0")).await?;
    for round in 1..10 {
        let locks = if round % 3 == 0 { &one } else { &two };
        let value = round.to_string();
        let next = begin(locks, &candidate(&name, &value));
        still_waits(&next, "while somebody led").await?;
        let token = leader.token().get();
        leads(&[&one, &two], &name, Some((token, &(round - 1).to_string()))).await?;
        if round % 2 == 0 {
            leader.release().await?
        } else {
            drop(leader)
        }
        leader = gets(next, PROMPT, "the lead after a resignation").await?;
        check!(leader.token().get() > token, "token {} after token {token}", leader.token());
        leads(&[&one, &two], &name, Some((leader.token().get(), &value))).await?;
    }
    leader.release().await?;
    Ok(())
}

async fn a_value_is_replaced(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("led");
    let leadership = one.election(&name).campaign("0").await?;
    let token = leadership.fencing_token().get();
    for value in ["1", "", "2", "2", "a longer one"] {
        within(PROMPT, "publishing", leadership.publish(value)).await??;
        leads(&[&one, &two], &name, Some((token, value))).await?;
        check!(leadership.is_held(), "publishing ended the lead");
    }
    let again = begin(&two, &candidate(&name, "mine"));
    still_waits(&again, "while somebody led").await?;
    leads(&[&two], &name, Some((token, "a longer one"))).await?;
    leadership.resign().await?;
    let next = gets(again, PROMPT, "the lead after a resignation").await?;
    leads(&[&one, &two], &name, Some((next.token().get(), "mine"))).await?;
    next.release().await?;
    Ok(())
}

async fn any_text_is_a_value(space: Space) -> Verdict {
    let (locks, line) = space.connect_flaky().await?;
    let name = space.name("led");
    let election = locks.election(&name);
    let too_long = "x".repeat(Election::MAX_VALUE_BYTES + 1);
    let kind = election.campaign(&too_long).await.map(drop).map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Config), "too long a value gave {kind:?}");
    let kind = election.try_campaign(&too_long).await.map(drop).map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Config), "too long a value gave {kind:?}");
    let steps = line.steps.load(Ordering::Relaxed);
    check!(steps == 0, "too long a value made {steps} steps");
    let other = space.connect().await?;
    for value in
        ["", "a\nb\r\n", "\0", "äß→🔒", "'\"\\$1%s{}", " ", &"é".repeat(Election::MAX_VALUE_BYTES / 2)]
    {
        let leadership = within(PROMPT, "a campaign", election.campaign(value)).await??;
        let token = leadership.fencing_token().get();
        leads(&[&other], &name, Some((token, value))).await?;
        within(PROMPT, "publishing", leadership.publish("between")).await??;
        within(PROMPT, "publishing", leadership.publish(value)).await??;
        leads(&[&locks, &other], &name, Some((token, value))).await?;
        let kind = leadership.publish(&too_long).await.map_err(|error| error.kind());
        check!(kind == Err(ErrorKind::Config), "too long a value gave {kind:?}");
        leadership.resign().await?;
    }
    Ok(())
}

async fn a_lock_without_a_value_leads_nothing(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("held");
    let guard = one.lock(&name).acquire().await?;
    leads(&[&one, &two], &name, None).await?;
    is_refused(&two, &candidate(&name, "there")).await?;
    let next = begin(&two, &candidate(&name, "there"));
    still_waits(&next, "beside an exclusive lock").await?;
    leads(&[&one, &two], &name, None).await?;
    guard.release().await?;
    let leader = gets(next, PROMPT, "the lead after an exclusive lock").await?;
    leads(&[&one, &two], &name, Some((leader.token().get(), "there"))).await?;
    leader.release().await?;
    Ok(())
}

/// The values of this connection.
fn values(connection: &Direct) -> Verdict<&dyn Values> {
    let values = connection.backend().abilities().values;
    values.ok_or_else(|| Failure::new("elections are offered and there are no values"))
}

async fn only_the_leader_publishes(space: Space) -> Verdict {
    let name = locks_api::LockName::new(space.name("steps"))?;
    let (one, two) = (Direct::new(space.backend().await?), Direct::new(space.backend().await?));
    let claim = one.claim(&name, &space).with_value("first");
    let grant = one.granted(&claim).await?;
    let seen = |leader: Option<locks_api::Leader>| leader.map(|leader| (leader.token, leader.value));
    let led = |value: &str| Some((grant.tokens.first(), value.into()));
    let again = one.granted(&claim).await?;
    check!(again.is_same_as(&grant), "a candidate that asked again has {again:?}");
    for thief in [&one, &two] {
        let forged = Grant::new(&thief.claim(&name, &space), grant.tokens, grant.expiry);
        let answer =
            within(PROMPT, "the step `publish`", values(thief)?.publish(&forged, "stolen")).await??;
        check!(answer == Released::NotHeld, "publishing under another claim gave {answer:?}");
    }
    let leader = seen(values(&two)?.leader(&name).await?);
    check!(leader == led("first"), "{leader:?} is seen to lead");
    let answer = within(PROMPT, "the step `publish`", values(&one)?.publish(&grant, "second")).await??;
    check!(answer == Released::Done, "the leader could not publish");
    let leader = seen(values(&two)?.leader(&name).await?);
    check!(leader == led("second"), "{leader:?} is seen to lead");
    one.release(&grant).await?;
    let next = two.claim(&name, &space).with_value("next");
    let second = two.granted(&next).await?;
    let answer = within(PROMPT, "the step `publish`", values(&one)?.publish(&grant, "late")).await??;
    check!(answer == Released::NotHeld, "publishing after the release gave {answer:?}");
    let leader = seen(values(&one)?.leader(&name).await?);
    check!(leader == Some((second.tokens.first(), "next".into())), "{leader:?} is seen to lead");
    two.release(&second).await?;
    let leader = values(&one)?.leader(&name).await?;
    check!(leader.is_none(), "{leader:?} is seen to lead");
    // Of a lock that nobody watches, nobody has to be forgotten.
    values(&one)?.unwatch(&name).await?;
    one.close().await?;
    two.close().await
}

async fn a_stale_leader_knows(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (locks, line) = space.connect_flaky().await?;
    let other = space.connect().await?;
    let name = space.name("led");
    let leadership = locks.election(&name).ttl(ttl).campaign("old").await?;
    line.cut.store(true, Ordering::SeqCst);
    let next = tokio::spawn({
        let election = other.election(&name).ttl(ttl);
        async move { election.campaign("new").await.map(|leadership| (Boottime::now(), leadership)) }
    });
    let reason = within(ttl + PROMPT, "hearing of the loss", leadership.lost()).await?;
    let lost_at = Boottime::now();
    check!(reason == LossReason::Expired && !leadership.is_held(), "lost because {reason}");
    let (led_at, next) = within(ttl + PROMPT, "the next leader", next).await???;
    // Both looks at the clock come late; the old leader's by no more than a slow machine's pause.
    check!(lost_at < led_at.after(Duration::from_secs(2)), "the old leader knew long after the new one led");
    line.cut.store(false, Ordering::SeqCst);
    let kind = within(PROMPT, "publishing", leadership.publish("late")).await?.map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Lost), "a stale leader published: {kind:?}");
    leads(&[&locks, &other], &name, Some((next.fencing_token().get(), "new"))).await?;
    let kind = leadership.resign().await.map_err(|error| error.kind());
    check!(kind == Err(ErrorKind::Lost), "resigning after the loss gave {kind:?}");
    check!(next.is_held(), "the old leader's resignation ended the new lead");
    next.resign().await?;
    Ok(())
}

async fn a_killed_leader_is_followed(space: Space) -> Verdict {
    let locks = space.connect().await?;
    let name = space.name("led");
    let mut observer = locks.election(&name).observe();
    check!(
        within(PROMPT, "observing", observer.next()).await??.is_none(),
        "somebody leads before anybody ran"
    );
    let want = |value: &str| candidate(&name, value).ttl(space.short_ttl());
    let (mut leader, mut heir) = (space.worker().await?, space.worker().await?);
    let first = leader.get(&want("0")).await?;
    let mut token = first;
    for round in 1..4 {
        let seen = within(PROMPT, "observing", observer.next()).await??;
        let told = seen.as_ref().map(|leader| (leader.token, &*leader.value));
        let before = (round - 1).to_string();
        check!(told == Some((token, &*before)), "{seen:?} is seen to lead in round {round}");
        heir.order(&Order::Take { want: want(&round.to_string()), wait: true })?;
        becomes_refused(&locks, &want("rival")).await?;
        leader.kill()?;
        let next = heir.granted(space.crash_limit()).await?;
        check!(next > token, "token {next} after token {token}");
        // That nobody led in between may have been seen, too.
        let seen = loop {
            if let Some(seen) = within(PROMPT, "observing", observer.next()).await?? {
                break seen;
            }
        };
        check!(seen.token == next, "{seen:?} is seen to lead instead of token {next}");
        leads(&[&locks], &name, Some((next.get(), &round.to_string()))).await?;
        (leader, heir, token) = (heir, space.worker().await?, next);
        // Replaced, so that the next round finds something new.
        drop(observer);
        observer = locks.election(&name).observe();
    }
    leader.kill()?;
    let mine =
        within(space.crash_limit(), "the lead after the last kill", want("me").acquire(&locks)).await??;
    check!(matches!(mine, Held::Leader(_)) && mine.token() > token, "token {} after {token}", mine.token());
    mine.release().await?;
    Ok(())
}
