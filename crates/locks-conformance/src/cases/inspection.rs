//! Who holds and waits, as operators see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use locks_api::spi::Offer;
use locks_api::{LockState, Locks, Mode};
use tokio::task::JoinSet;

use super::wanting::{begin, gets, has, still_waits};
use super::{Case, Need, Requirement, need};
use crate::kind::{Kind, Want};
use crate::space::{PROMPT, Space, becomes_free};
use crate::verdict::{Failure, Verdict, check, pause_for, within};

pub(super) mod breaking;

/// The need of every case that looks at locks from outside.
pub(super) const INSPECTION: Requirement = need(Need::Offer(Offer::Inspection), "offers::no_inspection");

const WAITERS: Requirement = need(Need::Offer(Offer::Waiters), "offers::no_waiters");

pub(super) const CASES: &[Case] = &[
    Case::new(
        "inspection::holders_are_told",
        "everybody sees who holds a lock, with its label, mode and token, and that a released or unknown one is free",
        |space| Box::pin(holders_are_told(space)),
    )
    .needs(&[INSPECTION]),
    Case::new(
        "inspection::each_of_several_holders_is_told",
        "readers and holders of permits are told one by one, in the order of their grants",
        |space| Box::pin(each_of_several_holders_is_told(space)),
    )
    .needs(&[INSPECTION, need(Need::Offer(Offer::Shared), "offers::no_readers")]),
    Case::new(
        "inspection::waiters_are_told",
        "those who wait in the store are told with how they want to hold the lock, first come first, until they leave",
        |space| Box::pin(waiters_are_told(space)),
    )
    .needs(&[INSPECTION, WAITERS]),
    Case::new(
        "inspection::locks_are_listed_by_prefix",
        "a list has exactly the locks in use whose names begin with the prefix, whatever characters that has, by name",
        |space| Box::pin(locks_are_listed_by_prefix(space)),
    )
    .needs(&[INSPECTION]),
    Case::new(
        "inspection::a_query_is_in_nobodys_way",
        "under a storm of queries no try of a free lock is refused, no hold is lost, and nothing is held because of them",
        |space| Box::pin(a_query_is_in_nobodys_way(space)),
    )
    .needs(&[INSPECTION]),
];

async fn look(locks: &Locks, name: &str) -> Verdict<LockState> {
    let state = within(PROMPT, "an inspection", locks.inspect(name)).await??;
    check!(state.name.as_str() == name, "asked about {name:?} and told about {:?}", state.name);
    Ok(state)
}

async fn holders_are_told(space: Space) -> Verdict {
    let one = space.connect_with(|builder| builder.label("an instance")).await?;
    let two = space.connect().await?;
    let name = space.name("held");
    for locks in [&one, &two] {
        let state = look(locks, &name).await?;
        check!(!state.is_in_use() && state.holders.is_empty(), "{state:?} of a lock that nobody ever took");
    }
    for (label, expected) in [(None, "an instance"), (Some("a label: \"äß\"\n"), "a label: \"äß\"\n")] {
        let lock = one.lock(&name);
        let lock = match label {
            Some(label) => lock.label(label),
            None => lock,
        };
        let guard = within(PROMPT, "a free lock", lock.acquire()).await??;
        for locks in [&one, &two] {
            let state = look(locks, &name).await?;
            let [held] = &state.holders[..] else {
                return Err(Failure::new(format!("{state:?} of a lock with one holder")));
            };
            check!(held.mode == Mode::Exclusive, "an exclusive lock is told to be {}", held.mode);
            let holder = held.holder.clone().unwrap_or_default();
            check!(holder.label.as_deref() == Some(expected), "{holder:?} instead of the label {expected:?}");
            check!(
                holder.pid.is_none_or(|pid| pid == std::process::id()),
                "process {:?} is told to hold",
                holder.pid
            );
            check!(
                held.claim.is_none_or(|claim| claim == guard.claim_id()),
                "{:?} is told to hold",
                held.claim
            );
            // The first token of a block; the guard's may be a later one.
            check!(held.token.is_none_or(|token| token <= guard.fencing_token()), "{held:?} of {guard:?}");
            if let (Some(left), Some(limits)) = (held.remaining, space.guarantees().ttl) {
                check!(left <= limits.max, "{left:?} left of a ttl of at most {:?}", limits.max);
            }
        }
        check!(guard.is_held(), "an inspection ended a hold");
        guard.release().await?;
        let state = look(&two, &name).await?;
        check!(!state.is_in_use(), "{state:?} of a lock that was released");
    }
    Ok(())
}

