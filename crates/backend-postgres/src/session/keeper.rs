//! The task that has the session: one after the other it does what it is asked, keeps the session alive, gives back what nobody has
//! renewed, and notices at once when the session is gone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use locks_api::spi::{Attempt, Claim, ClaimId, Events, Expiry, Grant, Released, Renewed, TokenBlock};
use locks_api::{Boottime, Busy, Error, ErrorKind, FencingToken, Holder, LossReason, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::holds::{Hold, Holds};
use super::key::Keys;
use super::line::{Line, Taken, Wanted};
use super::server::Known;
use super::waiters::Waiters;
use super::{MOST_LOCKS, Place};
use crate::backend::PATIENCE;
use crate::contention::Contention;
use crate::error::strange;

/// What the task is asked to do. Whoever asked may be gone by the time that it is done.
#[derive(Debug)]
pub(crate) enum Request {
    /// Answered with the number of the session that what is granted is held in.
    Acquire(Vec<Claim>, oneshot::Sender<Result<(u64, Vec<Result<Attempt>>)>>),
    Cancel(Vec<ClaimId>, oneshot::Sender<Result<()>>),
    Release(Vec<Grant>, oneshot::Sender<Result<Vec<Released>>>),
    Renew(Vec<Grant>, oneshot::Sender<Result<Vec<Renewed>>>),
}

/// How many tokens a grant takes. They are the microseconds that follow it, and no lock is given back before they have passed: so few that they have
/// when the order to give it back arrives.
const BLOCK: u32 = 32;

/// How often it is asked who holds what can't be had. Not more often, since that makes the server look through all locks.
const ASKED_EVERY: Duration = Duration::from_millis(250);

/// What those who ask see of the task without asking.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) events: OnceLock<Events>,
    /// How many sessions are gone. A grant of one of these is none any more, whenever its answer is read.
    gone: AtomicU64,
}

