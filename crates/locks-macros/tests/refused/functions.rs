//! What can't be decorated.
#![allow(unused)]

use std::pin::Pin;

use locks_macros::{filelock, lock, trylock};

#[lock]
const fn constant() {}

#[lock]
extern "C" fn called_by_others() {}

#[lock]
fn for_ever() -> ! {
    loop {}
}

#[lock]
fn future() -> impl Future<Output = u32> {
    async { 7 }
}

#[trylock]
fn boxed_future() -> Pin<Box<dyn Future<Output = u32> + Send>> {
    let future = async { 7 };
    let boxed: Pin<Box<dyn Future<Output = u32> + Send>> = Box::pin(future);
    boxed
}

#[lock]
struct Structure;

trait Trait {
    #[lock]
    fn declared();
}

struct Account;

impl Account {
    #[lock]
    fn method(&self) {}

    #[trylock]
    async fn tried_method(&mut self) {}

    #[filelock]
    fn constructor() -> Self {
        Self
    }
}

#[lock]
const fn two_at_once() -> ! {
    loop {}
}

fn main() {}