async fn each_of_several_holders_is_told(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let name = space.name("shared");
    let mut kinds = vec![vec![Kind::Read; 3]];
    if space.guarantees().offers.has(Offer::Permits) {
        kinds.push([1, 3, 2].map(|count| Kind::Permits { count, limit: 7 }).into());
    }
    for kinds in kinds {
        let mut held = Vec::new();
        for (kind, locks) in kinds.iter().zip([&one, &two, &one]) {
            held.push(has(locks, &Want::new(kind.clone(), &name)).await?);
        }
        for locks in [&one, &two] {
            let state = look(locks, &name).await?;
            let modes: Vec<Mode> = state.holders.iter().map(|holder| holder.mode).collect();
            let expected: Vec<Mode> = kinds.iter().map(Kind::mode).collect();
            check!(modes == expected, "{modes:?} are told instead of {expected:?}");
            for (told, held) in state.holders.iter().zip(&held) {
                check!(told.token.is_none_or(|token| token == held.token()), "{told:?} of {held:?}");
            }
        }
        held.remove(1).release().await?;
        let state = look(&two, &name).await?;
        check!(state.holders.len() == 2, "{state:?} after one of three has gone");
        for held in held {
            held.release().await?;
        }
        check!(!look(&one, &name).await?.is_in_use(), "a lock that was released is in use");
    }
    Ok(())
}

/// Waits until so many are told to wait.
async fn waiting(locks: &Locks, name: &str, count: usize) -> Verdict<LockState> {
    let look = async {
        loop {
            let state = look(locks, name).await?;
            if state.waiters.as_ref().is_some_and(|waiters| waiters.len() == count) {
                return Verdict::Ok(state);
            }
            pause_for(Duration::from_millis(1)).await;
        }
    };
    within(PROMPT, &format!("{count} who are told to wait"), look).await?
}

async fn waiters_are_told(space: Space) -> Verdict {
    let instances = [space.connect().await?, space.connect().await?, space.connect().await?];
    let watcher = space.connect().await?;
    let name = space.name("queue");
    let guard = watcher.lock(&name).acquire().await?;
    let state = waiting(&watcher, &name, 0).await?;
    check!(state.holders.len() == 1, "{state:?} of a lock with one holder");
    let mut waits = Vec::new();
    // One of each instance: those of one instance may be one waiter to the store.
    for (number, locks) in instances.iter().enumerate() {
        waits.push(begin(locks, &Want { label: Some(number.to_string()), ..Want::new(Kind::Lock, &name) }));
        let state = waiting(&watcher, &name, number + 1).await?;
        for (number, waiter) in state.waiters.iter().flatten().enumerate() {
            check!(waiter.mode.is_none_or(|mode| mode == Mode::Exclusive), "{waiter:?} wants it alone");
            let label = waiter.holder.as_ref().and_then(|holder| holder.label.clone());
            check!(label.is_none_or(|label| label == number.to_string()), "{waiter:?} is number {number}");
        }
    }
    let listed = within(PROMPT, "a list", watcher.list(&name)).await??;
    check!(
        listed.len() == 1 && listed[0].waiters.as_ref().is_some_and(|waiters| waiters.len() == 3),
        "{listed:?}"
    );
    waits[1].abort();
    waiting(&watcher, &name, 2).await?;
    guard.release().await?;
    for (left, wait) in [1, 0].into_iter().zip([waits.remove(0), waits.remove(1)]) {
        let held = gets(wait, PROMPT, "the lock in turn").await?;
        let state = waiting(&watcher, &name, left).await?;
        check!(state.holders.len() == 1, "{state:?} of a lock with one holder");
        held.release().await?;
    }
    check!(!waiting(&watcher, &name, 0).await?.is_in_use(), "a lock that was released is in use");
    Ok(())
}

