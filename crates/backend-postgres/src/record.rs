//! What travels to the statements and back.

use std::time::{Duration, SystemTime};

use locks_api::spi::{Attempt, Claim, ClaimId, Expiry, Grant, Mode, Released, TokenBlock};
use locks_api::{Busy, Error, ErrorKind, FencingToken, Holder, LossReason, Result};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use crate::error::{classify, strange};

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

pub(crate) fn uuid(claim: ClaimId) -> Uuid {
    Uuid::from_u128(claim.to_bits())
}

/// A time as the statements count it.
pub(crate) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// How a claim wants to hold the lock: kind, weight, limit.
pub(crate) fn encode_mode(mode: Mode) -> (&'static str, i64, i64) {
    match mode {
        Mode::Shared => ("S", 1, 0),
        Mode::Permits { count: taken, limit } => ("P", taken.into(), limit.into()),
        _ => ("X", 1, 0),
    }
}

pub(crate) fn decode_mode(kind: char, weight: i64, limit: i64) -> Option<Mode> {
    match kind {
        'X' => Some(Mode::Exclusive),
        'S' => Some(Mode::Shared),
        'P' => Some(Mode::Permits { count: weight.try_into().ok()?, limit: limit.try_into().ok()? }),
        _ => None,
    }
}

/// Who asks, for people to read: `<pid> <host> <label>`, with `-` for what is not known.
pub(crate) fn encode_holder(holder: &Holder) -> String {
    let pid = holder.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let host = holder.host.as_deref().filter(|host| !host.is_empty()).unwrap_or("-");
    let label = holder.label.as_deref().unwrap_or_default();
    format!("{pid} {} {}", host.replace(' ', "_"), label).replace('\0', "\u{fffd}")
}

pub(crate) fn decode_holder(text: &str, since: Option<i64>) -> Holder {
    let mut parts =
        text.splitn(3, ' ').map(|part| Some(part.to_owned()).filter(|part| part != "-" && !part.is_empty()));
    let mut holder = Holder::default();
    holder.pid = parts.next().flatten().and_then(|pid| pid.parse().ok());
    holder.host = parts.next().flatten();
    holder.label = parts.next().flatten();
    match since.and_then(|since| u64::try_from(since).ok()) {
        Some(since) => holder.with_since(SystemTime::UNIX_EPOCH + Duration::from_micros(since)),
        None => holder,
    }
}

/// A row of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a>(pub(crate) &'a PgRow);

impl<'a> Answer<'a> {
    pub(crate) fn get<T>(self, column: &str) -> Result<T>
    where
        T: sqlx::Decode<'a, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.0.try_get(column).map_err(classify)
    }

    /// A code, or the kind of a lock.
    pub(crate) fn letter(self, column: &str) -> Result<char> {
        let letter: i8 = self.get(column)?;
        Ok(char::from(letter.cast_unsigned()))
    }

    pub(crate) fn time(self, column: &str) -> Result<Duration> {
        let micros: Option<i64> = self.get(column)?;
        Ok(Duration::from_micros(micros.and_then(|micros| micros.try_into().ok()).unwrap_or(0)))
    }

    pub(crate) fn holder(self) -> Result<Option<Holder>> {
        let (holder, since) = (self.get::<Option<String>>("holder")?, self.get("since")?);
        Ok(holder.map(|holder| decode_holder(&holder, since)))
    }

    /// What a claim was answered. `None` if the epoch is not the one that we know, or the row was locked.
    pub(crate) fn attempt(self, claim: &Claim) -> Result<std::result::Result<Attempt, Unanswered>> {
        Ok(Ok(match self.letter("code")? {
            'E' => return Ok(Err(Unanswered::OtherEpoch)),
            'L' => return Ok(Err(Unanswered::Locked)),
            'G' => Attempt::Granted(self.granted(claim)?),
            'Q' => Attempt::Queued {
                position: self.get::<Option<i64>>("ahead")?.and_then(|ahead| ahead.try_into().ok()),
                by: self.holder()?,
                check_in: Some(self.time("micros")?),
            },
            _ => Attempt::Busy(self.busy(claim)?),
        }))
    }

    pub(crate) fn granted(self, claim: &Claim) -> Result<Grant> {
        let tokens = block(self.get("last")?, self.get("tokens")?).ok_or_else(|| strange("tokens"))?;
        Ok(Grant::new(claim, tokens, Expiry::In(self.time("micros")?)))
    }

    /// Why a claim was refused.
    pub(crate) fn busy(self, claim: &Claim) -> Result<Busy> {
        match self.letter("code")? {
            'B' => Ok(Busy::Held { by: self.holder()? }),
            'R' => Ok(Busy::Grace { remaining: self.time("micros")? }),
            'N' => Ok(Busy::NotDue { remaining: self.time("micros")? }),
            'M' => Err(Error::new(
                ErrorKind::LimitMismatch,
                format!(
                    "the semaphore is in use with a limit of {} and was asked for with {}",
                    self.get::<i64>("micros")?,
                    claim.mode.limit().unwrap_or_default()
                ),
            )),
            'T' => Err(Error::new(ErrorKind::StoreFull, "the fencing tokens are used up")),
            other => Err(strange(other)),
        }
    }

    /// The answer to a release, and to what else is done with a grant. `None` if the row was locked.
    pub(crate) fn released(self) -> Result<Option<Released>> {
        match self.letter("code")? {
            '1' => Ok(Some(Released::Done)),
            '0' => Ok(Some(Released::NotHeld)),
            'L' => Ok(None),
            other => Err(strange(other)),
        }
    }
}

