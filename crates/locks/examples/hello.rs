//! The program of the README: one lock, held, contended and given back. Run it twice in a row: it never waits.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join("locks-hello");
    let locks = locks::connect(&format!("file:{}", directory.display())).await?;

    let guard = locks.lock("reports/nightly").acquire().await?;
    println!("it is ours: {}", guard.is_held());

    let second = locks.lock("reports/nightly").try_acquire().await?;
    println!("a second holder: {}", second.is_some());

    guard.release().await?;
    let third = locks.lock("reports/nightly").try_acquire().await?;
    println!("free after the release: {}", third.is_some());
    Ok(())
}
