//! What statements are given.

use locks_api::spi::{Claim, Grant};
use sqlx::postgres::PgArguments;
use sqlx::types::Uuid;
use sqlx::{Arguments as _, Postgres};

use crate::record;

/// The arguments of a statement.
#[derive(Default)]
pub(crate) struct Bound {
    arguments: PgArguments,
    failed: Option<sqlx::error::BoxDynError>,
}

impl Bound {
    pub(crate) fn add<'a, T>(&mut self, value: T) -> &mut Self
    where
        T: sqlx::Encode<'a, Postgres> + sqlx::Type<Postgres> + 'a,
    {
        if let Err(error) = self.arguments.add(value) {
            self.failed.get_or_insert(error);
        }
        self
    }

    /// This very grant: name, claim, last token, number of tokens.
    pub(crate) fn grant(&mut self, grant: &Grant) -> &mut Self {
        let (last, len) = tokens(grant);
        self.add(grant.name.as_str()).add(record::uuid(grant.claim)).add(last).add(len)
    }

    pub(crate) fn grants(&mut self, grants: &[Grant]) {
        let tokens: Vec<_> = grants.iter().map(tokens).collect();
        self.add(grants.iter().map(|grant| grant.name.as_str()).collect::<Vec<_>>());
        self.add(grants.iter().map(|grant| record::uuid(grant.claim)).collect::<Vec<_>>());
        self.add(tokens.iter().map(|(last, _)| *last).collect::<Vec<_>>());
        self.add(tokens.iter().map(|(_, len)| *len).collect::<Vec<_>>());
    }

    pub(crate) fn finish(self) -> sqlx::Result<PgArguments> {
        match self.failed {
            Some(error) => Err(sqlx::Error::Encode(error)),
            None => Ok(self.arguments),
        }
    }
}

fn tokens(grant: &Grant) -> (i64, i32) {
    let last = i64::try_from(grant.tokens.last().get()).unwrap_or(i64::MAX);
    (last, i32::try_from(grant.tokens.len()).unwrap_or(i32::MAX))
}

pub(crate) fn instance(claim: &Claim) -> Uuid {
    Uuid::from_u128(claim.instance.to_bits())
}
