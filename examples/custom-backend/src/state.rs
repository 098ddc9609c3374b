//! The state of a lock, and the file name that it is.

use std::time::Duration;

use locks_api::FencingToken;
use locks_api::spi::{Boottime, ClaimId, TokenBlock};

/// Before the first grant the counter is at one.
const UNUSED: TokenBlock = match FencingToken::new(1) {
    Some(first) => TokenBlock::new(first, 1).expect("one token is a block"),
    None => panic!("one is a token"),
};

/// The state of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The tokens of the last grant.
    pub(crate) tokens: TokenBlock,
    /// Who holds it, if anybody.
    pub(crate) held: Option<Held>,
    /// The boot of the machine in which this was written.
    pub(crate) boot: String,
}

/// Who holds a lock, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) claim: ClaimId,
    pub(crate) expires: Boottime,
    /// What every renewal adds to the instant at which it is made.
    pub(crate) ttl: Duration,
}

impl State {
    /// The state of a lock that nobody ever held.
    pub(crate) fn new() -> Self {
        Self { tokens: UNUSED, held: None, boot: String::new() }
    }

    /// The file name for this state in this version.
    pub(crate) fn to_file_name(&self, version: u64) -> String {
        let (first, len, boot) = (self.tokens.first(), self.tokens.len(), &self.boot);
        match &self.held {
            Some(Held { claim, expires, ttl }) => {
                let (expires, ttl) = (expires.as_nanos(), ttl.as_millis());
                format!("{version}_{first}_{len}_{boot}_{claim}_{expires}_{ttl}")
            }
            None => format!("{version}_{first}_{len}_{boot}"),
        }
    }

    /// The version and the state that a file name tells.
    pub(crate) fn from_file_name(name: &str) -> Option<(u64, Self)> {
        let mut fields = name.split('_');
        let version = fields.next()?.parse().ok()?;
        let first = FencingToken::new(fields.next()?.parse().ok()?)?;
        let tokens = TokenBlock::new(first, fields.next()?.parse().ok()?)?;
        let boot = fields.next()?.to_owned();
        let held = match fields.next() {
            Some(claim) => Some(Held {
                claim: ClaimId::from_bits(u128::from_str_radix(claim, 16).ok()?),
                expires: Boottime::from_nanos(fields.next()?.parse().ok()?),
                ttl: Duration::from_millis(fields.next()?.parse().ok()?),
            }),
            None => None,
        };
        Some((version, Self { tokens, held, boot }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_state() {
        let free = State { boot: "b-1".into(), ..State::new() };
        let held = Held { claim: ClaimId::random(), expires: Boottime::now(), ttl: Duration::from_secs(3) };
        for state in [free.clone(), State { held: Some(held), ..free }, State::new()] {
            assert_eq!(State::from_file_name(&state.to_file_name(7)), Some((7, state)));
        }
        for nonsense in ["", "1", "x_1_1_b", "1_0_1_b", "1_1_1_b_claim", "1_1_1_b_zz_5_5", "1_1_1_b_1_5"] {
            assert_eq!(State::from_file_name(nonsense), None, "{nonsense}");
        }
    }
}
