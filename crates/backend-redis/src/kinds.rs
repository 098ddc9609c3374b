//! What goes beyond one lock that one holder has alone: downgrades, several locks in one step, what is done once in a while.

use locks_api::spi::{
    Attempt, Claim, Downgrade, Grant, Joint, Released, Result, Schedule, Together, async_trait,
};

use crate::backend::RedisBackend;
use crate::error::strange;
use crate::record;

#[async_trait]
impl Downgrade for RedisBackend {
    async fn downgrade(&self, grant: &Grant) -> Result<Released> {
        self.with_grant(&self.link.scripts().downgrade, grant, None).await
    }
}

/// All locks of a namespace are on one slot of one server, so one script can take any of them.
#[async_trait]
impl Together for RedisBackend {
    async fn acquire_together(&self, claims: &[Claim]) -> Result<Joint> {
        if claims.is_empty() {
            return Ok(Joint::Granted(Vec::new()));
        }
        claims.iter().try_for_each(record::check)?;
        let claims: Vec<&Claim> = claims.iter().collect();
        let (session, answers, limit) = self.ask_for(&self.link.scripts().together, &claims).await?;
        if let [refusal] = answers.as_slice()
            && let Some((at, why)) = refusal.strip_prefix("- ").and_then(|refusal| refusal.split_once(' '))
        {
            let at: usize = at.parse().map_err(|_| strange(refusal))?;
            let claim = claims.get(at).ok_or_else(|| strange(refusal))?;
            return match record::attempt(claim, why)? {
                Attempt::Busy(busy) => Ok(Joint::Busy { at, busy }),
                _ => Err(strange(refusal)),
            };
        }
        if answers.len() != claims.len() {
            return Err(strange(answers));
        }
        let granted = |(claim, answer): (&&Claim, &String)| match record::attempt(claim, answer)? {
            Attempt::Granted(grant) => Ok(grant),
            _ => Err(strange(answer)),
        };
        let grants = claims.iter().zip(&answers).map(granted).collect::<Result<Vec<Grant>>>()?;
        self.replicate(&session, limit).await?;
        Ok(Joint::Granted(grants))
    }
}

#[async_trait]
impl Schedule for RedisBackend {
    async fn complete(&self, grant: &Grant) -> Result<Released> {
        self.with_grant(&self.link.scripts().complete, grant, None).await
    }
}
