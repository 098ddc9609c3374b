//! A PostgreSQL database as a backend.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, Events, Expiry, Fairness, Grant, Guarantees, Inline, LossDetection,
    Offers, Released, Renewed, Restart, Result, Scope, async_trait,
};
use locks_api::{Boottime, Error, ErrorKind};
use sqlx::postgres::{PgPool, PgRow};

use crate::address::{self, Address, Mode};
use crate::bound::Bound;
use crate::contention::Contention;
use crate::error::strange;
use crate::link::{Beginning, Link, Refusal, Way};
use crate::options::PostgresOptions;
use crate::record::{self, Answer};

/// Locks in a PostgreSQL database.
///
/// Makes connections of its own: one for the steps when the first lock is asked for, one for renewals when the first is due, one to listen when somebody
/// waits; never more, whatever the number of locks. A step is one statement in a transaction of its own; a batch of claims is one statement too.
#[derive(Debug)]
pub struct PostgresBackend {
    pub(crate) link: Link,
    pub(crate) contention: Contention,
    collected_at: Mutex<Option<Boottime>>,
    guarantees: Guarantees,
}

/// How often whoever waits asks while nothing is heard.
pub(crate) const UNHEARD: Duration = Duration::from_millis(250);

/// How many claims or grants travel in one statement: it is answered soon, and nobody's row is locked for long.
pub(crate) const AT_ONCE: usize = 128;

/// How often locks that nobody uses any more are removed, and how many at once.
const COLLECTED_EVERY: Duration = Duration::from_secs(3600);
const COLLECTED_AT_ONCE: i32 = 10_000;

