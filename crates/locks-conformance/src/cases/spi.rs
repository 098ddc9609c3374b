//! The contract of the SPI, step by step, without the engine.

use std::time::Duration;

use locks_api::spi::{Attempt, Backend as _, Claim, Expiry, Grant, Released, Renewed};
use locks_api::{Boottime, LockName};

use super::{Case, Need, need};
use crate::direct::Direct;
use crate::space::{PROMPT, Space};
use crate::verdict::{Failure, Verdict, check, pause_for, within};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "spi::a_release_hits_only_its_own_claim",
        "releasing a grant under another claim's id, from another connection or the same, finds nothing",
        |space| Box::pin(a_release_hits_only_its_own_claim(space)),
    ),
    Case::new(
        "spi::a_late_release_hits_nobody_else",
        "releasing a grant again, also after somebody else got the lock, finds nothing",
        |space| Box::pin(a_late_release_hits_nobody_else(space)),
    ),
    Case::new(
        "spi::a_cancel_undoes_a_grant",
        "cancelling a claim that was granted frees the lock, as when its answer was lost",
        |space| Box::pin(a_cancel_undoes_a_grant(space)),
    ),
    Case::new(
        "spi::a_cancel_undoes_a_wait",
        "a claim that was cancelled while it waited is never granted",
        |space| Box::pin(a_cancel_undoes_a_wait(space)),
    ),
    Case::new(
        "spi::a_cancel_hits_only_its_own_claim",
        "cancelling an unknown claim is no error and does nothing to anybody",
        |space| Box::pin(a_cancel_hits_only_its_own_claim(space)),
    ),
    Case::new(
        "spi::a_refused_try_leaves_nothing",
        "a claim that may not wait and was refused is not granted when the lock becomes free",
        |space| Box::pin(a_refused_try_leaves_nothing(space)),
    ),
    Case::new(
        "spi::answers_come_in_order",
        "steps over several claims and grants give one answer for each, in order",
        |space| Box::pin(answers_come_in_order(space)),
    ),
    Case::new(
        "spi::an_expired_grant_never_comes_back",
        "a grant whose ttl has passed is Lost to a renewal, even if nobody took the lock since",
        |space| Box::pin(an_expired_grant_never_comes_back(space)),
    )
    .needs(&[need(Need::Expiry, "spi::grants_without_expiry_say_so")]),
    Case::new(
        "spi::a_grant_lasts_its_ttl",
        "a grant keeps others out for its ttl, from its last renewal and whatever is asked meanwhile, and not for much longer",
        |space| Box::pin(a_grant_lasts_its_ttl(space)),
    )
    .needs(&[need(Need::Expiry, "spi::grants_without_expiry_say_so")]),
    Case::new(
        "spi::grants_without_expiry_say_so",
        "a store whose grants don't expire grants for ever and answers a renewal with that",
        |space| Box::pin(grants_without_expiry_say_so(space)),
    )
    .needs(&[need(Need::NoExpiry, "spi::an_expired_grant_never_comes_back")]),
];

/// Two connections and a name.
async fn start(space: &Space, tag: &str) -> Verdict<(Direct, Direct, LockName)> {
    let name = LockName::new(space.name(tag))?;
    Ok((Direct::new(space.backend().await?), Direct::new(space.backend().await?), name))
}

/// Fails unless `grant` still is what its claim has, and keeps `other` out.
async fn still_holds(
    holder: &Direct,
    claim: &Claim,
    grant: &Grant,
    other: &Direct,
    space: &Space,
) -> Verdict {
    let rival = other.claim(&claim.name, space);
    let answer = other.acquire(&rival).await?;
    check!(matches!(answer, Attempt::Busy(_)), "{answer:?} to another claim while the lock is held");
    let again = holder.granted(claim).await?;
    check!(again.tokens == grant.tokens, "the holder's claim now has {:?}", again.tokens);
    Ok(())
}

async fn a_release_hits_only_its_own_claim(space: Space) -> Verdict {
    let (one, two, name) = start(&space, "held").await?;
    let claim = one.claim(&name, &space);
    let grant = one.granted(&claim).await?;
    for thief in [&one, &two] {
        let forged = Grant::new(&thief.claim(&name, &space), grant.tokens, grant.expiry);
        let answer = thief.release(&forged).await?;
        check!(answer == Released::NotHeld, "releasing what another claim holds gave {answer:?}");
        still_holds(&one, &claim, &grant, &two, &space).await?;
    }
    check!(one.release(&grant).await? == Released::Done, "the holder could not release");
    one.close().await?;
    two.close().await
}

