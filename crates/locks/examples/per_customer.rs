//! One lock for each customer: the orders of one customer are booked one after the other, those of different customers at the same time.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Barrier;

// region: customer
use locks::customlock;

#[derive(Clone, Copy)]
struct Order {
    customer: u32,
    amount: u32,
}

#[customlock("customer/{order.customer}", timeout = "30s")]
async fn book(order: Order, ledger: &Ledger) -> locks::Result<u32> {
    let before = ledger.balance(order.customer).await;
    ledger.set_balance(order.customer, before + order.amount).await;
    Ok(before + order.amount)
}
// endregion

/// Where somebody who reads, thinks and writes loses updates, unless he is alone.
struct Ledger {
    balances: [AtomicU32; 2],
    readers: [AtomicU32; 2],
    both: Barrier,
}

impl Ledger {
    async fn balance(&self, customer: u32) -> u32 {
        let customer = customer as usize;
        assert_eq!(
            self.readers[customer].fetch_add(1, Ordering::SeqCst),
            0,
            "one at a time for each customer"
        );
        self.both.wait().await; // never over unless both customers are served at the same time
        self.balances[customer].load(Ordering::SeqCst)
    }

    async fn set_balance(&self, customer: u32, balance: u32) {
        tokio::task::yield_now().await;
        let customer = customer as usize;
        self.balances[customer].store(balance, Ordering::SeqCst);
        self.readers[customer].fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let locks = locks::connect(&format!("file:{}", directory.path().display())).await?;
    locks::install(locks.clone())?;

    let ledger = Ledger { balances: Default::default(), readers: Default::default(), both: Barrier::new(2) };
    let order = |customer| Order { customer, amount: 1 };
    let booked = tokio::join!(
        book(order(0), &ledger),
        book(order(1), &ledger),
        book(order(0), &ledger),
        book(order(1), &ledger),
        book(order(0), &ledger),
        book(order(1), &ledger),
    );
    for balance in [booked.0?, booked.1?, booked.2?, booked.3?, booked.4?, booked.5?] {
        println!("a balance of {balance}");
    }
    for balance in ledger.balances {
        assert_eq!(balance.into_inner(), 3, "no booking is lost");
    }
    locks.close().await?;
    Ok(())
}