/// Why a claim has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The store is in another epoch than the one that we know.
    OtherEpoch,
    /// Another transaction has the row.
    Locked,
}

/// The tokens of a grant, from the last and their number.
fn block(last: i64, len: i32) -> Option<TokenBlock> {
    let (last, len) = (u64::try_from(last).ok()?, u32::try_from(len).ok()?);
    let first = FencingToken::new(last.checked_add(1)?.checked_sub(u64::from(len))?)?;
    TokenBlock::new(first, len)
}

/// Why a renewal failed.
pub(crate) fn loss(code: char) -> Result<LossReason> {
    match code {
        'X' => Ok(LossReason::Expired),
        'T' => Ok(LossReason::Taken),
        'D' => Ok(LossReason::Revoked),
        'S' => Ok(LossReason::StoreReset),
        other => Err(strange(other)),
    }
}

/// What the server says on its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// This claim now holds its lock, with these tokens, for so long from the server's time on.
    Granted { claim: ClaimId, tokens: TokenBlock, life: Duration, at: Duration },
    /// This claim's hold with this last token is over.
    Lost { claim: ClaimId, last: FencingToken, reason: LossReason, name: &'a str },
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
        let claim = ClaimId::from_bits(Uuid::parse_str(claim).ok()?.as_u128());
        let lost = |reason| {
            let (last, name) = rest.split_once(' ')?;
            Some(Self::Lost { claim, last: FencingToken::new(last.parse().ok()?)?, reason, name })
        };
        match code {
            "l" => lost(LossReason::Expired),
            "b" => lost(LossReason::Revoked),
            "a" => Some(Self::Asked(claim, rest)),
            "g" => {
                let mut words = rest.split(' ');
                let tokens = block(words.next()?.parse().ok()?, words.next()?.parse().ok()?)?;
                let mut time = || Some(Duration::from_micros(words.next()?.parse().ok()?));
                Some(Self::Granted { claim, tokens, life: time()?, at: time()? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_comes_back_as_it_was() {
        let holder = Holder::this_process().with_label("a b - c");
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(
            decode_holder(&encode_holder(&holder), Some(1_700_000_000_000_000)),
            holder.with_since(since)
        );
        assert_eq!(decode_holder(&encode_holder(&Holder::default()), None), Holder::default());
    }

    #[test]
    fn modes_come_back_as_they_were() {
        for mode in [Mode::Exclusive, Mode::Shared, Mode::Permits { count: 2, limit: u32::MAX }] {
            let (kind, weight, limit) = encode_mode(mode);
            assert_eq!(decode_mode(kind.chars().next().unwrap(), weight, limit), Some(mode));
        }
        assert_eq!(decode_mode('-', 0, 0), None);
    }

    #[test]
    fn large_tokens_stay_exact() {
        let block = block(9_007_199_254_740_991, 64).unwrap();
        assert_eq!(block.first().get(), (1 << 53) - 64);
        assert_eq!(block.last(), FencingToken::MAX);
    }

    #[test]
    fn messages_are_read_and_nonsense_is_none() {
        let id = ClaimId::from_bits(7);
        let text = format!("g {} 640 64 2000000 1700000000000000", uuid(id));
        let Some(Message::Granted { claim, tokens, life, at }) = Message::parse(&text) else {
            panic!("{text}")
        };
        assert_eq!((claim, tokens.first().get(), life), (id, 577, Duration::from_secs(2)));
        assert_eq!(at, Duration::from_secs(1_700_000_000));
        let text = format!("l {} 640 a name", uuid(id));
        let Some(Message::Lost { last, name, .. }) = Message::parse(&text) else { panic!("{text}") };
        assert_eq!((last.get(), name), (640, "a name"));
        assert_eq!(Message::parse("h a b"), Some(Message::Hint("a b")));
        for nonsense in ["", "g", "g x 1 1 1 1", "x y z", "l 1 a"] {
            assert_eq!(Message::parse(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(Message::parse(&format!("g {} 1 2 1 1", uuid(id))), None);
        assert!(block(0, 1).is_none() && loss('?').is_err());
    }
}