async fn a_late_release_hits_nobody_else(space: Space) -> Verdict {
    let (one, two, name) = start(&space, "released").await?;
    let first = one.granted(&one.claim(&name, &space)).await?;
    check!(one.release(&first).await? == Released::Done, "the holder could not release");
    check!(one.release(&first).await? == Released::NotHeld, "the same grant was released twice");
    let claim = two.claim(&name, &space);
    let grant = two.granted(&claim).await?;
    check!(one.release(&first).await? == Released::NotHeld, "a late release found something");
    still_holds(&two, &claim, &grant, &one, &space).await?;
    check!(two.release(&grant).await? == Released::Done, "the holder could not release");
    one.close().await?;
    two.close().await
}

async fn a_cancel_undoes_a_grant(space: Space) -> Verdict {
    let (one, two, name) = start(&space, "cancelled").await?;
    let claim = one.claim(&name, &space);
    let grant = one.granted(&claim).await?;
    one.cancel(&claim).await?;
    one.cancel(&claim).await?;
    let next = two.claim(&name, &space);
    let second = two.granted(&next).await?;
    check!(second.tokens.first() > grant.tokens.last(), "the tokens went back after a cancel");
    one.cancel(&claim).await?;
    still_holds(&two, &next, &second, &one, &space).await?;
    two.release(&second).await?;
    one.close().await?;
    two.close().await
}

async fn a_cancel_undoes_a_wait(space: Space) -> Verdict {
    let (one, two, name) = start(&space, "waited").await?;
    let grant = one.granted(&one.claim(&name, &space)).await?;
    let waiting = two.claim(&name, &space).waiting();
    let answer = two.acquire(&waiting).await?;
    check!(!matches!(answer, Attempt::Granted(_)), "a held lock was granted");
    two.cancel(&waiting).await?;
    one.release(&grant).await?;
    let next = one.granted_soon(&one.claim(&name, &space)).await?;
    one.release(&next).await?;
    one.close().await?;
    two.close().await
}

async fn a_cancel_hits_only_its_own_claim(space: Space) -> Verdict {
    let (one, two, name) = start(&space, "held").await?;
    let claim = one.claim(&name, &space);
    let grant = one.granted(&claim).await?;
    for stranger in [&one, &two] {
        stranger.cancel(&stranger.claim(&name, &space)).await?;
        stranger.cancel(&stranger.claim(&name, &space).waiting()).await?;
    }
    still_holds(&one, &claim, &grant, &two, &space).await?;
    one.release(&grant).await?;
    one.close().await?;
    two.close().await
}

async fn a_refused_try_leaves_nothing(space: Space) -> Verdict {
    let (one, two, name) = start(&space, "tried").await?;
    let grant = one.granted(&one.claim(&name, &space)).await?;
    for _ in 0..5 {
        let answer = two.acquire(&two.claim(&name, &space)).await?;
        check!(matches!(answer, Attempt::Busy(_)), "{answer:?} to a claim that may not wait");
    }
    one.release(&grant).await?;
    let next = one.granted(&one.claim(&name, &space)).await?;
    one.release(&next).await?;
    one.close().await?;
    two.close().await
}

async fn answers_come_in_order(space: Space) -> Verdict {
    let (one, two, held) = start(&space, "held").await?;
    let grant = one.granted(&one.claim(&held, &space)).await?;
    let free: Vec<LockName> =
        ["free-a", "free-b"].iter().map(|tag| LockName::new(space.name(tag))).collect::<Result<_, _>>()?;
    let claims: Vec<Claim> = [&free[0], &held, &free[1]].iter().map(|name| two.claim(name, &space)).collect();
    let answers = within(PROMPT, "the step `acquire`", two.backend().acquire(&claims)).await??;
    let mut granted = Vec::new();
    check!(answers.len() == 3, "{} answers to three claims", answers.len());
    for (claim, answer) in claims.iter().zip(answers) {
        match answer? {
            Attempt::Granted(grant) if grant.claim == claim.id && claim.name != held => granted.push(grant),
            Attempt::Busy(_) if claim.name == held => {}
            other => return Err(Failure::new(format!("{other:?} for {claim:?}"))),
        }
    }
    check!(granted.len() == 2, "{} of two free locks were granted", granted.len());

    let stale = Grant::new(&two.claim(&held, &space), grant.tokens, grant.expiry);
    let released = [granted[0].clone(), stale, granted[1].clone()];
    let answers = within(PROMPT, "the step `release`", two.backend().release(&released)).await??;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>()?;
    check!(
        answers == [Released::Done, Released::NotHeld, Released::Done],
        "releases were answered {answers:?}"
    );

    let cancelled = within(PROMPT, "the step `cancel`", two.backend().cancel(&claims)).await??;
    check!(cancelled.len() == 3, "{} answers to three cancels", cancelled.len());
    for answer in cancelled {
        answer?;
    }
    one.release(&grant).await?;
    one.close().await?;
    two.close().await
}

