//! Values beside holds, for elections.

use locks_api::spi::{Grant, Leader, Released, Result, Values, async_trait};
use locks_api::{FencingToken, LockName};

use crate::backend::{PATIENCE, RedisBackend};
use crate::error::strange;
use crate::record;

#[async_trait]
impl Values for RedisBackend {
    async fn publish(&self, grant: &Grant, value: &str) -> Result<Released> {
        self.with_grant(&self.link.scripts().publish, grant, Some(value)).await
    }

    async fn leader(&self, name: &LockName) -> Result<Option<Leader>> {
        let call = self.call(std::slice::from_ref(name), LockName::as_str);
        let answer = self.about(&self.link.scripts().leader, &call, PATIENCE).await?;
        match &answer[..] {
            [] => Ok(None),
            [value, token, remaining, holder] => {
                let token = token.parse().ok().and_then(FencingToken::new);
                let mut leader = Leader::new(token.ok_or_else(|| strange(&answer))?, value.as_str());
                leader.holder = record::decode_holder(holder);
                leader.remaining = record::micros(remaining);
                Ok(Some(leader))
            }
            other => Err(strange(other)),
        }
    }

    async fn watch(&self, name: &LockName) -> Result<()> {
        self.link.watch(name.as_str()).await
    }

    async fn unwatch(&self, name: &LockName) -> Result<()> {
        self.link.unwatch(name.as_str()).await
    }
}
