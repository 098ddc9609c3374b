//! What travels to the scripts and back, as text.

use std::time::{Duration, SystemTime};

use locks_api::spi::{Attempt, Claim, ClaimId, Expiry, Grant, Renewed, TokenBlock};
use locks_api::{Busy, Error, ErrorKind, FencingToken, Holder, LossReason, Result};

use crate::error::strange;

/// Between the parts of a holder. Host names have none, and the label comes last.
const SEPARATOR: char = '\u{1f}';

/// Who asks, for people to read.
pub(crate) fn encode_holder(holder: &Holder) -> String {
    let pid = holder.pid.map(|pid| pid.to_string()).unwrap_or_default();
    let host = holder.host.as_deref().unwrap_or_default();
    let label = holder.label.as_deref().unwrap_or_default();
    format!("{pid}{SEPARATOR}{host}{SEPARATOR}{label}")
}

/// `"<since> <holder>"`.
fn decode_holder(text: &str) -> Option<Holder> {
    let (since, holder) = text.split_once(' ')?;
    let mut parts = holder.splitn(3, SEPARATOR).map(|part| (!part.is_empty()).then(|| part.to_owned()));
    let mut decoded = Holder::default();
    decoded.pid = parts.next()?.and_then(|pid| pid.parse().ok());
    decoded.host = parts.next()?;
    decoded.label = parts.next()?;
    decoded.since = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(since.parse().ok()?));
    Some(decoded)
}

/// The answer to one claim.
pub(crate) fn attempt(claim: &Claim, reply: &str) -> Result<Attempt> {
    let (code, rest) = reply.split_once(' ').unwrap_or((reply, ""));
    let parsed = match code {
        "G" => granted(claim, rest).map(Attempt::Granted),
        "Q" => queued(rest),
        "B" => Some(Attempt::held(decode_holder(rest))),
        "R" => micros(rest).map(|remaining| Attempt::Busy(Busy::Grace { remaining })),
        "T" => return Err(Error::new(ErrorKind::StoreFull, "the fencing tokens are used up")),
        _ => None,
    };
    parsed.ok_or_else(|| strange(reply))
}

/// `"<last token> <number of tokens> <µs to live>"`, and in a push the server's time.
pub(crate) fn granted(claim: &Claim, text: &str) -> Option<Grant> {
    let mut words = text.split(' ');
    let (last, len): (u64, u32) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let first = FencingToken::new(last.checked_add(1)?.checked_sub(u64::from(len))?)?;
    let tokens = TokenBlock::new(first, len)?;
    Some(Grant::new(claim, tokens, Expiry::In(micros(words.next()?)?)))
}

/// `"<server's time> <ahead> <µs to the next look> <since> <holder>"`.
fn queued(text: &str) -> Option<Attempt> {
    let mut words = text.splitn(4, ' ').skip(1);
    let position = Some(words.next()?.parse().ok()?);
    let check_in = Some(micros(words.next()?)?);
    Some(Attempt::Queued { position, by: decode_holder(words.next()?), check_in })
}

/// The answer to one renewal: the µs to live, or why not.
pub(crate) fn renewed(reply: &str) -> Result<Renewed> {
    let reason = match reply {
        "expired" => LossReason::Expired,
        "taken" => LossReason::Taken,
        "deleted" => LossReason::Revoked,
        "reset" => LossReason::StoreReset,
        other => {
            let left = micros(other).ok_or_else(|| strange(other))?;
            return Ok(Renewed::Extended(Expiry::In(left)));
        }
    };
    Ok(Renewed::Lost(reason))
}

/// What the server says on its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// This claim now holds its lock; the rest is for [`granted`].
    Granted(ClaimId, &'a str),
    /// This claim's time is over.
    Lost(ClaimId, &'a str),
}

impl<'a> Message<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let code = words.next()?;
        let claim = ClaimId::from_bits(u128::from_str_radix(words.next()?, 16).ok()?);
        match code {
            "g" => Some(Self::Granted(claim, words.next()?)),
            "l" => Some(Self::Lost(claim, words.next()?)),
            _ => None,
        }
    }
}

/// The server's time in what [`granted`] reads.
pub(crate) fn written_at(text: &str) -> Option<Duration> {
    micros(text.rsplit(' ').next()?)
}

/// The server's time in the answer to a claim that it queued: the claims for which it matters when the server pushes something.
pub(crate) fn queued_at(reply: &str) -> Option<Duration> {
    micros(reply.strip_prefix("Q ")?.split(' ').next()?)
}

fn micros(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use locks_api::LockName;
    use locks_api::spi::InstanceId;

    use super::*;

    fn claim() -> Claim {
        Claim::new(LockName::new("a").unwrap(), InstanceId::random())
    }

    #[test]
    fn large_tokens_stay_exact() {
        let Attempt::Granted(grant) = attempt(&claim(), "G 9007199254740991 64 15000000").unwrap() else {
            panic!("not granted")
        };
        assert_eq!(grant.tokens.first().get(), (1 << 53) - 64);
        assert_eq!(grant.tokens.last(), FencingToken::MAX);
        assert_eq!(grant.expiry, Expiry::In(Duration::from_secs(15)));
    }

    #[test]
    fn a_holder_comes_back_as_it_was() {
        let holder = Holder::this_process().with_label("a b\u{1f}c");
        let text = format!("1700000000 {}", encode_holder(&holder));
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(decode_holder(&text), Some(holder.with_since(since)));
        assert_eq!(decode_holder(&format!("0 {}", encode_holder(&Holder::default()))).unwrap().pid, None);
    }

    #[test]
    fn nonsense_is_an_error_and_no_grant() {
        for reply in ["", "G", "G 0 1 1", "G 64 65 1", "G 1 1", "G 1 1 x", "Q 1", "Q 1 1 x 1", "R x", "Z 1"] {
            assert_eq!(attempt(&claim(), reply).unwrap_err().kind(), ErrorKind::Backend, "{reply:?}");
        }
        assert!(renewed("soon").is_err());
        assert_eq!(Message::parse("g zz 1 1 1"), None);
        assert_eq!(Message::parse("x 1 1"), None);
    }
}
