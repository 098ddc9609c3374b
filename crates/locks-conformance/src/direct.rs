//! A backend without the engine: its steps, one at a time, as the contract of the SPI has them.

use std::convert::identity;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use locks_api::spi::{
    Abilities, Attempt, Backend, Claim, Events, Expiry, Grant, Guarantees, Inline, InstanceId, Released,
    Renewed, Restart, Result as StepResult,
};
use locks_api::{Boottime, ErrorKind, LockName, Locks};

use crate::harness::AnyBackend;
use crate::recording::{self, HoldId, What};
use crate::space::{PROMPT, Space};
use crate::verdict::{Failure, Verdict, pause_for, within};

/// One connection, asked step by step.
pub(crate) struct Direct {
    backend: AnyBackend,
    instance: InstanceId,
    /// Keeps the receiver of the backend's events alive.
    _listener: Locks,
}

impl Direct {
    pub(crate) fn new(backend: AnyBackend) -> Self {
        let caught = Arc::default();
        let listener =
            Locks::new(Listener { guarantees: backend.guarantees().clone(), caught: Arc::clone(&caught) });
        let events = caught.lock().unwrap_or_else(PoisonError::into_inner).take();
        backend.subscribe(events.expect("an engine subscribes before anything else"));
        Self { backend, instance: InstanceId::random(), _listener: listener }
    }

    /// A new claim that may not wait.
    pub(crate) fn claim(&self, name: &LockName, space: &Space) -> Claim {
        let claim = Claim::new(name.clone(), self.instance);
        match space.short_ttl() {
            Some(ttl) => claim.with_ttl(ttl),
            None => claim,
        }
    }

    pub(crate) async fn acquire(&self, claim: &Claim) -> Verdict<Attempt> {
        let claims = std::slice::from_ref(claim);
        let answer = self.until_known("acquire", || self.backend.acquire(claims), identity).await?;
        if let Attempt::Granted(grant) = &answer {
            recording::note(|| What::Granted {
                hold: self.hold(grant),
                mode: claim.mode.to_string(),
                waited: 0,
                handed_on: false,
                valid_for: micros(grant.expiry),
            });
        }
        Ok(answer)
    }

    /// The grant of a claim that must have it soon: what was cancelled may take the store a moment to undo.
    pub(crate) async fn granted_soon(&self, claim: &Claim) -> Verdict<Grant> {
        let busy = async {
            while matches!(self.acquire(claim).await?, Attempt::Busy(_) | Attempt::Queued { .. }) {
                pause_for(Duration::from_millis(1)).await;
            }
            Verdict::Ok(())
        };
        within(PROMPT, "a free lock", busy).await??;
        self.granted(claim).await
    }

    /// The grant of a claim that must have it now.
    pub(crate) async fn granted(&self, claim: &Claim) -> Verdict<Grant> {
        match self.acquire(claim).await? {
            Attempt::Granted(grant) if grant.claim == claim.id && grant.name == claim.name => match grant
                .expiry
            {
                Expiry::In(_) if claim.ttl.is_none() => {
                    Err(Failure::new(format!("{grant:?} expires and the store has no expiry")))
                }
                Expiry::Never if claim.ttl.is_some() => {
                    Err(Failure::new(format!("{grant:?} does not expire and {:?} was asked for", claim.ttl)))
                }
                _ => Ok(grant),
            },
            other => Err(Failure::new(format!("{other:?} instead of a grant of {claim:?}"))),
        }
    }

    pub(crate) async fn cancel(&self, claim: &Claim) -> Verdict {
        let claims = std::slice::from_ref(claim);
        self.until_known("cancel", || self.backend.cancel(claims), identity).await
    }

    pub(crate) async fn release(&self, grant: &Grant) -> Verdict<Released> {
        let grants = std::slice::from_ref(grant);
        let answer = self.until_known("release", || self.backend.release(grants), identity).await?;
        if answer == Released::Done {
            recording::note(|| What::Released { hold: self.hold(grant) });
        }
        Ok(answer)
    }