impl Shared {
    /// The number of the present session.
    pub(crate) fn session(&self) -> u64 {
        self.gone.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(crate) struct Keeper {
    place: Arc<Place>,
    shared: Arc<Shared>,
    requests: mpsc::UnboundedReceiver<Request>,
    line: Option<Line>,
    holds: Holds,
    waiters: Waiters,
    /// Which locks were awaited lately.
    contention: Contention,
    known: Known,
    /// Until then nothing is granted in this session.
    no_grants_before: Boottime,
    /// When it was last asked who holds which lock, and the answer.
    asked_who: Option<(Boottime, Keys, Option<Holder>)>,
}

enum Next {
    Asked(Option<Request>),
    /// The lock with this key was given back.
    Told(i64),
    Gone,
}

impl Keeper {
    pub(crate) fn new(
        place: Arc<Place>,
        shared: Arc<Shared>,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        Self {
            place,
            shared,
            requests,
            line: None,
            holds: Holds::default(),
            waiters: Waiters::default(),
            contention: Contention::default(),
            known: Known::default(),
            no_grants_before: Boottime::from_nanos(0),
            asked_who: None,
        }
    }

    /// Until nobody can ask any more. Then the session is ended, and with it all that is held.
    pub(crate) async fn run(mut self) {
        loop {
            self.give_back_expired().await;
            self.ask_for_waiters().await;
            match timeout(self.next_duty(), Self::next(&mut self.requests, &mut self.line)).await {
                Ok(Next::Asked(Some(request))) => self.serve(request).await,
                Ok(Next::Asked(None)) => break,
                Ok(Next::Told(key)) => self.waiters.ask_now(key),
                Ok(Next::Gone) => self.lose_all(),
                Err(_) => self.keep_alive().await,
            }
        }
        if let Some(line) = self.line.take() {
            line.close().await;
        }
    }

    async fn next(requests: &mut mpsc::UnboundedReceiver<Request>, line: &mut Option<Line>) -> Next {
        let Some(line) = line else { return Next::Asked(requests.recv().await) };
        tokio::select! {
            request = requests.recv() => Next::Asked(request),
            key = line.heard() => key.map_or(Next::Gone, Next::Told),
        }
    }

    /// How long nothing is to be done unasked.
    fn next_duty(&self) -> Duration {
        let now = Boottime::now();
        let alive = self.line.as_ref().map(|line| line.used_at().after(self.place.max_ttl() / 3));
        let next = alive.into_iter().chain(self.holds.first_end()).chain(self.waiters.first_due()).min();
        next.map_or(Duration::MAX, |next| next.since(now))
    }

    async fn serve(&mut self, request: Request) {
        // It may have waited for longer than something had left.
        self.give_back_expired().await;
        match request {
            // It has given up, and claims again or cancels.
            Request::Acquire(_, answer) if answer.is_closed() => {}
            Request::Acquire(claims, answer) => {
                let session = self.shared.session();
                let attempts = self.acquire(&claims).await;
                drop(answer.send(attempts.map(|attempts| (session, attempts))));
            }
            Request::Cancel(claims, answer) => {
                let in_vain: Vec<Keys> =
                    claims.iter().filter_map(|claim| self.waiters.remove(*claim)).collect();
                self.withdraw(&in_vain).await;
                let known: Vec<ClaimId> =
                    claims.into_iter().filter(|claim| self.holds.of(*claim).is_some()).collect();
                let given_back = self.give_back(&known).await;
                drop(answer.send(given_back.map(drop)));
            }
            Request::Release(grants, answer) => {
                let released = self.release(&grants).await;
                drop(answer.send(released));
            }
            Request::Renew(grants, answer) => {
                let renewed = self.renew(&grants).await;
                drop(answer.send(renewed));
            }
        }
    }

    async fn acquire(&mut self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        self.connect().await?;
        let mut attempts = Vec::with_capacity(claims.len());
        let mut asked: Vec<(usize, Keys)> = Vec::new();
        for (at, claim) in claims.iter().enumerate() {
            let keys = self.place.keys(&claim.name);
            let attempt = self.without_asking(claim, keys, &asked);
            if attempt.is_none() {
                asked.push((at, keys));
            }
            attempts.push(attempt);
        }
        let waits = |at: usize, keys| claims[at].may_wait && self.waiters.may_wait(keys);
        // What was free when it was last wanted is tried in fewer words.
        let (mut waiting, plain): (Vec<_>, Vec<_>) = asked
            .into_iter()
            .partition(|(at, keys)| waits(*at, *keys) && self.is_awaited(&claims[*at], *keys));
        let mut refused = self.take(claims, &plain, &mut attempts).await?;
        let waits = |at: usize, keys| claims[at].may_wait && self.waiters.may_wait(keys);
        waiting.extend(
            refused.extract_if(.., |(at, keys, _)| waits(*at, *keys)).map(|(at, keys, _)| (at, keys)),
        );
        refused.extend(self.take_or_wait(claims, &waiting, &mut attempts).await?);
        let granted = claims.iter().zip(&attempts);
        for (claim, _) in granted.filter(|(_, attempt)| matches!(attempt, Some(Ok(Attempt::Granted(_))))) {
            self.contention.forget(&claim.name);
        }
        if let Some((at, keys, taken)) = refused.first() {
            let by = self.who_holds(&claims[*at], *keys, *taken).await;
            if let Some(Ok(Attempt::Busy(Busy::Held { by: who }) | Attempt::Queued { by: who, .. })) =
                &mut attempts[*at]
            {
                *who = by;
            }
        }
        Ok(attempts.into_iter().map(|attempt| attempt.unwrap_or_else(|| Err(strange("no answer")))).collect())
    }

    /// Tries to take these, writes down what came of it and returns those that were refused.
    async fn take(
        &mut self,
        claims: &[Claim],
        asked: &[(usize, Keys)],
        attempts: &mut [Option<Result<Attempt>>],
    ) -> Result<Vec<(usize, Keys, Taken)>> {
        let keys: Vec<Keys> = asked.iter().map(|(_, keys)| *keys).collect();
        let sent = Boottime::now();
        let taken = self.ask(async |line, limit| line.take(&keys, limit).await, &keys).await?;
        let mut refused = Vec::new();
        for ((at, keys), taken) in asked.iter().zip(taken) {
            attempts[*at] = Some(match taken {
                Taken::At(clock) => self.granted(&claims[*at], *keys, clock, sent),
                Taken::Busy | Taken::Elsewhere => {
                    refused.push((*at, *keys, taken));
                    Ok(Attempt::held(None))
                }
            });
        }
        Ok(refused)
    }

    fn is_awaited(&self, claim: &Claim, keys: Keys) -> bool {
        self.waiters.is_announced(keys) || self.contention.is_likely(&claim.name)
    }

    /// The same with those that wait if they are refused.
    async fn take_or_wait(
        &mut self,
        claims: &[Claim],
        asked: &[(usize, Keys)],
        attempts: &mut [Option<Result<Attempt>>],
    ) -> Result<Vec<(usize, Keys, Taken)>> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let mut room = MOST_LOCKS.saturating_sub(self.waiters.len());
        let mut wanted = Vec::with_capacity(asked.len());
        for (_, keys) in asked {
            let is_announced = self.waiters.is_announced(*keys);
            wanted.push(Wanted { keys: *keys, is_announced, may_announce: is_announced || room > 0 });
            room = room.saturating_sub(usize::from(!is_announced));
        }
        let keys: Vec<Keys> = asked.iter().map(|(_, keys)| *keys).collect();
        let sent = Boottime::now();
        let taken =
            match self.ask(async |line, limit| line.take_or_announce(&wanted, limit).await, &keys).await {
                Ok(taken) => taken,
                Err(error) if self.line.is_none() => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "those who wait for a lock are not told and ask by themselves");
                    self.withdraw(&keys).await;
                    let refused = self.take(claims, asked, attempts).await?;
                    for (at, keys, taken) in &refused {
                        attempts[*at] = Some(Ok(self.waits(&claims[*at], *keys, false, *taken)));
                    }
                    return Ok(refused);
                }
            };
        let mut refused = Vec::new();
        for ((at, keys), (taken, is_announced)) in asked.iter().zip(taken) {
            let claim = &claims[*at];
            attempts[*at] = Some(match taken {
                Taken::At(clock) => {
                    self.waiters.withdrawn(*keys);
                    self.granted(claim, *keys, clock, sent)
                }
                Taken::Busy | Taken::Elsewhere => {
                    refused.push((*at, *keys, taken));
                    Ok(self.waits(claim, *keys, is_announced, taken))
                }
            });
        }
        Ok(refused)
    }

    fn waits(&mut self, claim: &Claim, keys: Keys, is_announced: bool, taken: Taken) -> Attempt {
        self.contention.note(&claim.name);
        self.waiters.refused(claim, keys, is_announced, taken);
        Attempt::queued(None, None)
    }

    /// Asks for the locks that may be free by now, for those who wait for them.
    async fn ask_for_waiters(&mut self) {
        let mut due = self.waiters.due(Boottime::now());
        // The server would let the session have once more what it has.
        due.retain(|(_, keys)| self.holds.at(*keys).is_none());
        let room = MOST_LOCKS.saturating_sub(self.holds.len()).min(due.len());
        self.send_away(due.split_off(room)).await;
        let (claims, keys): (Vec<Claim>, Vec<Keys>) = due.into_iter().unzip();
        let asked: Vec<(usize, Keys)> = keys.into_iter().enumerate().collect();
        let mut attempts: Vec<Option<Result<Attempt>>> = claims.iter().map(|_| None).collect();
        let sent = Boottime::now();
        if let Err(error) = self.take_or_wait(&claims, &asked, &mut attempts).await {
            tracing::debug!(%error, "those who wait could not ask");
        }
        for attempt in attempts.into_iter().flatten() {
            if let (Ok(Attempt::Granted(grant)), Some(events)) = (attempt, self.shared.events.get()) {
                events.granted(grant, Some(sent));
            }
        }
    }

    /// As many locks as may be are held. Whoever waited for one more claims it again when told of it, and hears why it can't be had.
    async fn send_away(&mut self, waiting: Vec<(Claim, Keys)>) {
        let in_vain: Vec<Keys> =
            waiting.iter().filter_map(|(claim, _)| self.waiters.remove(claim.id)).collect();
        self.withdraw(&in_vain).await;
        if let Some(events) = self.shared.events.get() {
            waiting.into_iter().for_each(|(claim, _)| events.hint(claim.name));
        }
    }

    /// Lets the session say no more that somebody waits for these.
    async fn withdraw(&mut self, keys: &[Keys]) {
        if keys.is_empty() || self.line.is_none() {
            return;
        }
        if let Err(error) = self.ask(async |line, limit| line.withdraw(keys, limit).await, &[]).await {
            tracing::debug!(%error, "the session still says that somebody waits");
        }
    }

    /// The answer to what this process knows by itself.
    fn without_asking(&self, claim: &Claim, keys: Keys, asked: &[(usize, Keys)]) -> Option<Result<Attempt>> {
        let now = Boottime::now();
        if let Some(hold) = self.holds.of(claim.id) {
            let mut grant = hold.grant.clone();
            grant.expiry = Expiry::In(hold.ends.since(now));
            return Some(Ok(Attempt::Granted(grant)));
        }
        if let Some(hold) = self.holds.at(keys) {
            if hold.claim.name == claim.name {
                return Some(Ok(Attempt::held(Some((*hold.claim.holder).clone()))));
            }
            return Some(Err(Error::new(
                ErrorKind::Config,
                format!(
                    "this lock has the same key as {:?}, which this process holds: {}",
                    hold.claim.name.as_str(),
                    keys.key
                ),
            )));
        }
        if asked.iter().any(|(_, other)| other.key == keys.key) {
            return Some(Ok(Attempt::held(None)));
        }
        if self.no_grants_before > now {
            return Some(Ok(Attempt::Busy(Busy::Grace { remaining: self.no_grants_before.since(now) })));
        }
        if self.holds.len() + asked.len() >= MOST_LOCKS {
            return Some(Err(Error::new(
                ErrorKind::StoreFull,
                format!(
                    "this process holds {MOST_LOCKS} locks, and more are not allowed in mode=session: they take up memory that the server \
                     has set aside for the locks of all its tables; use mode=lease"
                ),
            )));
        }
        None
    }

    fn granted(&mut self, claim: &Claim, keys: Keys, clock: i64, sent: Boottime) -> Result<Attempt> {
        let first = u64::try_from(clock).ok().and_then(FencingToken::new);
        let tokens = first.and_then(|first| TokenBlock::new(first, BLOCK)).ok_or_else(|| strange(clock))?;
        let ttl = claim.ttl.unwrap_or_else(|| self.place.max_ttl());
        let grant = Grant::new(claim, tokens, Expiry::In(ttl));
        self.waiters.remove(claim.id);
        self.holds.insert(Hold { claim: claim.clone(), grant: grant.clone(), keys, ends: sent.after(ttl) });
        Ok(Attempt::Granted(grant))
    }

    /// Who holds what was refused, as it was a moment ago if that was asked then.
    async fn who_holds(&mut self, claim: &Claim, keys: Keys, taken: Taken) -> Option<Holder> {
        let now = Boottime::now();
        if let Some((at, about, who)) = &self.asked_who
            && now.since(*at) < ASKED_EVERY
        {
            return who.clone().filter(|_| *about == keys);
        }
        // That it is held is known. A role that may not see by whom has to do without.
        let who = match self.ask(async |line, limit| line.holder(keys, taken, limit).await, &[]).await {
            Ok(who) => who,
            Err(error) => {
                tracing::debug!(%error, "who holds a lock could not be asked");
                None
            }
        };
        if let (Taken::Elsewhere, Some(who)) = (taken, &who) {
            tracing::warn!(lock = claim.name.as_str(), key = keys.key, %who, "the key of a lock is held by somebody else");
        }
        self.asked_who = Some((now, keys, who.clone()));
        who
    }

    async fn release(&mut self, grants: &[Grant]) -> Result<Vec<Released>> {
        let held: Vec<bool> = grants.iter().map(|grant| self.holds.same(grant).is_some()).collect();
        let claims: Vec<ClaimId> =
            grants.iter().zip(&held).filter(|(_, held)| **held).map(|(grant, _)| grant.claim).collect();
        let mut given_back = self.give_back(&claims).await?.into_iter();
        let released = |held: bool| match held && given_back.next() == Some(true) {
            true => Released::Done,
            false => Released::NotHeld,
        };
        Ok(held.into_iter().map(released).collect())
    }

    async fn renew(&mut self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        let sent = Boottime::now();
        if grants.iter().any(|grant| self.holds.same(grant).is_some()) {
            self.ask(async |line, limit| line.touch(limit).await, &[]).await?;
        }
        let renew = |grant: &Grant| match self.holds.same(grant) {
            Some(hold) => {
                let ttl = hold.claim.ttl.unwrap_or_else(|| self.place.max_ttl());
                hold.ends = sent.after(ttl);
                Renewed::Extended(Expiry::In(ttl))
            }
            None => Renewed::Lost(LossReason::SessionGone),
        };
        Ok(grants.iter().map(renew).collect())
    }

    async fn give_back_expired(&mut self) {
        let expired = self.holds.expired(Boottime::now());
        if let Err(error) = self.give_back(&expired).await {
            tracing::debug!(%error, "what nobody renewed could not be given back");
        }
    }

    /// Frees these, and says of each whether it was still there. All of them are known.
    async fn give_back(&mut self, claims: &[ClaimId]) -> Result<Vec<bool>> {
        let holds: Vec<Hold> = claims.iter().filter_map(|claim| self.holds.remove(*claim)).collect();
        if holds.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<(Keys, i64)> = holds
            .iter()
            .map(|hold| (hold.keys, i64::try_from(hold.grant.tokens.last().get()).unwrap_or(i64::MAX)))
            .collect();
        let given_back = self.ask(async |line, limit| line.give_back(&keys, limit).await, &[]).await;
        // Nobody tells this session what it has done itself.
        holds.iter().for_each(|hold| self.waiters.ask_now(hold.keys.key));
        let Err(error) = given_back else { return given_back };
        // No room to look whether anybody waits: nobody is told, and some may be free already.
        let keys: Vec<Keys> = holds.iter().map(|hold| hold.keys).collect();
        match self.ask(async |line, limit| line.free(&keys, limit).await, &[]).await {
            Ok(()) => Ok(holds.iter().map(|_| true).collect()),
            Err(_) => {
                // A session that is ended has nothing.
                self.lose_all();
                Err(error)
            }
        }
    }

    /// Does something over the session that there is. After an error that leaves it alive, none of `taken` is held.
    async fn ask<T>(
        &mut self,
        act: impl AsyncFnOnce(&mut Line, Duration) -> Result<T>,
        taken: &[Keys],
    ) -> Result<T> {
        let now = Boottime::now();
        let limit = self.holds.last_end().map_or(PATIENCE, |end| end.since(now).max(PATIENCE));
        let Some(line) = &mut self.line else {
            return Err(Error::new(ErrorKind::Unavailable, "the session is gone"));
        };
        let done = act(line, limit).await;
        // An advisory lock outlives the statement that failed after it.
        let undo = done.is_err() && !line.is_over() && !taken.is_empty();
        let is_known = !undo || line.free(taken, limit).await.is_ok();
        if line.is_over() || !is_known {
            self.lose_all();
        }
        done
    }

    async fn keep_alive(&mut self) {
        let due = self
            .line
            .as_ref()
            .is_some_and(|line| Boottime::now().since(line.used_at()) >= self.place.max_ttl() / 3);
        if due && let Err(error) = self.ask(async |line, limit| line.touch(limit).await, &[]).await {
            tracing::debug!(%error, "the session did not answer");
        }
    }

    async fn connect(&mut self) -> Result<()> {
        if self.line.is_none() {
            let (line, look) = Line::connect(&self.place).await?;
            self.no_grants_before = match self.place.options.restart_grace {
                true => self.known.see(&look, self.place.max_ttl()),
                false => Boottime::from_nanos(0),
            };
            self.line = Some(line);
        }
        Ok(())
    }

    /// The session is gone, and with it all that was held in it.
    fn lose_all(&mut self) {
        self.line = None;
        self.shared.gone.fetch_add(1, Ordering::AcqRel);
        if self.waiters.clear()
            && let Some(events) = self.shared.events.get()
        {
            events.resync();
        }
        for hold in self.holds.drain() {
            if let Some(events) = self.shared.events.get() {
                let last = hold.grant.tokens.last();
                events.lost(hold.claim.name, hold.claim.id, Some(last), LossReason::SessionGone);
            }
        }
    }
}
