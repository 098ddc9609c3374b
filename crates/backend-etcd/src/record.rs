//! What is written into the values of keys, as text.
//!
//! ```text
//! a claim        1 <mode> <flags> <since> <length of the value> <value><pid>␟<host>␟<label>
//! minimum hold   1 <create revision of the claim> <how long> <until>
//! completed      1 <granted at>
//! ```
//!
//! Modes are `x`, `s` and `p<count>/<limit>`. Flags are `w` while a claim waits that has to be confirmed when its turn comes, `a` once its holder was asked to give the lock
//! back, `-` without any. A length is `-` without a value; a create revision is 0 if it is that of the key itself. Times are µs since 1970 on the clock of whoever wrote
//! them; nothing but once-per intervals is decided by them.

use std::time::{Duration, SystemTime};

use locks_api::spi::{Claim, Mode};
use locks_api::{Error, ErrorKind, Holder, Result};

/// Between the parts of a holder. Host names have none, and the label comes last.
const SEPARATOR: char = '\u{1f}';

/// No instant is kept for longer.
const LONGEST_INTERVAL: Duration = Duration::from_secs(366 * 24 * 3600);

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) mode: Mode,
    /// Its turn alone does not make it hold.
    pub(crate) unconfirmed: bool,
    pub(crate) asked: bool,
    pub(crate) since: Duration,
    pub(crate) value: Option<String>,
    pub(crate) holder: Holder,
}

/// A minimum hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    /// The create revision of the claim that wrote it, or 0 if it is that of this key.
    pub(crate) created: i64,
    pub(crate) min_hold: Duration,
    /// For people and for when to look again.
    pub(crate) until: Duration,
}

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

impl Record {
    pub(crate) fn of(claim: &Claim) -> Self {
        Self {
            mode: claim.mode,
            unconfirmed: false,
            asked: false,
            since: wall_clock(),
            value: claim.value().map(|value| (**value).to_owned()),
            holder: (*claim.holder).clone(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mode = match self.mode {
            Mode::Shared => "s".to_owned(),
            Mode::Permits { count, limit } => format!("p{count}/{limit}"),
            _ => "x".to_owned(),
        };
        let flags = match (self.unconfirmed, self.asked) {
            (false, false) => "-",
            (true, false) => "w",
            (false, true) => "a",
            (true, true) => "wa",
        };
        let length = self.value.as_ref().map_or_else(|| "-".to_owned(), |value| value.len().to_string());
        let value = self.value.as_deref().unwrap_or_default();
        let pid = self.holder.pid.map(|pid| pid.to_string()).unwrap_or_default();
        let host = self.holder.host.as_deref().unwrap_or_default();
        let label = self.holder.label.as_deref().unwrap_or_default();
        let since = self.since.as_micros();
        format!("1 {mode} {flags} {since} {length} {value}{pid}{SEPARATOR}{host}{SEPARATOR}{label}")
            .into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).ok();
        text.and_then(parse).ok_or_else(|| not_ours(bytes))
    }

    /// Who it is, with the beginning of its hold or wait.
    pub(crate) fn holder(&self) -> Holder {
        self.holder.clone().with_since(SystemTime::UNIX_EPOCH + self.since)
    }
}

fn parse(text: &str) -> Option<Record> {
    let mut words = text.strip_prefix("1 ")?.splitn(5, ' ');
    let mode = match words.next()? {
        "x" => Mode::Exclusive,
        "s" => Mode::Shared,
        permits => {
            let (count, limit) = permits.strip_prefix('p')?.split_once('/')?;
            Mode::Permits { count: count.parse().ok()?, limit: limit.parse().ok()? }
        }
    };
    let flags = words.next()?;
    let since = micros(words.next()?)?;
    let length = words.next()?;
    let rest = words.next()?;
    let (value, holder) = match length {
        "-" => (None, rest),
        length => {
            let (value, holder) = rest.split_at_checked(length.parse().ok()?)?;
            (Some(value.to_owned()), holder)
        }
    };
    let mut parts = holder.splitn(3, SEPARATOR).map(|part| (!part.is_empty()).then(|| part.to_owned()));
    let mut who = Holder::default();
    who.pid = parts.next()?.and_then(|pid| pid.parse().ok());
    who.host = parts.next()?;
    who.label = parts.next()?;
    let (unconfirmed, asked) = (flags.contains('w'), flags.contains('a'));
    Some(Record { mode, unconfirmed, asked, since, value, holder: who })
}

impl Rest {
    /// One that begins now.
    pub(crate) fn new(created: i64, min_hold: Duration) -> Self {
        Self { created, min_hold, until: wall_clock() + min_hold }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        format!("1 {} {} {}", self.created, self.min_hold.as_micros(), self.until.as_micros()).into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let parse = || {
            let mut words = std::str::from_utf8(bytes).ok()?.strip_prefix("1 ")?.split(' ');
            let created = words.next()?.parse().ok()?;
            Some(Self { created, min_hold: micros(words.next()?)?, until: micros(words.next()?)? })
        };
        parse().ok_or_else(|| not_ours(bytes))
    }

