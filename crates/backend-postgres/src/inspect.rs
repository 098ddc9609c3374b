//! Who holds and waits, and taking locks from their holders.

use std::collections::BTreeMap;

use locks_api::spi::{ClaimId, HeldBy, Inspect, LockState, Result, WaitingFor, async_trait};
use locks_api::{FencingToken, LockName};
use sqlx::types::Uuid;

use crate::backend::{PATIENCE, PostgresBackend, only};
use crate::bound::Bound;
use crate::error::strange;
use crate::record::{self, Answer};

/// How many locks are looked at in one statement.
const LOOKED_AT_ONCE: usize = 1000;

#[async_trait]
impl Inspect for PostgresBackend {
    async fn state(&self, name: &LockName) -> Result<LockState> {
        let mut states = self.states(std::slice::from_ref(name)).await?;
        states.pop().ok_or_else(|| strange("no state"))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>> {
        let bind = |_, bound: &mut Bound| {
            bound.add(prefix);
        };
        let rows = self.ask(&self.link.sql().list, bind, PATIENCE).await?;
        let names = rows.iter().map(|row| LockName::new(Answer(row).get::<String>("name")?));
        let names: Vec<LockName> = names.collect::<Result<_>>()?;
        let mut states = Vec::new();
        for names in names.chunks(LOOKED_AT_ONCE) {
            states.extend(self.states(names).await?.into_iter().filter(LockState::is_in_use));
        }
        Ok(states)
    }

    async fn break_lock(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        let bind = |epoch: i64, bound: &mut Bound| {
            bound.add(name.as_str()).add(claim.map(record::uuid)).add(epoch);
        };
        count(&self.ask(&self.link.sql().break_lock, bind, PATIENCE).await?)
    }

    async fn revoke(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        let bind = |_, bound: &mut Bound| {
            bound.add(name.as_str()).add(claim.map(record::uuid));
        };
        count(&self.ask(&self.link.sql().revoke, bind, PATIENCE).await?)
    }
}

impl PostgresBackend {
    /// One for each name, in order.
    async fn states(&self, names: &[LockName]) -> Result<Vec<LockState>> {
        let bind = |_, bound: &mut Bound| {
            bound.add(names.iter().map(LockName::as_str).collect::<Vec<_>>());
        };
        let rows = self.ask(&self.link.sql().state, bind, PATIENCE).await?;
        let mut states: BTreeMap<&str, LockState> =
            names.iter().map(|name| (name.as_str(), LockState::free(name.clone()))).collect();
        for row in &rows {
            let answer = Answer(row);
            let name: &str = answer.get("name")?;
            let state = states.get_mut(name).ok_or_else(|| strange(name))?;
            match answer.letter("kind")? {
                'H' => state.holders.push(held_by(answer)?),
                'W' => state.waiters.get_or_insert_default().push(waiting_for(answer)?),
                'N' => state.not_due_for = Some(answer.time("micros")?),
                other => return Err(strange(other)),
            }
        }
        names.iter().map(|name| states.remove(name.as_str()).ok_or_else(|| strange(name))).collect()
    }
}

fn held_by(answer: Answer<'_>) -> Result<HeldBy> {
    let mut held = HeldBy::new(mode(answer)?);
    held.claim = claim(answer)?;
    held.token = u64::try_from(answer.get::<i64>("token")?).ok().and_then(FencingToken::new);
    held.remaining = Some(answer.time("micros")?);
    held.holder = answer.holder()?;
    Ok(held)
}

fn waiting_for(answer: Answer<'_>) -> Result<WaitingFor> {
    let mut waiting = WaitingFor::new();
    waiting.mode = Some(mode(answer)?);
    waiting.claim = claim(answer)?;
    waiting.holder = answer.holder()?;
    Ok(waiting)
}

fn mode(answer: Answer<'_>) -> Result<locks_api::Mode> {
    let kind = answer.letter("mode")?;
    record::decode_mode(kind, answer.get("weight")?, answer.get("lim")?).ok_or_else(|| strange(kind))
}

fn claim(answer: Answer<'_>) -> Result<Option<ClaimId>> {
    let claim: Option<Uuid> = answer.get("claim")?;
    Ok(claim.map(|claim| ClaimId::from_bits(claim.as_u128())))
}

fn count(rows: &[sqlx::postgres::PgRow]) -> Result<u32> {
    let count: i64 = Answer(only(rows)?).get("n")?;
    u32::try_from(count).map_err(|_| strange(count))
}
