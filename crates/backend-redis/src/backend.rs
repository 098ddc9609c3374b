//! A Redis server as a backend.

use std::sync::Arc;
use std::time::Duration;

use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, Events, Expiry, Fairness, Grant, Guarantees, Inline, LossDetection,
    Offer, Offers, Released, Renewed, Restart, Result, Scope, async_trait,
};
use locks_api::{Boottime, Error, ErrorKind};
use redis::Client;

use crate::address;
use crate::error::strange;
use crate::link::{Beginning, Call, Link, Session, texts};
use crate::listener::Listener;
use crate::options::{Durability, RedisOptions};
use crate::record;
use crate::scripts::Step;

/// Locks on a Redis or Valkey server.
///
/// Makes one connection of its own when the first lock is asked for, whatever the number of locks. A step is one script, which the server runs
/// atomically; a batch of claims is one script too.
#[derive(Debug)]
pub struct RedisBackend {
    pub(crate) link: Link,
    listener: Arc<Listener>,
    durability: Durability,
    guarantees: Guarantees,
}

impl RedisBackend {
    /// The server that this URL names: `redis://[user:password@]host[:6379][/db]`, `rediss://…` for TLS (feature `rustls`) or
    /// `redis+unix:/path[?db=…&user=…&pass=…]`. Options go behind a `?`: `namespace`, `max_ttl`, `restart_grace=off`, `allow_eviction=on`,
    /// `durability=replicated(n)`, as in [`RedisOptions`].
    ///
    /// Does no I/O: the server is reached when the first lock is asked for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the URL or an option makes no sense.
    ///
    /// ```
    /// use locks_backend_redis::RedisBackend;
    ///
    /// let backend = RedisBackend::from_url("redis://localhost/0?namespace=billing")?;
    /// assert!(RedisBackend::from_url("redis://localhost?max_ttl=soon").is_err());
    /// # Ok::<(), locks_api::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        let (client, options) = address::parse(url)?;
        Ok(Self::new(client, options))
    }

    /// The server that this client reaches, with its login, database and TLS settings; RESP3 is switched on. Does no I/O. The client's other
    /// connections are not used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if an option makes no sense.
    pub fn from_client(client: &Client, options: RedisOptions) -> Result<Self> {
        options.check()?;
        Ok(Self::new(address::client(client.get_connection_info().clone())?, options))
    }

    fn new(client: Client, options: RedisOptions) -> Self {
        let listener = Arc::new(Listener::new(options.durability != Durability::Local));
        let guarantees = Self::promises(&options);
        let durability = options.durability;
        let link = Link::new(client, options, Arc::clone(&listener));
        Self { link, listener, durability, guarantees }
    }

    /// What a backend with these options promises.
    pub fn promises(options: &RedisOptions) -> Guarantees {
        Guarantees::new("redis", Scope::Cluster)
            .with_ttl(options.limits())
            .with_fairness(Fairness::Fifo)
            .with_loss(LossDetection::Pushed)
            .with_restart(Restart::Grace)
            .with_offers(Offer::ALL.into_iter().fold(Offers::NONE, Offers::with))
    }

    /// Makes the namespace ready on a server that is known to be new: it then needs no grace, and one that runs is ended. Only the
    /// operator can know that nobody relies on a lock that the server has forgotten.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the namespace was set up with another `max_ttl`, [`ErrorKind::Unsupported`] if the server is refused,
    /// [`ErrorKind::PermissionDenied`] if it refuses us, [`ErrorKind::Unavailable`] if it can't be reached.
    ///
    /// # Cancel safety
    ///
    /// If dropped, it may or may not have happened.
    pub async fn set_up(&self) -> Result<()> {
        let session = self.link.session().await?;
        self.link.reopen(&session, Beginning::New).await
    }

    /// The same backend with its scripts changed: one that is broken on purpose, so that a test can show that the conformance kit notices.
    #[doc(hidden)]
    #[must_use]
    pub fn with_scripts(mut self, edit: impl Fn(&str) -> String) -> Self {
        self.link.edit_scripts(edit);
        self
    }

    /// Asks for locks by this step, in the server's present epoch. The answers, and for how long was waited for each.
    pub(crate) async fn ask_for(
        &self,
        step: &Step,
        claims: &[&Claim],
    ) -> Result<(Arc<Session>, Vec<String>, Duration)> {
        let limit = patience(claims.iter().filter_map(|claim| claim.ttl));
        let mut call = self.call(claims, |claim| claim.name.as_str());
        if let Some(first) = claims.first() {
            call.arguments.push(self.link.introduce(first.instance).to_string());
        }
        for claim in claims {
            let ttl = claim.ttl.or(self.guarantees.ttl.map(|limits| limits.default)).unwrap_or_default();
            record::encode_claim(claim, ttl, &mut call.arguments);
        }
        let session = self.link.session().await?;
        self.listener.expect(claims.iter().copied());
        let answers = match self.attempt(&session, step, &call, limit).await? {
            Some(answers) => answers,
            None => {
                self.link.reopen(&session, Beginning::Cautious).await?;
                let again = self.attempt(&session, step, &call, limit).await?;
                again.ok_or_else(|| {
                    Error::new(ErrorKind::Unavailable, "the server's epoch changed twice in a row")
                })?
            }
        };
        Ok((session, answers, limit))
    }

    /// Asks once. `None` if the server is in another epoch than the one we know.
    async fn attempt(
        &self,
        session: &Session,
        step: &Step,
        call: &Call,
        limit: Duration,
    ) -> Result<Option<Vec<String>>> {
        let sent = Boottime::now();
        let answers = texts(&self.link.run(session, step, call, limit).await?)?;
        if answers == ["E"] {
            return Ok(None);
        }
        if let Some(time) = answers.iter().find_map(|answer| record::queued_at(answer)) {
            self.listener.set_clock(sent, time);
        }
        Ok(Some(answers))
    }

    /// Does something with grants. A text for each.
    async fn with_grants(
        &self,
        step: &Step,
        grants: &[Grant],
    ) -> Result<(Arc<Session>, Vec<String>, Duration)> {
        let limit = patience(grants.iter().filter_map(ttl));
        let call = self.grants(grants);
        let session = self.link.session().await?;
        let answers = texts(&self.link.run(&session, step, &call, limit).await?)?;
        if answers.len() != grants.len() {
            return Err(strange(answers));
        }
        Ok((session, answers, limit))
    }

    /// Does something with this very grant, and with what `more` says.
    pub(crate) async fn with_grant(
        &self,
        step: &Step,
        grant: &Grant,
        more: Option<&str>,
    ) -> Result<Released> {
        let mut call = self.grants(std::slice::from_ref(grant));
        call.arguments.extend(more.map(str::to_owned));
        match &self.about(step, &call, patience(ttl(grant).into_iter())).await?[..] {
            [answer] => record::released(answer),
            other => Err(strange(other)),
        }
    }

    /// Runs a script that is about one lock, as texts.
    pub(crate) async fn about(&self, step: &Step, call: &Call, limit: Duration) -> Result<Vec<String>> {
        let session = self.link.session().await?;
        texts(&self.link.run(&session, step, call, limit).await?)
    }

    /// Fails unless so many replicas have what was written as the options ask for.
    pub(crate) async fn replicate(&self, session: &Session, limit: Duration) -> Result<()> {
        let Durability::Replicated(wanted) = self.durability else { return Ok(()) };
        let count = self.link.replicated(session, wanted, limit).await?;
        if count < wanted {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("only {count} of {wanted} replicas have the grant (durability=replicated({wanted}))"),
            ));
        }
        Ok(())
    }

    pub(crate) fn call<'a, T: 'a>(&self, items: &'a [T], name: impl Fn(&'a T) -> &'a str) -> Call {
        let keys = items.iter().map(|item| self.link.lock_key(name(item))).collect();
        Call { keys, arguments: Vec::with_capacity(items.len() * 4 + 1) }
    }

    async fn acquire_sound(&self, claims: &[&Claim]) -> Result<Vec<Result<Attempt>>> {
        let (session, answers, limit) = self.ask_for(&self.link.scripts().acquire, claims).await?;
        if answers.len() != claims.len() {
            return Err(strange(answers));
        }
        let mut attempts: Vec<Result<Attempt>> =
            claims.iter().zip(&answers).map(|(claim, answer)| record::attempt(claim, answer)).collect();
        let settled = claims.iter().zip(&attempts).filter(|(_, attempt)| match attempt {
            Ok(attempt) => !matches!(attempt, Attempt::Queued { .. }),
            // A claim whose answer makes no sense may wait all the same.
            Err(error) => error.kind() != ErrorKind::Backend,
        });
        self.listener.forget(settled.map(|(claim, _)| claim.id));
        if attempts.iter().any(|attempt| matches!(attempt, Ok(Attempt::Granted(_))))
            && let Err(error) = self.replicate(&session, limit).await
        {
            // The engine asks again, for the same grants.
            for attempt in attempts.iter_mut().filter(|attempt| matches!(attempt, Ok(Attempt::Granted(_)))) {
                *attempt = Err(error.clone());
            }
        }
        Ok(attempts)
    }

    fn grants(&self, grants: &[Grant]) -> Call {
        let mut call = self.call(grants, |grant| grant.name.as_str());
        for grant in grants {
            let tokens = [grant.tokens.last().to_string(), grant.tokens.len().to_string()];
            call.arguments.push(grant.claim.to_string());
            call.arguments.extend(tokens);
        }
        call
    }
}