    /// How long it may go on. Only the end of its key ends it.
    pub(crate) fn remaining(&self) -> Duration {
        self.until.saturating_sub(wall_clock()).clamp(LOOKED_AT_AGAIN.min(self.min_hold), self.min_hold)
    }
}

/// When to look again at a minimum hold that should be over.
const LOOKED_AT_AGAIN: Duration = Duration::from_millis(50);

/// What is written down of a completed hold.
pub(crate) fn encode_done(granted_at: Duration) -> Vec<u8> {
    format!("1 {}", granted_at.as_micros()).into_bytes()
}

/// When the last completed hold was granted.
pub(crate) fn decode_done(bytes: &[u8]) -> Result<Duration> {
    let text = std::str::from_utf8(bytes).ok();
    text.and_then(|text| micros(text.strip_prefix("1 ")?)).ok_or_else(|| not_ours(bytes))
}

/// What this machine's clock shows, in whole µs since 1970.
pub(crate) fn wall_clock() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::new(since.as_secs(), since.subsec_micros() * 1_000)
}

fn micros(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_micros)
}

fn not_ours(bytes: &[u8]) -> Error {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
    Error::new(
        ErrorKind::Backend,
        format!("a value was not written by locks, or by a later version of it: {text:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_comes_back_as_it_was() {
        let record = Record {
            mode: Mode::Exclusive,
            unconfirmed: false,
            asked: false,
            since: Duration::from_micros(1_700_000_000_000_001),
            value: None,
            holder: Holder::this_process().with_label("a b\u{1f}c"),
        };
        for (mode, unconfirmed, asked, value) in [
            (Mode::Exclusive, false, false, None),
            (Mode::Shared, true, false, Some("")),
            (Mode::Permits { count: 2, limit: 5 }, true, true, Some("a \u{1f}ü - 1")),
            (Mode::Exclusive, false, true, Some("-")),
        ] {
            let record =
                Record { mode, unconfirmed, asked, value: value.map(str::to_owned), ..record.clone() };
            assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        }
        let nobody = Record { holder: Holder::default(), ..record };
        assert_eq!(Record::decode(&nobody.encode()).unwrap(), nobody);
    }

    #[test]
    fn a_minimum_hold_and_a_completion_come_back_as_they_were() {
        let rest = Rest::new(7, Duration::from_secs(3));
        assert_eq!(Rest::decode(&rest.encode()).unwrap(), rest);
        assert!(rest.remaining() <= rest.min_hold && !rest.remaining().is_zero());
        let over = Rest { until: Duration::ZERO, ..rest };
        assert_eq!(over.remaining(), LOOKED_AT_AGAIN);
        let at = Duration::from_micros(1_700_000_000_000_001);
        assert_eq!(decode_done(&encode_done(at)).unwrap(), at);
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in [
            "",
            "2 x - 1 - ",
            "1 y - 1 - a",
            "1 x - 1 9 a",
            "1 x - ü - \u{1f}\u{1f}",
            "1 p1 - 1 - \u{1f}\u{1f}",
        ] {
            assert_eq!(Record::decode(text.as_bytes()).unwrap_err().kind(), ErrorKind::Backend, "{text:?}");
        }
        assert!(Rest::decode(b"1 a b c").is_err() && decode_done(b"1").is_err());
        assert!(Record::decode(b"\xff").is_err());
    }
}
