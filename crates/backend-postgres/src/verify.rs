//! Locks that a transaction of the user's can rely on.

use std::any::Any;

use locks_api::spi::async_trait;
use locks_api::{Error, ErrorKind, LockGuard, LossReason, Mode, Result};
use sqlx::postgres::PgTransaction;
use sqlx::{AssertSqlSafe, Row as _};

use crate::backend::PostgresBackend;
use crate::error::{classify, is_missing, strange};
use crate::record;

/// Proves inside a transaction that a lock is still held, and keeps others out until that transaction ends.
#[async_trait]
pub trait VerifyIn {
    /// Fails unless the lock is held at this instant; if it is, nobody else gets it before the transaction ends, whatever becomes of the
    /// guard and of its process. So what the transaction writes to this database is never written by two holders at once, with no
    /// assumption about any clock.
    ///
    /// Call it as the first statement after `begin`, and [`release`](LockGuard::release) the guard after `commit`: data that was written under the
    /// lock and is not committed yet is invisible to the next holder. The guard is [exported](LockGuard::export) by it. Whoever waits
    /// for the lock meanwhile goes on waiting, and nobody else is held up.
    ///
    /// The transaction must be READ COMMITTED, which is PostgreSQL's default: one of a stricter level looks at the lock as it was when it began. Its role
    /// needs `USAGE` on the schema and `SELECT` on the tables `epoch`, `lock` and `hold`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] if the lock is not held any more; [`ErrorKind::Unsupported`] at another isolation level, and for permits;
    /// [`ErrorKind::Config`] if the guard is of another kind of store, or of other tables or another database than the transaction's; otherwise
    /// as the statement fails. After the last of these the transaction is aborted, as after any failed statement.
    ///
    /// # Cancel safety
    ///
    /// As with any statement: a transaction whose statement was dropped is only good for a rollback.
    async fn verify_in(&self, transaction: &mut PgTransaction<'_>) -> Result<()>;
}

#[async_trait]
impl VerifyIn for LockGuard {
    async fn verify_in(&self, transaction: &mut PgTransaction<'_>) -> Result<()> {
        let backend: &dyn Any = self.backend();
        let Some(backend) = backend.downcast_ref::<PostgresBackend>() else {
            return Err(wrong(
                "the lock is none of PostgreSQL's mode=lease, so no transaction can verify it",
            ));
        };
        let kind = match self.mode() {
            Mode::Exclusive => 0,
            Mode::Shared => 1,
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "permits can't be verified in a transaction: it would keep the others from theirs; use the fencing token",
                ));
            }
        };
        let claim = self.export();
        let sql = backend.link.sql();
        // From here on nobody is granted the lock; the next statement sees all who were.
        let row = sqlx::query(AssertSqlSafe(std::sync::Arc::clone(&sql.share)))
            .bind(self.name())
            .bind(kind)
            .fetch_one(&mut **transaction)
            .await
            .map_err(classify)?;
        let isolation: &str = row.try_get("isolation").map_err(classify)?;
        if !matches!(isolation, "read committed" | "read uncommitted") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "a {isolation} transaction looks at the lock as it was when the transaction began; verify it in a READ COMMITTED one"
                ),
            ));
        }
        let token = i64::try_from(self.fencing_token().get()).map_err(|_| strange("token"))?;
        let row = sqlx::query(AssertSqlSafe(std::sync::Arc::clone(&sql.verify)))
            .bind(self.name())
            .bind(record::uuid(claim))
            .bind(token)
            .fetch_optional(&mut **transaction)
            .await
            .map_err(|error| if is_missing(&error) { elsewhere() } else { classify(error) })?;
        let epoch: Option<i64> = match &row {
            Some(row) => row.try_get("epoch").map_err(classify)?,
            None => None,
        };
        if epoch.is_some_and(|epoch| epoch == backend.link.epoch()) {
            let mode: Option<i8> =
                row.map(|row| row.try_get("mode")).transpose().map_err(classify)?.flatten();
            return match mode {
                Some(_) => Ok(()),
                None => Err(Error::lost(LossReason::Expired)),
            };
        }
        Err(elsewhere())
    }
}

fn elsewhere() -> Error {
    wrong("the transaction is not of the database and the tables in which the lock is kept")
}

fn wrong(complaint: &'static str) -> Error {
    Error::new(ErrorKind::Config, complaint)
}