#[async_trait]
impl Backend for RedisBackend {
    fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    fn subscribe(&self, events: Events) {
        self.listener.subscribe(events);
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        let sound: Vec<&Claim> = claims.iter().filter(|claim| record::check(claim).is_ok()).collect();
        let mut attempts = match sound.is_empty() {
            true => Vec::new(),
            false => self.acquire_sound(&sound).await?,
        }
        .into_iter();
        let attempt = |claim: &Claim| {
            record::check(claim)?;
            attempts.next().unwrap_or_else(|| Err(strange("no answer")))
        };
        Ok(claims.iter().map(attempt).collect())
    }

    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        let mut call = self.call(claims, |claim| claim.name.as_str());
        call.arguments.extend(claims.iter().map(|claim| claim.id.to_string()));
        let limit = patience(claims.iter().filter_map(|claim| claim.ttl));
        let session = self.link.session().await?;
        self.link.run(&session, &self.link.scripts().cancel, &call, limit).await?;
        self.listener.forget(claims.iter().map(|claim| claim.id));
        Ok(claims.iter().map(|_| Ok(())).collect())
    }

    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        let (_, answers, _) = self.with_grants(&self.link.scripts().release, grants).await?;
        Ok(answers.iter().map(|answer| record::released(answer)).collect())
    }

    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        let (session, answers, limit) = self.with_grants(&self.link.scripts().renew, grants).await?;
        self.replicate(&session, limit).await?;
        answers.iter().map(|answer| record::renewed(answer)).collect()
    }

    async fn close(&self) -> Result<()> {
        self.link.close();
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

/// How long to wait for the answer to what is no step of a lock.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait for the answer to a step: a quarter of the smallest ttl, so that a renewal can be repeated in time.
fn patience(ttls: impl Iterator<Item = Duration>) -> Duration {
    ttls.min().map_or(PATIENCE, |ttl| (ttl / 4).clamp(Duration::from_millis(250), PATIENCE))
}

fn ttl(grant: &Grant) -> Option<Duration> {
    match grant.expiry {
        Expiry::In(ttl) => Some(ttl),
        _ => None,
    }
}
