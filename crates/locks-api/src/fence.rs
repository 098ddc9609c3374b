//! The check that makes a fencing token worth something.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::token::FencingToken;

/// A resource that refuses stale holders: it lets in tokens that are at least as large as the largest seen.
///
/// The check and the act are one step, so that nobody slips in between. For resources of this process, and a model
/// for all others: a file, a table or a service does the same by keeping the largest token beside its data.
///
/// Who writes back what was read reads through the gate, too. Otherwise a stale holder may write after its successor has
/// read, and the successor's write undoes what the stale one was told had been done.
///
/// ```
/// use locks_api::{FenceGate, FencingToken};
///
/// let [old, new] = [7, 8].map(|number| FencingToken::new(number).unwrap());
/// let gate = FenceGate::new(Vec::new());
/// gate.apply(old, |log| log.push("from the first holder")).unwrap();
/// gate.apply(new, |log| log.push("from the second")).unwrap();
/// let stale = gate.apply(old, |log| log.push("from the first, who was paused")).unwrap_err();
/// assert_eq!(stale.highest, new);
/// assert_eq!(gate.into_inner().len(), 2);
/// ```
#[derive(Debug, Default)]
pub struct FenceGate<R> {
    state: Mutex<State<R>>,
}

#[derive(Debug, Default)]
struct State<R> {
    highest: Option<FencingToken>,
    resource: R,
}

impl<R> FenceGate<R> {
    /// A gate before `resource` that has seen no token.
    pub const fn new(resource: R) -> Self {
        Self { state: Mutex::new(State { highest: None, resource }) }
    }

    /// A gate that has seen `highest`: for a resource whose largest token was stored.
    pub const fn resuming(resource: R, highest: FencingToken) -> Self {
        Self { state: Mutex::new(State { highest: Some(highest), resource }) }
    }

    /// Runs `act` on the resource if no larger token was seen. One holder may come as often as it likes.
    ///
    /// # Errors
    ///
    /// [`StaleToken`] if a later holder was here; `act` has not run then.
    pub fn apply<T>(&self, token: FencingToken, act: impl FnOnce(&mut R) -> T) -> Result<T, StaleToken> {
        // A panic in an earlier act leaves the resource as that act left it, and the fence intact.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.highest {
            Some(highest) if highest > token => Err(StaleToken { token, highest }),
            _ => {
                state.highest = Some(token);
                Ok(act(&mut state.resource))
            }
        }
    }

    /// The largest token seen, to be stored beside the resource.
    pub fn highest(&self) -> Option<FencingToken> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).highest
    }

    /// The resource, without the gate.
    pub fn into_inner(self) -> R {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).resource
    }
}

/// A token that was too old: a later holder has been there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StaleToken {
    /// The token that was refused.
    pub token: FencingToken,
    /// The largest that was seen.
    pub highest: FencingToken,
}

impl fmt::Display for StaleToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stale fencing token {}: a holder with token {} has been here", self.token, self.highest)
    }
}

impl StdError for StaleToken {}