impl PostgresBackend {
    /// The database that this URL names: `postgres://user:password@host:5432/database`. Options go behind a `?`: `schema`, `prefix`, `max_ttl`,
    /// `restart_grace=off`, `durable=on` as in [`PostgresOptions`]; `mode=lease`, which is the default; `listen_url`, a direct way to the server if the URL leads to a
    /// pooler; and the client's own, such as `sslmode` and `sslrootcert`.
    ///
    /// Does no I/O: the server is reached when the first lock is asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the URL or an option makes no sense, or is of [another mode](crate::PostgresSessionBackend).
    ///
    /// ```
    /// use locks_backend_postgres::PostgresBackend;
    ///
    /// let backend = PostgresBackend::from_url("postgres://app@localhost/app?schema=billing_locks")?;
    /// assert!(PostgresBackend::from_url("postgres://localhost?max_ttl=soon").is_err());
    /// # Ok::<(), locks_api::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        let address = address::parse(url)?;
        match address.mode {
            Mode::Lease => Ok(Self::new(address)),
            Mode::Session => {
                Err(Error::new(ErrorKind::Config, "mode=session is made by PostgresSessionBackend::from_url"))
            }
        }
    }

    /// The database that this pool's connections reach, with its login and TLS settings. Does no I/O. The pool's connections are not used: a pool
    /// that is used up must not cost anybody a lock.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if an option makes no sense.
    pub fn from_pool(pool: &PgPool, options: PostgresOptions) -> Result<Self> {
        options.check()?;
        let steps = address::secured((*pool.connect_options()).clone())?;
        Ok(Self::new(Address { steps, listen: None, mode: Mode::Lease, options }))
    }

    pub(crate) fn new(address: Address) -> Self {
        let guarantees = Self::promises(&address.options);
        Self {
            link: Link::new(address, str::to_owned),
            contention: Contention::default(),
            collected_at: Mutex::default(),
            guarantees,
        }
    }

    /// What a backend with these options promises.
    pub fn promises(options: &PostgresOptions) -> Guarantees {
        Guarantees::new("postgres", Scope::Cluster)
            .with_ttl(options.limits())
            .with_fairness(Fairness::Fifo)
            .with_loss(LossDetection::Pushed)
            .with_restart(Restart::Grace)
            .with_offers(Offers::ALL)
    }

    /// Makes the tables if they are not there, and says that nobody relies on a lock that the database may have forgotten: a grace is ended. Only the
    /// operator can know that.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the schema was set up with other options, [`ErrorKind::Unsupported`] if the server is refused,
    /// [`ErrorKind::PermissionDenied`] if it refuses us, [`ErrorKind::Unavailable`] if it can't be reached.
    ///
    /// # Cancel safety
    ///
    /// If dropped, it may or may not have happened.
    pub async fn set_up(&self) -> Result<()> {
        self.link.reopen(Beginning::New).await
    }

    /// The SQL that makes the tables, for those who would rather run it themselves. Does no I/O.
    pub fn set_up_script(&self) -> String {
        self.link.sql().script()
    }

    /// The same backend with its SQL changed: one that is broken on purpose, so that a test can show that the conformance kit notices.
    #[doc(hidden)]
    #[must_use]
    pub fn with_sql(mut self, edit: impl Fn(&str) -> String) -> Self {
        self.link.edit_sql(edit);
        self
    }

    /// Runs a statement that is about one or more locks.
    pub(crate) async fn ask(
        &self,
        statement: &Arc<str>,
        arguments: impl Fn(i64, &mut Bound) + Send + Sync,
        limit: Duration,
    ) -> std::result::Result<Vec<PgRow>, Refusal> {
        self.ask_by(Way::Steps, statement, arguments, limit).await
    }

    /// The same for what is not to be given up because somebody has the row of a lock for a moment, or because hundreds have it one after the other. Others
    /// have their turn between two tries.
    async fn ask_until_unlocked(
        &self,
        statement: &Arc<str>,
        arguments: impl Fn(i64, &mut Bound) + Send + Sync,
        step: &Step,
    ) -> std::result::Result<Vec<PgRow>, Refusal> {
        loop {
            match self.ask(statement, &arguments, step.limit).await {
                Err(refusal) if refusal.is_locked && Boottime::now() < step.until => {}
                rows => return rows,
            }
        }
    }

    async fn ask_by(
        &self,
        way: Way,
        statement: &Arc<str>,
        arguments: impl Fn(i64, &mut Bound) + Send + Sync,
        limit: Duration,
    ) -> std::result::Result<Vec<PgRow>, Refusal> {
        let bind = |epoch| {
            let mut bound = Bound::default();
            arguments(epoch, &mut bound);
            bound.finish()
        };
        self.link.run(way, statement, bind, limit).await
    }

    /// Does something with this very grant: its name, claim and tokens come first, then what `more` adds.
    pub(crate) async fn with_grant(
        &self,
        statement: &Arc<str>,
        grant: &Grant,
        more: impl Fn(i64, &mut Bound) + Send + Sync,
    ) -> Result<Released> {
        self.with_grant_in(&Step::begin(patience(ttl(grant).into_iter())), statement, grant, more).await
    }

    async fn with_grant_in(
        &self,
        step: &Step,
        statement: &Arc<str>,
        grant: &Grant,
        more: impl Fn(i64, &mut Bound) + Send + Sync,
    ) -> Result<Released> {
        let bind = |epoch: i64, bound: &mut Bound| {
            bound.grant(grant);
            more(epoch, bound);
        };
        let rows = self.ask_until_unlocked(statement, bind, step).await?;
        Answer(only(&rows)?).released()?.ok_or_else(|| strange("locked"))
    }

    async fn cancel_some(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        let step = Step::begin(patience(claims.iter().filter_map(|claim| claim.ttl)));
        let sql = self.link.sql();
        let mut cancelled: Vec<Result<bool>> = vec![Ok(false)];
        if claims.len() > 1 {
            let bind = |epoch: i64, bound: &mut Bound| {
                bound.add(claims.iter().map(|claim| claim.name.as_str()).collect::<Vec<_>>());
                bound.add(claims.iter().map(|claim| record::uuid(claim.id)).collect::<Vec<_>>());
                bound.add(epoch);
            };
            let rows = each(self.ask(&sql.cancel_all, bind, step.limit).await?, claims.len())?;
            cancelled = rows.iter().map(|row| Ok(Answer(row).released()?.is_some())).collect();
        }
        for (claim, done) in claims.iter().zip(&mut cancelled) {
            if matches!(done, Ok(false)) {
                let bind = |epoch: i64, bound: &mut Bound| {
                    bound.add(claim.name.as_str()).add(record::uuid(claim.id)).add(epoch);
                };
                *done = self
                    .ask_until_unlocked(&sql.cancel, bind, &step)
                    .await
                    .map(|_| true)
                    .map_err(Error::from);
            }
        }
        self.link.listener().forget(claims.iter().map(|claim| claim.id));
        Ok(cancelled.into_iter().map(|done| done.map(drop)).collect())
    }

    async fn release_some(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        let step = Step::begin(patience(grants.iter().filter_map(ttl)));
        let sql = self.link.sql();
        if let [grant] = grants {
            return Ok(vec![self.release_one(grant, &step).await]);
        }
        let bind = |epoch: i64, bound: &mut Bound| {
            bound.grants(grants);
            bound.add(epoch);
        };
        let rows = each(self.ask(&sql.release_all, bind, step.limit).await?, grants.len())?;
        let mut released = Vec::with_capacity(grants.len());
        for (grant, row) in grants.iter().zip(&rows) {
            released.push(match Answer(row).released() {
                Ok(None) => {
                    let alone = self.with_grant_in(&step, &sql.release, grant, |epoch, bound| {
                        bound.add(false).add(epoch);
                    });
                    alone.await
                }
                Ok(Some(released)) => Ok(released),
                Err(error) => Err(error),
            });
        }
        Ok(released)
    }

    /// In one plain statement, if that will do: one for a lock that nobody waits for, another one for a lock that was awaited lately.
    async fn release_one(&self, grant: &Grant, step: &Step) -> Result<Released> {
        let sql = self.link.sql();
        let rows = if self.contention.is_likely(&grant.name) {
            let bind = |epoch: i64, bound: &mut Bound| {
                bound.grant(grant).add(epoch);
            };
            self.ask_until_unlocked(&sql.hand_on, bind, step).await?
        } else {
            let bind = |_, bound: &mut Bound| {
                bound.grant(grant);
            };
            self.ask_until_unlocked(&sql.release_free, bind, step).await?
        };
        if let Some(row) = rows.first() {
            return Answer(row).released()?.ok_or_else(|| strange("locked"));
        }
        self.contention.note(&grant.name);
        self.with_grant_in(step, &sql.release, grant, |epoch, bound| {
            bound.add(false).add(epoch);
        })
        .await
    }

    pub(crate) fn ttl(&self, claim: &Claim) -> i64 {
        let default = self.guarantees.ttl.map(|limits| limits.default);
        record::micros(claim.ttl.or(default).unwrap_or_default())
    }

    /// Removes what nobody has used for long, once in a while.
    async fn collect(&self) -> Result<()> {
        let now = Boottime::now();
        {
            let mut collected_at = self.collected_at.lock().unwrap_or_else(PoisonError::into_inner);
            if collected_at.is_some_and(|at| now.since(at) < COLLECTED_EVERY) {
                return Ok(());
            }
            *collected_at = Some(now);
        }
        let bind = |_, bound: &mut Bound| {
            bound.add(COLLECTED_AT_ONCE);
        };
        self.ask_by(Way::Renewals, &self.link.sql().collect, bind, PATIENCE).await?;
        Ok(())
    }

    /// Why a grant was not renewed with the others, unless it was after all.
    async fn renew_one(&self, grant: &Grant, limit: Duration) -> Result<Renewed> {
        let bind = |epoch: i64, bound: &mut Bound| {
            bound.grant(grant);
            bound.add(epoch);
        };
        let rows = match self.ask_by(Way::Renewals, &self.link.sql().renew, bind, limit).await {
            // What is there is as it was: whoever has the row decides nothing about the lock without ending its transaction.
            Err(refusal) if refusal.is_locked => {
                let bind = |_, bound: &mut Bound| {
                    bound.grant(grant);
                };
                let rows = self.ask_by(Way::Renewals, &self.link.sql().remaining, bind, limit).await?;
                if rows.is_empty() {
                    return Err(refusal.error);
                }
                rows
            }
            rows => rows?,
        };
        let answer = Answer(only(&rows)?);
        match answer.letter("code")? {
            'R' => {}
            'A' => self.link.listener().asked(grant),
            code => return Ok(Renewed::Lost(record::loss(code)?)),
        }
        Ok(Renewed::Extended(Expiry::In(answer.time("micros")?)))
    }
}