async fn locks_are_listed_by_prefix(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let tags = [
        "a", "ab", "a/b", "a/b/c", "A", "a*", "a?", "a[b]", "a%", "a_", "a\\", "a\\*", "[a-z]", "*", "%",
        "_", "?", "^a", "a$", "a.", "ä", "a'b", "a\"b", "a\n", "{a,b}",
    ];
    let mut held = Vec::new();
    for (number, tag) in tags.iter().enumerate() {
        let locks = if number % 2 == 0 { &one } else { &two };
        held.push(locks.lock(space.name(tag)).acquire().await?);
    }
    // In use by nobody, and listed by nobody.
    one.lock(space.name("a-free")).acquire().await?.release().await?;
    let mut names: Vec<String> = held.iter().map(|guard| guard.name().to_owned()).collect();
    names.sort();
    let all = space.short_lived_name("");
    let prefixes = tags.iter().map(|tag| space.short_lived_name(tag));
    for prefix in prefixes.chain([all.clone(), format!("{all}none"), format!("{all}a/"), format!("{all}*b")])
    {
        let listed = within(PROMPT, "a list", two.list(&prefix)).await??;
        let listed: Vec<&str> = listed.iter().map(|state| state.name.as_str()).collect();
        let expected: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| name.starts_with(&prefix)).collect();
        check!(listed == expected, "beginning with {prefix:?}: {listed:?} instead of {expected:?}");
    }
    // Others may use the same store.
    let listed = within(PROMPT, "a list", one.list("")).await??;
    check!(listed.is_sorted_by(|one, two| one.name < two.name), "the list of all is out of order");
    check!(
        names.iter().all(|name| listed.iter().any(|state| state.name.as_str() == name)),
        "a lock in use is not in the list of all"
    );
    for state in listed.iter().filter(|state| state.name.as_str().starts_with(&all)) {
        check!(state.holders.len() == 1, "{state:?} of a lock with one holder");
    }
    for guard in held {
        guard.release().await?;
    }
    let listed = within(PROMPT, "a list", one.list(&all)).await??;
    check!(listed.is_empty(), "{listed:?} after all were released");
    Ok(())
}

async fn a_query_is_in_nobodys_way(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let (name, steady) = (space.name("tried"), space.name("held"));
    let kept = one.lock(&steady).acquire().await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut queries = JoinSet::new();
    for number in 0..6 {
        let locks = if number < 3 { space.connect().await? } else { two.clone() };
        let (over, names) = (Arc::clone(&over), [name.clone(), steady.clone()]);
        let prefix = space.short_lived_name("");
        queries.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                locks.inspect(&names[0]).await?;
                let state = locks.inspect(&names[1]).await?;
                if state.holders.len() != 1 {
                    return Err(Failure::new(format!("{state:?} of a lock with one holder")));
                }
                locks.list(&prefix).await?;
            }
            Verdict::Ok(())
        });
    }
    let mut refused = 0;
    for round in 0..200 {
        let locks = if round % 2 == 0 { &one } else { &two };
        match within(PROMPT, "a try under a storm of queries", locks.lock(&name).try_acquire()).await?? {
            Some(guard) => within(PROMPT, "a release", guard.release()).await??,
            None => refused += 1,
        }
    }
    over.store(true, Ordering::SeqCst);
    while let Some(outcome) = within(PROMPT, "the end of a query", queries.join_next()).await? {
        outcome??;
    }
    check!(refused == 0, "{refused} of 200 tries of a free lock were refused because of queries");
    check!(kept.is_held(), "a hold was lost because of queries");
    let wait = begin(&two, &Want::new(Kind::Lock, &steady));
    still_waits(&wait, "while the lock was held").await?;
    kept.release().await?;
    gets(wait, PROMPT, "the lock after the storm").await?.release().await?;
    becomes_free(&two, &name, PROMPT).await
}