    pub(crate) async fn renew(&self, grant: &Grant) -> Verdict<Renewed> {
        let grants = std::slice::from_ref(grant);
        let answer = self.until_known("renew", || self.backend.renew(grants), Ok).await?;
        let hold = self.hold(grant);
        match answer {
            Renewed::Extended(expiry) => {
                if let Some(valid_for) = micros(expiry) {
                    recording::note(|| What::Renewed { hold, valid_for });
                }
            }
            Renewed::Lost(reason) => {
                recording::note(|| What::Lost { hold, reason: format!("{reason:?}") });
            }
            _ => {}
        }
        Ok(answer)
    }

    pub(crate) async fn close(&self) -> Verdict {
        Ok(within(PROMPT, "the step `close`", self.backend.close()).await??)
    }

    /// What came of a step. Where a store may elect a leader, as one that keeps grants over a restart, it is sent again until that is known, as the engine does; any other
    /// store has to answer at once.
    async fn until_known<A, T, F>(
        &self,
        step: &str,
        mut send: impl FnMut() -> F,
        read: impl Fn(A) -> StepResult<T>,
    ) -> Verdict<T>
    where
        F: Future<Output = StepResult<Vec<A>>>,
    {
        let repeats = self.backend.guarantees().restart == Restart::Keeps;
        let until = Boottime::now().after(PROMPT);
        loop {
            let answer = match within(PROMPT, &format!("the step `{step}`"), send()).await? {
                Ok(answers) => read(one_answer(answers, step)?),
                Err(error) => Err(error),
            };
            match answer {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable && repeats && Boottime::now() < until =>
                {
                    pause_for(Duration::from_millis(10)).await;
                }
                answer => return Ok(answer?),
            }
        }
    }

    /// What records call this hold.
    fn hold(&self, grant: &Grant) -> HoldId {
        let token = Some(grant.tokens.first().get());
        HoldId { lock: grant.name.to_string(), instance: self.instance.to_string(), token }
    }

    /// The backend itself, for steps over several claims.
    pub(crate) fn backend(&self) -> &AnyBackend {
        &self.backend
    }
}

/// How long a grant lives; `None` for ever.
fn micros(expiry: Expiry) -> Option<u64> {
    match expiry {
        Expiry::In(time) => u64::try_from(time.as_micros()).ok(),
        _ => None,
    }
}

fn one_answer<T>(mut answers: Vec<T>, step: &str) -> Verdict<T> {
    match (answers.pop(), answers.len()) {
        (Some(answer), 0) => Ok(answer),
        (_, rest) => Err(Failure::new(format!("the step `{step}` for one gave {} answers", rest + 1))),
    }
}

/// Catches the [`Events`] that only an engine can make, and is never asked anything.
#[derive(Debug)]
struct Listener {
    guarantees: Guarantees,
    caught: Arc<Mutex<Option<Events>>>,
}

#[async_trait]
impl Backend for Listener {
    fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    fn subscribe(&self, events: Events) {
        *self.caught.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }

    async fn acquire(&self, claims: &[Claim]) -> StepResult<Vec<StepResult<Attempt>>> {
        Ok(claims.iter().map(|_| Ok(Attempt::held(None))).collect())
    }

    async fn cancel(&self, claims: &[Claim]) -> StepResult<Vec<StepResult<()>>> {
        Ok(claims.iter().map(|_| Ok(())).collect())
    }

    async fn release(&self, grants: &[Grant]) -> StepResult<Vec<StepResult<Released>>> {
        Ok(grants.iter().map(|_| Ok(Released::NotHeld)).collect())
    }

    async fn renew(&self, grants: &[Grant]) -> StepResult<Vec<Renewed>> {
        Ok(grants.iter().map(|grant| Renewed::Extended(grant.expiry)).collect())
    }

    async fn close(&self) -> StepResult<()> {
        Ok(())
    }

    fn inline(&self) -> Option<&dyn Inline> {
        None
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
    }
}
