//! Claims: how they are sent, and what the answers mean.

use std::time::Duration;

use locks_api::spi::{Attempt, Claim, Result};
use locks_api::{Boottime, Error, ErrorKind};
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use crate::backend::{AT_ONCE, PostgresBackend, UNHEARD, each, only, patience, spread};
use crate::bound::{Bound, instance};
use crate::link::{Beginning, Refusal};
use crate::record::{self, Answer, Unanswered};

impl PostgresBackend {
    /// Grants, queues or refuses each of the claims; `waits` says whether those that may wait are queued.
    pub(crate) async fn acquire_sound(&self, claims: &[&Claim], waits: bool) -> Vec<Result<Attempt>> {
        let mut attempts = Vec::with_capacity(claims.len());
        for claims in claims.chunks(AT_ONCE) {
            let asked = self.acquire_some(claims, waits).await;
            attempts.extend(spread(asked, claims.len()));
        }
        attempts
    }

    async fn acquire_some(&self, claims: &[&Claim], waits: bool) -> Result<Vec<Result<Attempt>>> {
        let mut attempts = match claims {
            [claim] => vec![self.acquire_one(claim, waits).await?],
            _ => self.acquire_all(claims, waits).await?,
        };
        for (claim, attempt) in claims.iter().zip(&mut attempts) {
            // Nobody waits for another transaction but who is alone in a statement.
            if matches!(attempt, Ok(Err(Unanswered::Locked))) && claims.len() > 1 {
                *attempt = self.acquire_one(claim, waits).await.unwrap_or_else(Err);
            }
        }
        Ok(attempts
            .into_iter()
            .map(|attempt| match attempt? {
                Ok(attempt) => Ok(attempt),
                Err(Unanswered::Locked) => Ok(Attempt::held(None)),
                Err(Unanswered::OtherEpoch) => {
                    Err(Error::new(ErrorKind::Unavailable, "the store's epoch changed twice in a row"))
                }
            })
            .collect())
    }

    async fn acquire_one(
        &self,
        claim: &Claim,
        waits: bool,
    ) -> Result<Result<std::result::Result<Attempt, Unanswered>>> {
        let limit = patience(claim.ttl.into_iter());
        let is_plain = claim.extras.is_none() && claim.mode == locks_api::Mode::Exclusive;
        let mut attempt = Ok(Err(Unanswered::OtherEpoch));
        for _ in 0..2 {
            let sent = Boottime::now();
            let rows = if is_plain {
                self.acquire_plain(claim, waits && claim.may_wait, limit).await
            } else {
                let bind = |epoch: i64, bound: &mut Bound| self.claims(&[claim], waits, epoch, bound);
                self.ask(&self.link.sql().acquire_all, bind, limit).await
            };
            attempt = match rows {
                Err(refusal) if refusal.is_locked => return Ok(Ok(Err(Unanswered::Locked))),
                rows => self.read(claim, only(&rows?)?, sent),
            };
            if !matches!(attempt, Ok(Err(Unanswered::OtherEpoch))) {
                break;
            }
            self.link.reopen(Beginning::Cautious).await?;
        }
        Ok(attempt)
    }

