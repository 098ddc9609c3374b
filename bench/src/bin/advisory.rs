//! The least that a wrapper can do in PostgreSQL: an advisory lock, the command, and the unlock, on one connection of a common client. No waiting
//! by turns, no fencing token, no signals.

use std::process::{Command, ExitCode};

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, program] = &arguments[..] else { return ExitCode::from(2) };
    match run(url, program) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Whether the lock was free and the command succeeded.
fn run(url: &str, program: &str) -> sqlx::Result<bool> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut connection = PgConnection::connect(url).await?;
        let locked = sqlx::query_scalar("SELECT pg_try_advisory_lock(4711)").fetch_one(&mut connection);
        if !locked.await? {
            return Ok(false);
        }
        let status = Command::new(program).status()?;
        let freed: bool =
            sqlx::query_scalar("SELECT pg_advisory_unlock(4711)").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(freed && status.success())
    })
}
