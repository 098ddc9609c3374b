//! What goes beyond one lock that one holder has alone: downgrades, several locks in one step, what is done once in a while.

use locks_api::spi::{Claim, Downgrade, Grant, Joint, Released, Result, Schedule, Together, async_trait};
use locks_api::{Error, ErrorKind};

use crate::backend::{PostgresBackend, patience};
use crate::bound::{Bound, instance};
use crate::error::strange;
use crate::link::Beginning;
use crate::record::{self, Answer};

#[async_trait]
impl Downgrade for PostgresBackend {
    async fn downgrade(&self, grant: &Grant) -> Result<Released> {
        let epoch = |epoch, bound: &mut Bound| {
            bound.add(epoch);
        };
        self.with_grant(&self.link.sql().downgrade, grant, epoch).await
    }
}

/// All locks are in one database, so one transaction can take any of them.
#[async_trait]
impl Together for PostgresBackend {
    async fn acquire_together(&self, claims: &[Claim]) -> Result<Joint> {
        let Some(first) = claims.first() else { return Ok(Joint::Granted(Vec::new())) };
        claims.iter().try_for_each(record::check)?;
        let all: Vec<&Claim> = claims.iter().collect();
        let limit = patience(claims.iter().filter_map(|claim| claim.ttl));
        let bind = |epoch: i64, bound: &mut Bound| {
            self.terms(&all, bound);
            bound.add(instance(first)).add(epoch);
        };
        for _ in 0..2 {
            let rows = match self.ask(&self.link.sql().together, bind, limit).await {
                Err(refusal) if refusal.is_locked => {
                    return Ok(Joint::Busy { at: 0, busy: locks_api::Busy::Held { by: None } });
                }
                rows => rows?,
            };
            let answers: Vec<Answer<'_>> = rows.iter().map(Answer).collect();
            let first = *answers.first().ok_or_else(|| strange("no rows"))?;
            match first.letter("code")? {
                'E' => self.link.reopen(Beginning::Cautious).await?,
                'G' if answers.len() == claims.len() => {
                    let grants = claims.iter().zip(&answers).map(|(claim, answer)| answer.granted(claim));
                    self.link.listener().begin(claims[0].instance);
                    return Ok(Joint::Granted(grants.collect::<Result<_>>()?));
                }
                'G' => return Err(strange(format!("{} rows for {}", answers.len(), claims.len()))),
                _ => {
                    let at = usize::try_from(first.get::<i32>("which")?).map_err(|_| strange("which"))?;
                    let claim = claims.get(at).ok_or_else(|| strange(at))?;
                    return Ok(Joint::Busy { at, busy: first.busy(claim)? });
                }
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the store's epoch changed twice in a row"))
    }
}

#[async_trait]
impl Schedule for PostgresBackend {
    async fn complete(&self, grant: &Grant) -> Result<Released> {
        let completes = |epoch, bound: &mut Bound| {
            bound.add(true).add(epoch);
        };
        self.with_grant(&self.link.sql().release, grant, completes).await
    }
}
