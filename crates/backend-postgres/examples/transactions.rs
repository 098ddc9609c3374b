//! Locks and database transactions: a transaction that relies on a lock or has one itself, a lock inside of another, a function that commits by itself, and why a lock is
//! given back after the commit.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use locks_api::{FencingToken, Locks};
use locks_backend_postgres::sqlx::{Executor as _, PgPool, Row as _, query};
use locks_test_servers::Postgres;

// region: rely
use locks_backend_postgres::VerifyIn as _;

/// Takes some from an account, in a transaction that nobody else's can overlap who verifies the same lock.
async fn withdraw(locks: &Locks, pool: &PgPool, account: i32, amount: i64) -> Result<(), Box<dyn Error>> {
    let guard = locks.lock(format!("account/{account}")).acquire().await?;
    let mut transaction = pool.begin().await?;
    guard.verify_in(&mut transaction).await?;
    let row =
        query("SELECT balance FROM account WHERE id = $1").bind(account).fetch_one(&mut *transaction).await?;
    let rest = row.try_get::<i64, _>("balance")? - amount;
    query("UPDATE account SET balance = $2 WHERE id = $1")
        .bind(account)
        .bind(rest)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    // Only now: what is not committed yet, the next holder can't see.
    guard.release().await?;
    Ok(())
}
// endregion

// region: nested
/// Holds a lock over two transactions, with another lock inside. No lock notices what the transactions do, or the other lock.
async fn close_the_day(locks: &Locks, pool: &PgPool) -> Result<(), Box<dyn Error>> {
    let day = locks.lock("closing").acquire().await?;
    // Has locks and a transaction of its own, and commits it.
    withdraw(locks, pool, 1, 10).await?;
    let mut transaction = pool.begin().await?;
    day.verify_in(&mut transaction).await?;
    transaction.execute("UPDATE account SET balance = 0").await?;
    // Something was wrong. The lock is still held.
    transaction.rollback().await?;
    assert!(day.is_held());
    day.release().await?;
    Ok(())
}
// endregion

// region: too_early
/// What happens when the lock is given back before the commit: the next holder reads what was there before.
async fn give_back_too_early(locks: &Locks, pool: &PgPool) -> Result<i64, Box<dyn Error>> {
    let guard = locks.lock("account/2").acquire().await?;
    let mut transaction = pool.begin().await?;
    transaction.execute("UPDATE account SET balance = 5 WHERE id = 2").await?;
    guard.release().await?;
    let next = locks.lock("account/2").acquire().await?;
    let seen = query("SELECT balance FROM account WHERE id = 2").fetch_one(pool).await?.try_get("balance")?;
    transaction.commit().await?;
    next.release().await?;
    Ok(seen)
}
// endregion

// region: within
use locks_backend_postgres::AcquireIn as _;

/// Empties all accounts, under a lock that the transaction has: it is given back by the commit, and by a rollback just as well.
async fn empty_all(locks: &Locks, pool: &PgPool) -> Result<FencingToken, Box<dyn Error>> {
    let mut transaction = pool.begin().await?;
    let token = locks.lock("closing").acquire_in(&mut transaction).await?;
    transaction.execute("UPDATE account SET balance = 0").await?;
    transaction.commit().await?;
    Ok(token)
}
// endregion

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Postgres::start()?;
    let pool = PgPool::connect(server.url()).await?;
    pool.execute("CREATE TABLE account (id integer PRIMARY KEY, balance bigint)").await?;
    pool.execute("INSERT INTO account VALUES (1, 100), (2, 100)").await?;
    let locks = locks_backend_postgres::open(server.url())?;

    let many = (0..5).map(|_| withdraw(&locks, &pool, 1, 10));
    for one in many.collect::<Vec<_>>() {
        one.await?;
    }
    close_the_day(&locks, &pool).await?;
    let row = pool.fetch_one("SELECT balance FROM account WHERE id = 1").await?;
    let balance: i64 = row.try_get("balance")?;
    println!("account 1 has {balance}");
    assert_eq!(balance, 40);

    let seen = give_back_too_early(&locks, &pool).await?;
    println!("the next holder saw {seen}, not 5");
    assert_eq!(seen, 100);

    // The server is new, and it is known that nobody relies on a lock of it.
    let sessions = format!("{}?mode=session&restart_grace=off", server.url());
    let sessions = locks_backend_postgres::open(&sessions)?;
    let token = empty_all(&sessions, &pool).await?;
    let guard = sessions.lock("closing").acquire().await?;
    println!("the transaction had token {token}, its successor has {}", guard.fencing_token());
    assert!(guard.fencing_token() > token);
    guard.release().await?;
    sessions.close().await?;
    locks.close().await?;
    Ok(())
}
