//! Functions that `async_trait` has made of async ones.

use async_trait::async_trait;
use locks::{Locks, Outcome, current, customlock};

use crate::memory;

#[async_trait]
trait Store: Send + Sync {
    async fn write(&self, key: &str, value: u32) -> Result<String, locks::Error>;

    async fn wipe(&mut self) -> locks::Result<Outcome<u32>>;

    async fn size<T: Send + Into<u64>>(&self, factor: T) -> locks::Result<u64>
    where
        Self: Sized;

    #[customlock("default")]
    async fn with_a_default(&self, (x, _y): (u32, u32)) -> Result<u32, locks::Error> {
        Ok(x)
    }
}

struct Rows {
    id: u32,
    count: u32,
    locks: Locks,
}

#[async_trait]
impl Store for Rows {
    #[customlock("rows/{self.id}/{key}", locks = self.locks)]
    async fn write(&self, key: &str, value: u32) -> Result<String, locks::Error> {
        tokio::task::yield_now().await;
        if value == 0 {
            drop(self.locks.lock("").acquire().await?);
        }
        Ok(format!("{key}{value}{}", current().unwrap().name()))
    }

    #[customlock(|this| format!("rows/{}", this.id), locks = self.locks, wait = false)]
    #[inline]
    async fn wipe(&mut self) -> u32 {
        std::mem::replace(&mut self.count, 0)
    }

    #[customlock("size", locks = self.locks)]
    async fn size<T: Send + Into<u64>>(&self, factor: T) -> u64 {
        factor.into() * u64::from(self.count)
    }
}

#[tokio::test]
async fn methods_of_async_traits() {
    let mut rows = Rows { id: 7, count: 3, locks: memory().await };
    assert_eq!(rows.write("a", 1).await.unwrap(), "a1rows/7/a");
    assert_eq!(rows.write("a", 0).await.unwrap_err().kind(), locks::ErrorKind::InvalidName);
    assert_eq!(rows.size(2_u32).await.unwrap(), 6);
    let boxed: &mut dyn Store = &mut rows;
    assert_eq!(boxed.wipe().await.unwrap(), Outcome::Ran(3));
    crate::alone(async { assert_eq!(boxed.with_a_default((7, 8)).await.unwrap(), 7) }).await;
}