    /// A claim to hold a lock alone, with nothing else to it: in one plain statement, if that will do.
    async fn acquire_plain(
        &self,
        claim: &Claim,
        waits: bool,
        limit: Duration,
    ) -> std::result::Result<Vec<PgRow>, Refusal> {
        let (sql, ttl) = (self.link.sql(), self.ttl(claim));
        let bind = |epoch: i64, bound: &mut Bound| {
            bound.add(claim.name.as_str()).add(record::uuid(claim.id)).add(instance(claim)).add(ttl);
            bound.add(record::encode_holder(&claim.holder)).add(epoch);
        };
        let short = match self.contention.is_likely(&claim.name) {
            false => Some(&sql.acquire_free),
            true if waits => Some(&sql.queue_up),
            true => None,
        };
        if let Some(statement) = short {
            let rows = self.ask(statement, bind, limit).await?;
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        let bind = |epoch: i64, bound: &mut Bound| {
            bind(epoch, bound);
            bound.add(waits);
        };
        self.ask(&sql.acquire, bind, limit).await
    }

    async fn acquire_all(
        &self,
        claims: &[&Claim],
        waits: bool,
    ) -> Result<Vec<Result<std::result::Result<Attempt, Unanswered>>>> {
        let limit = patience(claims.iter().filter_map(|claim| claim.ttl));
        let mut attempts = Vec::new();
        for _ in 0..2 {
            let sent = Boottime::now();
            let bind = |epoch: i64, bound: &mut Bound| self.claims(claims, waits, epoch, bound);
            let rows = match self.ask(&self.link.sql().acquire_all, bind, limit).await {
                Err(refusal) if refusal.is_locked => {
                    return Ok(claims.iter().map(|_| Ok(Err(Unanswered::Locked))).collect());
                }
                rows => each(rows?, claims.len())?,
            };
            attempts = claims.iter().zip(&rows).map(|(claim, row)| self.read(claim, row, sent)).collect();
            if !attempts.iter().any(|attempt| matches!(attempt, Ok(Err(Unanswered::OtherEpoch)))) {
                break;
            }
            self.link.reopen(Beginning::Cautious).await?;
        }
        Ok(attempts)
    }

    fn read(
        &self,
        claim: &Claim,
        row: &PgRow,
        sent: Boottime,
    ) -> Result<std::result::Result<Attempt, Unanswered>> {
        let answer = Answer(row);
        let mut attempt = answer.attempt(claim)?;
        match &mut attempt {
            Ok(Attempt::Queued { check_in, .. }) => {
                self.contention.note(&claim.name);
                self.link.listener().set_clock(sent, answer.time("at")?);
                if !self.link.listener().hears(claim.instance) {
                    *check_in = Some(check_in.unwrap_or(UNHEARD).min(UNHEARD));
                }
            }
            Ok(Attempt::Granted(_)) => self.contention.forget(&claim.name),
            Ok(Attempt::Busy(_)) => self.contention.note(&claim.name),
            Ok(_) | Err(_) => {}
        }
        Ok(attempt)
    }

    /// What the statements for many are told of claims.
    fn claims(&self, claims: &[&Claim], waits: bool, epoch: i64, bound: &mut Bound) {
        self.terms(claims, bound);
        bound.add(claims.first().map_or_else(Uuid::nil, |claim| instance(claim))).add(epoch);
        bound
            .add(claims.iter().map(|claim| waits && claim.may_wait).collect::<Vec<_>>())
            .add(claims.len() > 1);
    }

    pub(crate) fn terms(&self, claims: &[&Claim], bound: &mut Bound) {
        let interval = |time: Option<Duration>| record::micros(time.unwrap_or_default());
        let modes: Vec<_> = claims.iter().map(|claim| record::encode_mode(claim.mode)).collect();
        bound.add(claims.iter().map(|claim| claim.name.as_str()).collect::<Vec<_>>());
        bound.add(claims.iter().map(|claim| record::uuid(claim.id)).collect::<Vec<_>>());
        bound.add(claims.iter().map(|claim| self.ttl(claim)).collect::<Vec<_>>());
        bound.add(modes.iter().map(|mode| mode.0).collect::<Vec<_>>());
        bound.add(modes.iter().map(|mode| mode.1).collect::<Vec<_>>());
        bound.add(modes.iter().map(|mode| mode.2).collect::<Vec<_>>());
        bound.add(claims.iter().map(|claim| interval(claim.min_hold())).collect::<Vec<_>>());
        bound.add(claims.iter().map(|claim| interval(claim.once_per())).collect::<Vec<_>>());
        bound.add(claims.iter().map(|claim| record::encode_holder(&claim.holder)).collect::<Vec<_>>());
        bound.add(claims.iter().map(|claim| claim.value().map(|value| value.as_bytes())).collect::<Vec<_>>());
    }
}
