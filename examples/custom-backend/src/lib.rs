//! Locks whose state is the name of a file, for the processes of one machine.
//!
//! ```
//! # let directory = std::env::temp_dir().join(format!("rename-doc-{}", std::process::id()));
//! # async fn example(directory: std::path::PathBuf) -> Result<(), locks_api::Error> {
//! use locks_api::Locks;
//! use locks_backend_rename::RenameBackend;
//!
//! let locks = Locks::new(RenameBackend::open(directory)?);
//! let guard = locks.lock("reports/nightly").acquire().await?;
//! println!("token {}", guard.fencing_token());
//! guard.release().await?;
//! # Ok(())
//! # }
//! ```

mod state;
mod store;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use locks_api::spi::{
    Abilities, Attempt, Backend, Boottime, Claim, ClaimId, Events, Expiry, Fairness, Grant, Guarantees,
    Inline, Released, Renewed, Result, Scope, TokenBlock, TtlLimits, async_trait,
};
use locks_api::{Error, ErrorKind, LockName, LossReason};

use crate::state::{Held, State};
use crate::store::Store;

/// The ttl of locks that ask for none.
const DEFAULT_TTL: Duration = Duration::from_secs(15);

/// Locks in a directory.
#[derive(Debug)]
pub struct RenameBackend {
    store: Store,
    guarantees: Guarantees,
}

impl RenameBackend {
    /// Locks in this directory, which is made if it is not there. All processes that open it exclude each other.
    ///
    /// # Errors
    ///
    /// If the directory can't be made, or the machine does not say when it was booted.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { store: Store::open(directory.into())?, guarantees: Self::promises() })
    }

    /// What such locks promise.
    pub fn promises() -> Guarantees {
        let limits = TtlLimits::new(Duration::from_millis(100), DEFAULT_TTL, Duration::from_secs(300));
        // Grants end with their ttl. There is no queue: whoever asks at the right moment gets it.
        Guarantees::new("rename", Scope::Host).with_ttl(limits).with_fairness(Fairness::None)
    }

    fn try_acquire(&self, claim: &Claim) -> Result<Attempt> {
        let ttl = claim.ttl.unwrap_or(DEFAULT_TTL);
        self.store.update(&claim.name, |state, now| match self.live(state, now) {
            // Asked again, because the answer was lost: the same grant, and what is left of it.
            Some(held) if held.claim == claim.id => {
                let left = Expiry::In(held.expires.since(now));
                (None, Ok(Attempt::Granted(Grant::new(claim, state.tokens, left))))
            }
            Some(_) => (None, Ok(Attempt::held(None))),
            None => match next_tokens(state, self.store.boot()) {
                Some(tokens) => {
                    let held = Held { claim: claim.id, expires: now.after(ttl), ttl };
                    let next = State { tokens, held: Some(held), boot: self.store.boot().to_owned() };
                    (Some(next), Ok(Attempt::Granted(Grant::new(claim, tokens, Expiry::In(ttl)))))
                }
                None => (None, Err(Error::new(ErrorKind::StoreFull, "the fencing tokens are used up"))),
            },
        })?
    }

    /// Frees the lock if this very claim holds it, with these tokens if they are known.
    fn give_back(&self, name: &LockName, claim: ClaimId, tokens: Option<TokenBlock>) -> Result<Released> {
        let answer = self.store.update(name, |state, now| match self.live(state, now) {
            Some(held) if held.claim == claim && tokens.is_none_or(|tokens| tokens == state.tokens) => {
                (Some(State { held: None, ..state.clone() }), Released::Done)
            }
            _ => (None, Released::NotHeld),
        });
        // Any other kind would mean that it never will: this one has the engine try again until it is done.
        answer.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the lock can't be given back now").with_source(error)
        })
    }

    fn extend(&self, grant: &Grant) -> Result<Renewed> {
        self.store.update(&grant.name, |state, now| match self.live(state, now) {
            Some(held) if held.claim == grant.claim && state.tokens == grant.tokens => {
                // The ttl that was asked for, not what the grant had left when it was told.
                let renewed = Held { expires: now.after(held.ttl), ..held.clone() };
                let next = State { held: Some(renewed), ..state.clone() };
                (Some(next), Renewed::Extended(Expiry::In(held.ttl)))
            }
            Some(_) => (None, Renewed::Lost(LossReason::Taken)),
            // Expired is dead for ever, also if nobody took the lock since.
            None => (None, Renewed::Lost(LossReason::Expired)),
        })
    }

    /// Who holds the lock: nobody whose time has passed, and nobody from before the machine was booted.
    fn live<'a>(&self, state: &'a State, now: Boottime) -> Option<&'a Held> {
        state.held.as_ref().filter(|held| state.boot == self.store.boot() && now < held.expires)
    }
}

/// The tokens of the next grant. The last renames before a power cut may be lost, and the counter with them, so after a
/// boot it goes on at the clock, above everything that can have been handed out.
fn next_tokens(state: &State, boot: &str) -> Option<TokenBlock> {
    let counter = state.tokens.last().get();
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let clock = u64::try_from(clock.as_micros()).unwrap_or(u64::MAX);
    if state.boot == boot {
        TokenBlock::after(counter, clock)
    } else {
        TokenBlock::without_counter(Some(counter), clock)
    }
}

#[async_trait]
impl Backend for RenameBackend {
    fn guarantees(&self) -> &Guarantees {
        &self.guarantees
    }

    fn subscribe(&self, _events: Events) {
        // A directory says nothing on its own: waiters ask again, at growing intervals.
    }

    async fn acquire(&self, claims: &[Claim]) -> Result<Vec<Result<Attempt>>> {
        Ok(claims.iter().map(|claim| self.try_acquire(claim)).collect())
    }

    async fn cancel(&self, claims: &[Claim]) -> Result<Vec<Result<()>>> {
        Ok(claims.iter().map(|claim| self.give_back(&claim.name, claim.id, None).map(drop)).collect())
    }

    async fn release(&self, grants: &[Grant]) -> Result<Vec<Result<Released>>> {
        Ok(grants.iter().map(|grant| self.give_back(&grant.name, grant.claim, Some(grant.tokens))).collect())
    }

    async fn renew(&self, grants: &[Grant]) -> Result<Vec<Renewed>> {
        grants.iter().map(|grant| self.extend(grant)).collect()
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    fn inline(&self) -> Option<&dyn Inline> {
        // A disk may take its time, so the steps are done on the library's thread.
        None
    }

    fn abilities(&self) -> Abilities<'_> {
        Abilities::none()
    }
}
