//! Several locks together.

use std::sync::atomic::Ordering;

use locks_api::spi::{Attempt, Backend as _, Claim, Joint, Offer, Released};
use locks_api::{ErrorKind, LockName, Locks};

use super::wanting::{begin, gets, is_refused, still_waits};
use super::{Case, Need, need};
use crate::direct::Direct;
use crate::kind::{Kind, Want};
use crate::space::{PROMPT, Space, becomes_free, is_busy};
use crate::verdict::{Failure, Verdict, check, within};

pub(super) mod apart;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "lock_all::all_or_nothing",
        "several locks are had together, each keeps others out, and if any is held the others stay free",
        |space| Box::pin(all_or_nothing(space)),
    ),
    Case::new(
        "lock_all::a_name_given_twice_counts_once",
        "a name that is given several times is taken once, names are taken in order, and each lock has its own token",
        |space| Box::pin(a_name_given_twice_counts_once(space)),
    ),
    Case::new(
        "lock_all::nonsense_is_refused",
        "no name at all is a Config error and a bad one among good ones an InvalidName, before any I/O",
        |space| Box::pin(nonsense_is_refused(space)),
    ),
    Case::new(
        "lock_all::one_step_takes_all_or_none",
        "the step for several locks grants all or none, is repeated without harm, and leaves nothing behind when it is refused",
        |space| Box::pin(one_step_takes_all_or_none(space)),
    )
    .needs(&[need(Need::Offer(Offer::Together), "offers::no_step_for_several")]),
    Case::new(
        "lock_all::free_locks_cost_one_step",
        "several free locks are taken in a single step of the store",
        |space| Box::pin(free_locks_cost_one_step(space)),
    )
    .needs(&[need(Need::Offer(Offer::Together), "offers::no_step_for_several")]),
];

/// The names of three locks.
fn three(space: &Space) -> [String; 3] {
    ["a", "b", "c"].map(|tag| space.name(tag))
}

/// Several locks, in this order.
fn all(names: &[&String]) -> Want {
    let also = names[1..].iter().map(|name| (*name).clone()).collect();
    Want::new(Kind::All { also }, names[0])
}

async fn all_or_nothing(space: Space) -> Verdict {
    let (one, two, three_) = (space.connect().await?, space.connect().await?, space.connect().await?);
    let names = three(&space);
    let [a, b, c] = &names;
    let guard = within(PROMPT, "taking free locks", one.lock_all(&names).acquire()).await??;
    check!(guard.is_held() && guard.guards().len() == 3, "{guard:?} instead of three held locks");
    for locks in [&one, &two] {
        for name in &names {
            is_busy(locks, name).await?;
        }
        is_refused(locks, &all(&[c, a])).await?;
    }
    guard.release().await?;
    for obstacle in &names {
        for holder in [&two, &one] {
            let held = holder.lock(obstacle).acquire().await?;
            is_refused(&one, &all(&[a, b, c])).await?;
            is_refused(&two, &all(&[c, b, a])).await?;
            for name in names.iter().filter(|name| *name != obstacle) {
                // What had been taken of them may take the store a moment to undo.
                becomes_free(&three_, name, PROMPT).await?;
            }
            check!(held.is_held(), "a try of several ended the hold of one");
            held.release().await?;
        }
    }
    drop(within(PROMPT, "taking free locks", one.lock_all(&names).acquire()).await??);
    within(PROMPT, "taking dropped locks", two.lock_all(&names).acquire()).await??.release().await?;
    Ok(())
}

async fn a_name_given_twice_counts_once(space: Space) -> Verdict {
    let (one, two) = (space.connect().await?, space.connect().await?);
    let [a, b, c] = &three(&space);
    let earlier = two.lock(a).acquire().await?;
    let token = earlier.fencing_token();
    earlier.release().await?;
    let lock = one.lock_all([c, a, c, b, a, a]);
    check!(lock.names().eq([a, b, c]), "the names are {:?}", lock.names().collect::<Vec<_>>());
    let guard = within(PROMPT, "taking free locks", lock.acquire()).await??;
    let held: Vec<&str> = guard.guards().iter().map(locks_api::LockGuard::name).collect();
    check!(held == [a, b, c], "the guards are of {held:?}");
    for name in [a, b, c] {
        check!(guard.fencing_token(name).is_some(), "{name:?} is held without a token");
        is_busy(&two, name).await?;
    }
    check!(guard.fencing_token(a) > Some(token), "{:?} after token {token}", guard.fencing_token(a));
    check!(guard.fencing_token("another").is_none(), "a lock that is not among them has a token");
    guard.release().await?;
    let single = within(PROMPT, "taking a free lock", one.lock_all([a, a]).acquire()).await??;
    check!(single.guards().len() == 1, "{} guards of one lock", single.guards().len());
    single.release().await?;
    Ok(())
}

