//! Forms and options that go together.
#![allow(dead_code)]

use locks_macros::{customlock, lock, trylock};

struct Shop {
    locks: locks_api::Locks,
    id: u32,
}

impl Shop {
    #[customlock("shop/{self.id}", locks = self.locks, crate = locks_api)]
    fn sell(&mut self, pieces: u32) -> u32 {
        self.id + pieces
    }

    #[customlock(|shop, day| format!("{}/{day}", shop.id), locks = self.locks, shared, timeout = "5s", crate = locks_api)]
    async fn look<'a>(&'a self, day: &'a str) -> locks_api::Result<&'a str> {
        Ok(day)
    }
}

#[lock(locks = locks, permits = 3, ttl = "30s", label = "three at a time", on_lost = "continue", crate = locks_api)]
async fn generic<T: Clone + Send>(locks: &locks_api::Locks, value: impl Into<T>) -> T
where
    T: 'static,
{
    value.into().clone()
}

#[trylock(locks = locks, crate = locks_api)]
fn skipped(locks: &locks_api::Locks) -> Option<u32> {
    None
}

fn told(locks: &locks_api::Locks) -> locks_api::Result<locks_api::Outcome<Option<u32>>> {
    skipped(locks)
}

fn main() {}
