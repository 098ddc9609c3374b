//! Options that make no sense, each on its own word.
#![allow(unused)]

use locks_macros::{customlock, filelock, lock, tryfilelock, trylock};

#[lock(timeout = "5s", timeout = "6s")]
fn said_twice() {}

#[lock(shared, shared)]
fn alone_and_twice() {}

#[lock(shared, permits = 3)]
fn shared_with_permits() {}

#[lock(timeout = "5 parsecs")]
fn no_time() {}

#[lock(timeout = 5)]
fn no_unit() {}

#[lock(ttl = "0s")]
fn no_ttl() {}

#[lock(permits = 0)]
fn no_permits() {}

#[lock(on_lost = "panic")]
async fn no_choice() {}

#[lock(on_lost = "cancel")]
fn not_to_be_stopped() {}

#[lock(waits = true)]
fn no_option() {}

#[lock(timeout)]
fn no_value() {}

#[lock(shared = true)]
fn a_value_too_many() {}

#[lock(wait = patience())]
fn not_known_here() {}

#[trylock(wait = true)]
fn tries_and_waits() {}

#[trylock(timeout = "5s")]
fn tries_for_a_time() {}

#[customlock("a", wait = false, timeout = "5s")]
fn does_not_wait_for_a_time() {}

#[filelock(locks = other())]
fn other_locks() {}

#[lock("a name")]
fn named() {}

#[tryfilelock("a name")]
fn tried_and_named() {}

#[lock(name)]
fn a_word() {}

#[customlock]
fn not_named() {}

#[customlock(timeout = "5s")]
fn not_named_either() {}

#[customlock(timeout = "5s", "a name")]
fn named_last() {}

fn main() {}
