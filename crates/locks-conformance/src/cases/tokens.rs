//! Fencing tokens grow with every grant.

use locks_api::spi::Attempt;
use locks_api::{FenceGate, LockName};
use tokio::task::JoinSet;

use super::{Case, Need, need};
use crate::direct::Direct;
use crate::space::{PROMPT, Space};
use crate::verdict::{Failure, Verdict, check, within};
use crate::worker::{Order, Reply};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "tokens::each_grant_has_a_higher_one",
        "each grant of a lock has a higher token than the one before, whichever instance it goes to",
        |space| Box::pin(each_grant_has_a_higher_one(space)),
    ),
    Case::new(
        "tokens::hand_ons_have_their_own",
        "guards that get the lock from each other inside the process have tokens that grow, up to the store's next grant",
        |space| Box::pin(hand_ons_have_their_own(space)),
    ),
    Case::new(
        "tokens::a_repeated_claim_keeps_its_own",
        "asking again for a claim that holds returns the grant with the tokens it was given, whatever was asked meanwhile",
        |space| Box::pin(a_repeated_claim_keeps_its_own(space)),
    ),
    Case::new(
        "tokens::blocks_of_grants_do_not_meet",
        "the blocks of tokens that the store hands out follow each other without touching",
        |space| Box::pin(blocks_of_grants_do_not_meet(space)),
    ),
    Case::new(
        "tokens::outlive_every_connection",
        "tokens go on growing after all connections to the store have ended",
        |space| Box::pin(outlive_every_connection(space)),
    ),
    Case::new(
        "tokens::outlive_every_process",
        "tokens go on growing over processes that come, take the lock and die",
        |space| Box::pin(outlive_every_process(space)),
    )
    .needs(&[need(Need::Processes, "process::one_process_offers_no_others")]),
];

async fn each_grant_has_a_higher_one(space: Space) -> Verdict {
    let instances = [space.connect().await?, space.connect().await?];
    let name = space.name("counted");
    let gate = FenceGate::new(0_u32);
    let mut highest = 0;
    for round in 0..100 {
        let guard =
            within(PROMPT, "taking a free lock", instances[round % 2].lock(&name).acquire()).await??;
        let token = guard.fencing_token();
        check!(token.get() > highest, "token {token} after token {highest}");
        highest = token.get();
        gate.apply(token, |writes| *writes += 1)?;
        guard.release().await?;
    }
    check!(gate.highest().map(|token| token.get()) == Some(highest), "the gate saw {:?}", gate.highest());
    Ok(())
}

async fn hand_ons_have_their_own(space: Space) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("handed-on");
    let mut tasks = JoinSet::new();
    let guard = locks.lock(&name).acquire().await?;
    for _ in 0..200 {
        let lock = locks.lock(&name);
        tasks.spawn(async move {
            let guard = lock.acquire().await?;
            let token = guard.fencing_token();
            guard.release().await?;
            Ok::<_, locks_api::Error>(token)
        });
    }
    let mut tokens = vec![guard.fencing_token()];
    guard.release().await?;
    while let Some(token) = within(PROMPT, "a turn", tasks.join_next()).await? {
        tokens.push(token??);
    }
    tokens.sort_unstable();
    let repeated = tokens.windows(2).find(|pair| pair[0] == pair[1]);
    check!(repeated.is_none(), "two guards had the token {:?}", repeated.map(|pair| pair[0]));
    let last = within(PROMPT, "taking a free lock", other.lock(&name).acquire()).await??.fencing_token();
    check!(tokens.iter().all(|token| *token < last), "{last} came after {:?}", tokens.last());
    Ok(())
}

async fn a_repeated_claim_keeps_its_own(space: Space) -> Verdict {
    let (one, two) = (Direct::new(space.backend().await?), Direct::new(space.backend().await?));
    let name = LockName::new(space.name("repeated"))?;
    for _ in 0..3 {
        let claim = one.claim(&name, &space);
        let grant = one.granted(&claim).await?;
        for _ in 0..3 {
            let rival = two.claim(&name, &space);
            check!(matches!(two.acquire(&rival).await?, Attempt::Busy(_)), "granted twice");
            two.cancel(&rival).await?;
            let again = one.granted(&claim).await?;
            check!(
                again.tokens == grant.tokens,
                "the same claim was given {:?} and, asked again, {:?}",
                grant.tokens,
                again.tokens
            );
        }
        one.release(&grant).await?;
    }
    one.close().await?;
    two.close().await
}

async fn blocks_of_grants_do_not_meet(space: Space) -> Verdict {
    let backends = [Direct::new(space.backend().await?), Direct::new(space.backend().await?)];
    let name = LockName::new(space.name("blocks"))?;
    let mut last = 0;
    for round in 0..50 {
        let backend = &backends[round % 2];
        let grant = backend.granted(&backend.claim(&name, &space)).await?;
        let (first, end) = (grant.tokens.first().get(), grant.tokens.last().get());
        check!(first > last, "a block from {first} to {end} after one up to {last}");
        last = end;
        backend.release(&grant).await?;
    }
    for backend in &backends {
        backend.close().await?;
    }
    Ok(())
}

async fn outlive_every_connection(space: Space) -> Verdict {
    let name = space.name("persistent");
    let mut highest = 0;
    for _ in 0..5 {
        let locks = space.connect().await?;
        let guard = within(PROMPT, "taking a free lock", locks.lock(&name).acquire()).await??;
        let token = guard.fencing_token().get();
        check!(token > highest, "token {token} after token {highest}");
        highest = token;
        guard.release().await?;
        locks.close().await?;
    }
    Ok(())
}

async fn outlive_every_process(space: Space) -> Verdict {
    let name = space.name("persistent");
    let mut highest = 0;
    for round in 0..5 {
        let mut worker = space.worker().await?;
        let order = Order::Acquire { name: name.clone(), ttl: space.short_ttl(), wait: true };
        worker.order(&order)?;
        let Reply::Granted { token } = worker.reply_within(space.crash_limit()).await? else {
            return Err(Failure::new("a free lock was not granted"));
        };
        check!(token > highest, "token {token} after token {highest}");
        highest = token;
        if round % 2 == 0 {
            worker.kill()?;
        }
    }
    Ok(())
}
