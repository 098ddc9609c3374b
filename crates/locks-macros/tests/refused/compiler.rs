//! What the compiler itself finds in an expansion, and where it points.
#![allow(unused)]

use locks_api::Locks;
use locks_macros::{customlock, lock};

struct Order {
    customer: u32,
}

struct Own;

#[customlock("{order.costumer}", locks = locks, crate = locks_api)]
fn no_such_field(order: &Order, locks: &Locks) -> u32 {
    order.customer
}

#[customlock("{order}", locks = locks, crate = locks_api)]
fn not_displayed(order: &Order, locks: &Locks) -> u32 {
    order.customer
}

#[customlock("x", locks = locks, crate = locks_api)]
fn no_room_for_the_error(locks: &Locks) -> Result<u32, Own> {
    Ok(7)
}

#[customlock("x", locks = locks, crate = locks_api, returns = Option<u32>)]
fn no_result(locks: &Locks) -> u32 {
    7
}

#[customlock("x", locks = 7, crate = locks_api)]
fn no_locks() {}

#[customlock("x", locks = locks, crate = locks_api)]
fn wrong_body(locks: &Locks) -> u32 {
    "text"
}

#[customlock("x", locks = locks, crate = locks_api)]
async fn wrong_async_body(locks: &Locks) -> Option<u32> {
    "text"
}

struct Account;

impl Account {
    #[lock(locks = locks, crate = locks_api)]
    fn receives_no_self(locks: &Locks) {}
}

fn main() {}