async fn nonsense_is_refused(space: Space) -> Verdict {
    let (locks, line) = space.connect_flaky().await?;
    let good = space.name("good");
    for (names, expected) in
        [(vec![], ErrorKind::Config), (vec![good.as_str(), "a\0b"], ErrorKind::InvalidName)]
    {
        let lock = locks.lock_all(&names);
        let outcomes = [
            lock.acquire().await.map(drop),
            lock.try_acquire().await.map(drop),
            lock.acquire_timeout(PROMPT).await.map(drop),
            lock.run(async {}).await,
        ];
        for outcome in outcomes {
            let kind = outcome.map_err(|error| error.kind());
            check!(kind == Err(expected), "the names {names:?} gave {kind:?}");
        }
    }
    let steps = line.steps.load(Ordering::Relaxed);
    check!(steps == 0, "nonsense made {steps} steps");
    Ok(())
}

async fn one_step_takes_all_or_none(space: Space) -> Verdict {
    let (one, two) = (Direct::new(space.backend().await?), Direct::new(space.backend().await?));
    let names = three(&space).map(LockName::new);
    let [Ok(a), Ok(b), Ok(c)] = names else { return Err(Failure::new("bad names")) };
    let claims: Vec<Claim> = [&a, &b, &c].map(|name| one.claim(name, &space)).into();
    let together = one.backend().abilities().together;
    let together =
        together.ok_or_else(|| Failure::new("several locks in one step are offered and not there"))?;
    let take = || async {
        Ok::<_, Failure>(within(PROMPT, "the step for several", together.acquire_together(&claims)).await??)
    };
    for obstacle in [&a, &b, &c] {
        let grant = two.granted(&two.claim(obstacle, &space)).await?;
        let answer = take().await?;
        let refused = matches!(&answer, Joint::Busy { at, .. } if claims[*at].name == *obstacle);
        check!(refused, "{answer:?} although {obstacle} is held");
        for name in [&a, &b, &c].into_iter().filter(|name| *name != obstacle) {
            let free = two.granted(&two.claim(name, &space)).await?;
            two.release(&free).await?;
        }
        two.release(&grant).await?;
        // What was refused is not granted later either.
        let free = two.granted(&two.claim(obstacle, &space)).await?;
        two.release(&free).await?;
    }
    let (Joint::Granted(grants), Joint::Granted(again)) = (take().await?, take().await?) else {
        return Err(Failure::new("free locks were not granted"));
    };
    check!(grants.len() == 3, "{} grants of three locks", grants.len());
    for ((claim, grant), again) in claims.iter().zip(&grants).zip(&again) {
        check!(grant.claim == claim.id && grant.name == claim.name, "{grant:?} of {claim:?}");
        check!(grant.is_same_as(again), "repeated, {grant:?} became {again:?}");
        let rival = two.acquire(&two.claim(&claim.name, &space)).await?;
        check!(matches!(rival, Attempt::Busy(_)), "{rival:?} to another claim while the lock is held");
    }
    check!(again.len() == 3, "{} grants of three locks when asked again", again.len());
    for grant in &grants {
        check!(one.release(grant).await? == Released::Done, "{} could not be released", grant.name);
    }
    one.close().await?;
    two.close().await
}

async fn free_locks_cost_one_step(space: Space) -> Verdict {
    let (locks, line) = space.connect_flaky().await?;
    let names = three(&space);
    for _ in 0..3 {
        let before = line.steps.load(Ordering::SeqCst);
        let guard = within(PROMPT, "taking free locks", locks.lock_all(&names).acquire()).await??;
        let steps = line.steps.load(Ordering::SeqCst) - before;
        check!(steps == 1, "three free locks were taken in {steps} steps");
        guard.release().await?;
    }
    let other: Locks = space.connect().await?;
    let guard = other.lock(&names[1]).acquire().await?;
    let wait = begin(&locks, &all(&names.each_ref()));
    still_waits(&wait, "while one of the locks was held").await?;
    guard.release().await?;
    gets(wait, PROMPT, "all locks after the release of one").await?.release().await?;
    Ok(())
}