#[async_trait]
impl Backend for PostgresBackend {
    fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    fn subscribe(&self, events: Events) {
        self.link.listener().subscribe(events);
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        let listener = self.link.listener();
        let sound: Vec<&Claim> = claims.iter().filter(|claim| record::check(claim).is_ok()).collect();
        let mut attempts = Vec::new();
        if let Some(first) = sound.first() {
            // The first claims of a process mostly find a free lock, and then nobody needs to listen yet.
            let waits = listener.has_begun();
            listener.expect(sound.iter().copied().filter(|claim| claim.may_wait));
            if waits && sound.iter().any(|claim| claim.may_wait) {
                listener.ensure(first.instance).await;
            }
            attempts = self.acquire_sound(&sound, waits).await;
            if !waits {
                let queue: Vec<usize> = (0..sound.len())
                    .filter(|at| {
                        sound[*at].may_wait
                            && matches!(&attempts[*at], Ok(Attempt::Busy(locks_api::Busy::Held { .. })))
                    })
                    .collect();
                if queue.is_empty() {
                    // A server that can't be reached can't be listened to either.
                    if attempts.iter().any(Result::is_ok) {
                        listener.begin(first.instance);
                    }
                } else {
                    listener.ensure(first.instance).await;
                    let waiting: Vec<&Claim> = queue.iter().map(|at| sound[*at]).collect();
                    let again = self.acquire_sound(&waiting, true).await;
                    for (at, attempt) in queue.into_iter().zip(again) {
                        attempts[at] = attempt;
                    }
                }
            }
            let settled = sound.iter().zip(&attempts).filter(|(_, attempt)| match attempt {
                Ok(attempt) => !matches!(attempt, Attempt::Queued { .. }),
                // A claim whose answer makes no sense may wait all the same.
                Err(error) => !matches!(error.kind(), ErrorKind::Backend | ErrorKind::Unavailable),
            });
            listener.forget(settled.map(|(claim, _)| claim.id));
        }
        let mut attempts = attempts.into_iter();
        let attempt = |claim: &Claim| {
            record::check(claim)?;
            attempts.next().unwrap_or_else(|| Err(strange("no answer")))
        };
        Ok(claims.iter().map(attempt).collect())
    }

    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        let mut cancelled = Vec::with_capacity(claims.len());
        for claims in claims.chunks(AT_ONCE) {
            cancelled.extend(spread(self.cancel_some(claims).await, claims.len()));
        }
        Ok(cancelled)
    }

    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        let mut released = Vec::with_capacity(grants.len());
        for grants in grants.chunks(AT_ONCE) {
            released.extend(spread(self.release_some(grants).await, grants.len()));
        }
        Ok(released)
    }

    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        let limit = patience(grants.iter().filter_map(ttl));
        let bind = |_, bound: &mut Bound| {
            bound.grants(grants);
        };
        let rows = self.ask_by(Way::Renewals, &self.link.sql().renew_all, bind, limit).await?;
        let mut renewed: Vec<Option<Renewed>> = vec![None; grants.len()];
        for row in &rows {
            let answer = Answer(row);
            let nr: i64 = answer.get("nr")?;
            let at =
                usize::try_from(nr - 1).ok().filter(|at| *at < grants.len()).ok_or_else(|| strange(nr))?;
            if answer.get("asked")? {
                self.link.listener().asked(&grants[at]);
            }
            renewed[at] = Some(Renewed::Extended(Expiry::In(answer.time("ttl")?)));
        }
        let mut all = Vec::with_capacity(grants.len());
        for (grant, renewed) in grants.iter().zip(renewed) {
            all.push(match renewed {
                Some(renewed) => renewed,
                None => self.renew_one(grant, limit).await?,
            });
        }
        if let Err(error) = self.collect().await {
            tracing::debug!(%error, "unused locks were not removed");
        }
        Ok(all)
    }

    async fn close(&self) -> Result<()> {
        self.link.close().await;
        Ok(())
    }

    fn inline(&self) -> Option<&dyn Inline> {
        None
    }

    /// No recovery is needed: a grant that a restart brought back carries its own end, and no grace is shorter than any ttl. What nobody renews is gone
    /// before anything is granted.
    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
            .with_downgrade(self)
            .with_together(self)
            .with_schedule(self)
            .with_values(self)
            .with_inspect(self)
    }
}

