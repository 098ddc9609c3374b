//! Values beside holds, for elections.

use locks_api::spi::{Grant, Leader, Released, Result, Values, async_trait};
use locks_api::{FencingToken, LockName};

use crate::backend::{PATIENCE, PostgresBackend, only};
use crate::bound::Bound;
use crate::error::strange;
use crate::record::Answer;

#[async_trait]
impl Values for PostgresBackend {
    async fn publish(&self, grant: &Grant, value: &str) -> Result<Released> {
        let value = |_, bound: &mut Bound| {
            bound.add(value.as_bytes());
        };
        self.with_grant(&self.link.sql().publish, grant, value).await
    }

    async fn leader(&self, name: &LockName) -> Result<Option<Leader>> {
        let rows = self.ask(&self.link.sql().leader, |_, bound| named(name, bound), PATIENCE).await?;
        let Some(answer) = rows.first().map(Answer) else { return Ok(None) };
        let token = u64::try_from(answer.get::<i64>("token")?).ok().and_then(FencingToken::new);
        let value = String::from_utf8(answer.get("value")?).map_err(strange)?;
        let mut leader = Leader::new(token.ok_or_else(|| strange("token"))?, value);
        leader.holder = answer.holder()?;
        leader.remaining = Some(answer.time("micros")?);
        Ok(Some(leader))
    }

    async fn watch(&self, name: &LockName) -> Result<()> {
        let channel = self.value_channel(name).await?;
        self.link.listener().hear(channel).await
    }

    async fn unwatch(&self, name: &LockName) -> Result<()> {
        let channel = self.value_channel(name).await?;
        self.link.listener().unhear(&channel);
        Ok(())
    }
}

impl PostgresBackend {
    /// On which changes of this lock's value are told.
    async fn value_channel(&self, name: &LockName) -> Result<String> {
        let rows = self.ask(&self.link.sql().value_channel, |_, bound| named(name, bound), PATIENCE).await?;
        Answer(only(&rows)?).get("channel")
    }
}

fn named(name: &LockName, bound: &mut Bound) {
    bound.add(name.as_str());
}
