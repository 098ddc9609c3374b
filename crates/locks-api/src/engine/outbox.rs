//! What the store is to be asked.

use crate::spi::{Claim, Grant};

/// What the store is to be asked: whoever drives the engine takes it and brings back the replies.
///
/// What gathers here before it is taken travels together.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) acquire: Vec<Claim>,
    /// Claims that are granted together or not at all.
    pub(crate) together: Vec<Vec<Claim>>,
    pub(crate) cancel: Vec<Claim>,
    pub(crate) release: Vec<Return>,
    pub(crate) renew: Vec<Grant>,
    pub(crate) recover: bool,
}

/// A grant that goes back to the store.
#[derive(Clone, Debug)]
pub(crate) struct Return {
    pub(crate) grant: Grant,
    /// Whether what it was taken for was done, and the store is to remember that.
    pub(crate) completed: bool,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.acquire.is_empty()
            && self.together.is_empty()
            && self.cancel.is_empty()
            && self.release.is_empty()
            && self.renew.is_empty()
            && !self.recover
    }
}
