//! What travels to the scripts and back, as text.

use std::time::{Duration, SystemTime};

use locks_api::spi::{Attempt, Claim, ClaimId, Expiry, Grant, Mode, Released, Renewed, TokenBlock};
use locks_api::{Busy, Error, ErrorKind, FencingToken, Holder, LossReason, Result};

use crate::error::strange;

/// Between the parts of a holder. Host names have none, and the label comes last.
const SEPARATOR: char = '\u{1f}';

/// No instant is kept for longer.
const LONGEST_INTERVAL: Duration = Duration::from_secs(366 * 24 * 3600);

/// Fails with [`ErrorKind::Config`] if the claim asks for what can't be kept.
pub(crate) fn check(claim: &Claim) -> Result<()> {
    for (option, time) in [("min_hold", claim.min_hold()), ("once_per", claim.once_per())] {
        if time.is_some_and(|time| time > LONGEST_INTERVAL) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{option} is longer than the 366 days for which this store remembers a lock"),
            ));
        }
    }
    Ok(())
}

/// What the scripts are told of a claim: its id, its ttl, how it asks and who, and its terms if it has any.
pub(crate) fn encode_claim(claim: &Claim, ttl: Duration, arguments: &mut Vec<String>) {
    let terms = terms(claim);
    let how = u8::from(claim.may_wait) + if terms.is_some() { 2 } else { 0 };
    let holder = encode_holder(&claim.holder);
    arguments.push(claim.id.to_string());
    arguments.push(ttl.as_micros().to_string());
    arguments.push(how.to_string());
    arguments.push(match claim.value() {
        Some(value) => format!("{value}{holder}"),
        None => holder,
    });
    arguments.extend(terms);
}

/// How the lock is to be held, unless that is alone and without anything else.
fn terms(claim: &Claim) -> Option<String> {
    let (mode, weight, limit) = match claim.mode {
        Mode::Exclusive if claim.extras.is_none() => return None,
        Mode::Shared => ('S', 1, 0),
        Mode::Permits { count, limit } => ('P', count, limit),
        _ => ('X', 1, 0),
    };
    let micros = |time: Option<Duration>| time.unwrap_or_default().as_micros();
    let (least, interval) = (micros(claim.min_hold()), micros(claim.once_per()));
    let value = claim.value().map_or_else(|| "-".to_owned(), |value| value.len().to_string());
    Some(format!("/{mode},{weight},{limit},{least},{interval},{value}"))
}

/// How a lock is held or asked for: `<X, S or P> <weight> <limit>`.
pub(crate) fn mode(kind: &str, weight: &str, limit: &str) -> Option<Mode> {
    match kind {
        "X" => Some(Mode::Exclusive),
        "S" => Some(Mode::Shared),
        "P" => Some(Mode::Permits { count: weight.parse().ok()?, limit: limit.parse().ok()? }),
        _ => None,
    }
}

/// Who asks, for people to read.
fn encode_holder(holder: &Holder) -> String {
    let pid = holder.pid.map(|pid| pid.to_string()).unwrap_or_default();
    let host = holder.host.as_deref().unwrap_or_default();
    let label = holder.label.as_deref().unwrap_or_default();
    format!("{pid}{SEPARATOR}{host}{SEPARATOR}{label}")
}

/// `"<since> <holder>"`, or `"-"` if nobody is known.
pub(crate) fn decode_holder(text: &str) -> Option<Holder> {
    let (since, holder) = text.split_once(' ')?;
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(since.parse().ok()?);
    Some(decode_person(holder)?.with_since(since))
}

/// A holder without its beginning.
pub(crate) fn decode_person(holder: &str) -> Option<Holder> {
    let mut parts = holder.splitn(3, SEPARATOR).map(|part| (!part.is_empty()).then(|| part.to_owned()));
    let mut decoded = Holder::default();
    decoded.pid = parts.next()?.and_then(|pid| pid.parse().ok());
    decoded.host = parts.next()?;
    decoded.label = parts.next()?;
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
        "N" => micros(rest).map(|remaining| Attempt::Busy(Busy::NotDue { remaining })),
        "M" => {
            let asked = claim.mode.limit().unwrap_or_default();
            return Err(Error::new(
                ErrorKind::LimitMismatch,
                format!("the semaphore is in use with a limit of {rest} and was asked for with {asked}"),
            ));
        }
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

/// The answer to one release, and to what else is done with a grant.
pub(crate) fn released(reply: &str) -> Result<Released> {
    match reply {
        "1" => Ok(Released::Done),
        "0" => Ok(Released::NotHeld),
        other => Err(strange(other)),
    }
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
    /// This claim's hold is over.
    Lost(ClaimId, LossReason, &'a str),
    /// Whoever holds this lock by this claim is asked to give it back.
    Asked(ClaimId, &'a str),
    /// Those who wait for this lock are to ask again.
    Hint(&'a str),
    /// The value of this lock has changed.
    Changed(&'a str),
}

impl<'a> Message<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (code, rest) = text.split_once(' ')?;
        match code {
            "h" => return Some(Self::Hint(rest)),
            "c" => return Some(Self::Changed(rest)),
            _ => {}
        }
        let (claim, rest) = rest.split_once(' ')?;
        let claim = ClaimId::from_bits(u128::from_str_radix(claim, 16).ok()?);
        match code {
            "g" => Some(Self::Granted(claim, rest)),
            "l" => Some(Self::Lost(claim, LossReason::Expired, rest)),
            "b" => Some(Self::Lost(claim, LossReason::Revoked, rest)),
            "a" => Some(Self::Asked(claim, rest)),
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

pub(crate) fn micros(text: &str) -> Option<Duration> {
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