/// What came of each of so many.
pub(crate) fn spread<T>(answers: Result<Vec<Result<T>>>, count: usize) -> Vec<Result<T>> {
    answers.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
}

/// The one row of an answer.
pub(crate) fn only(rows: &[PgRow]) -> Result<&PgRow> {
    match rows {
        [row] => Ok(row),
        _ => Err(strange(format!("{} rows", rows.len()))),
    }
}

/// A row for each of so many.
pub(crate) fn each(rows: Vec<PgRow>, count: usize) -> Result<Vec<PgRow>> {
    if rows.len() == count { Ok(rows) } else { Err(strange(format!("{} rows for {count}", rows.len()))) }
}

/// For how long the parts of a step are tried.
struct Step {
    /// How long an answer may take.
    limit: Duration,
    /// When nothing is tried again.
    until: Boottime,
}

impl Step {
    fn begin(limit: Duration) -> Self {
        Self { limit, until: Boottime::now().after(limit) }
    }
}

/// How long to wait for the answer to what is no step of a lock.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait for the answer to a step: a quarter of the smallest ttl, so that a renewal can be repeated in time.
pub(crate) fn patience(ttls: impl Iterator<Item = Duration>) -> Duration {
    ttls.min().map_or(PATIENCE, |ttl| (ttl / 4).clamp(Duration::from_millis(500), PATIENCE))
}

pub(crate) fn ttl(grant: &Grant) -> Option<Duration> {
    match grant.expiry {
        Expiry::In(ttl) => Some(ttl),
        _ => None,
    }
}