async fn an_expired_grant_never_comes_back(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (one, two, name) = start(&space, "expired").await?;
    let claim = one.claim(&name, &space);
    let grant = one.granted(&claim).await?;
    check!(matches!(one.renew(&grant).await?, Renewed::Extended(_)), "a live grant could not be renewed");
    // Nobody looks at the lock meanwhile.
    pause_for(ttl + ttl / 4).await;
    let answer = one.renew(&grant).await?;
    check!(matches!(answer, Renewed::Lost(_)), "renewing an expired grant gave {answer:?}");
    // The same claim may be sent again by an engine that never heard of its first grant.
    let again = one.granted(&claim).await?;
    check!(again.tokens.first() > grant.tokens.last(), "the tokens went back with the same claim");
    let answer = one.renew(&grant).await?;
    check!(
        matches!(answer, Renewed::Lost(_)),
        "renewing a claim's first grant, after its second, gave {answer:?}"
    );
    check!(one.release(&grant).await? == Released::NotHeld, "a claim's first grant released its second");
    check!(one.release(&again).await? == Released::Done, "a claim's second grant could not be released");
    let next = two.granted(&two.claim(&name, &space)).await?;
    check!(next.tokens.first() > grant.tokens.last(), "the tokens went back after an expiry");
    let answer = one.renew(&grant).await?;
    check!(matches!(answer, Renewed::Lost(_)), "renewing a grant that another replaced gave {answer:?}");
    check!(one.release(&grant).await? == Released::NotHeld, "an expired grant could be released");
    check!(matches!(two.renew(&next).await?, Renewed::Extended(_)), "the old holder ended the new grant");
    two.release(&next).await?;
    one.close().await?;
    two.close().await
}

async fn a_grant_lasts_its_ttl(space: Space) -> Verdict {
    let ttl = space.ttl()?;
    let (one, two, name) = start(&space, "expiring").await?;
    for renew in [false, true] {
        let asked = Boottime::now();
        let claim = one.claim(&name, &space);
        let grant = one.granted(&claim).await?;
        check!(grant.expiry == Expiry::In(ttl), "a new grant with a ttl of {ttl:?} has {:?}", grant.expiry);
        let mut since = asked;
        if renew {
            pause_for(ttl / 2).await;
            // Being asked again lengthens nothing, and must not be told as if it did.
            let again = one.granted(&claim).await?;
            check!(
                matches!(again.expiry, Expiry::In(left) if left <= ttl / 2),
                "a claim that was asked again after half of its ttl of {ttl:?} has {:?}",
                again.expiry
            );
            since = Boottime::now();
            let answer = one.renew(&again).await?;
            check!(answer == Renewed::Extended(Expiry::In(ttl)), "a renewal gave {answer:?}");
        }
        let next = loop {
            match two.acquire(&two.claim(&name, &space)).await? {
                Attempt::Granted(next) => break next,
                Attempt::Busy(_) => pause_for(Duration::from_millis(20)).await,
                other => return Err(Failure::new(format!("{other:?} to a claim that may not wait"))),
            }
        };
        let lasted = Boottime::now().since(since);
        check!(lasted >= ttl, "a grant with a ttl of {ttl:?} lasted {lasted:?}");
        check!(lasted < ttl * 2 + Duration::from_secs(5), "a grant with a ttl of {ttl:?} lasted {lasted:?}");
        two.release(&next).await?;
    }
    one.close().await?;
    two.close().await
}

async fn grants_without_expiry_say_so(space: Space) -> Verdict {
    let (one, two, name) = start(&space, "endless").await?;
    let claim = one.claim(&name, &space);
    let grant = one.granted(&claim).await?;
    check!(grant.expiry == Expiry::Never, "a grant has {:?}", grant.expiry);
    let answer = one.renew(&grant).await?;
    check!(answer == Renewed::Extended(Expiry::Never), "a renewal gave {answer:?}");
    still_holds(&one, &claim, &grant, &two, &space).await?;
    one.release(&grant).await?;
    one.close().await?;
    two.close().await
}
