//! What the store is to be asked.

use crate::spi::{Claim, Grant};

/// What the store is to be asked: whoever drives the engine takes it and brings back the replies.
///
/// What gathers here before it is taken travels together.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) acquire: Vec<Claim>,
    pub(crate) cancel: Vec<Claim>,
    pub(crate) release: Vec<Grant>,
    pub(crate) renew: Vec<Grant>,
    pub(crate) recover: bool,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.acquire.is_empty()
            && self.cancel.is_empty()
            && self.release.is_empty()
            && self.renew.is_empty()
            && !self.recover
    }
}
