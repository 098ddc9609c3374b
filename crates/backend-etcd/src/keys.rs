//! How keys are called.
//!
//! ```text
//! <namespace>/1/lock/<name>@c<claim>            a claim that is exclusive or shared
//! <namespace>/1/lock/<name>@p<limit>-<claim>    a claim of permits
//! <namespace>/1/lock/<name>@r<claim>            a minimum hold, by the claim that was granted with it
//! <namespace>/1/done/<name>                     the last completed hold
//! ```
//!
//! Names are written as they are, but for `%`, `@` and control characters. So all there is of a lock is one range of keys, the locks whose names begin alike are
//! one too, and what people see in `etcdctl get --prefix` is what the program says.

use locks_api::LockName;
use locks_api::spi::{ClaimId, Mode};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b'@');

/// Ends a name.
const END: u8 = b'@';

/// The keys of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    locks: String,
    done: String,
}

/// What a key of a lock is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Claim(ClaimId),
    /// Of permits, with their limit.
    Permits(ClaimId, u32),
    Rest(ClaimId),
}

impl Keys {
    pub(crate) fn new(namespace: &str) -> Self {
        Self { locks: format!("{namespace}/1/lock/"), done: format!("{namespace}/1/done/") }
    }

    /// The beginning of all keys of a lock.
    pub(crate) fn lock(&self, name: &LockName) -> Vec<u8> {
        let mut key = self.beginning(name.as_str());
        key.push(END);
        key
    }

    /// The beginning of all keys of locks whose names begin like this.
    pub(crate) fn beginning(&self, prefix: &str) -> Vec<u8> {
        let mut key = self.locks.clone().into_bytes();
        key.extend(utf8_percent_encode(prefix, ESCAPED).flat_map(str::bytes));
        key
    }

    pub(crate) fn claim(&self, name: &LockName, claim: ClaimId, mode: Mode) -> Vec<u8> {
        let mut key = self.lock(name);
        key.extend(match mode.limit() {
            Some(limit) => format!("p{limit:08x}-{claim}").into_bytes(),
            None => format!("c{claim}").into_bytes(),
        });
        key
    }

    pub(crate) fn rest(&self, name: &LockName, claim: ClaimId) -> Vec<u8> {
        let mut key = self.lock(name);
        key.extend(format!("r{claim}").into_bytes());
        key
    }

    pub(crate) fn done(&self, name: &LockName) -> Vec<u8> {
        let mut key = self.done.clone().into_bytes();
        key.extend(utf8_percent_encode(name.as_str(), ESCAPED).flat_map(str::bytes));
        key
    }

    /// Two ranges: the claims of permits of this lock that have another limit.
    pub(crate) fn other_limits(&self, name: &LockName, limit: u32) -> [(Vec<u8>, Vec<u8>); 2] {
        let of = |text: String| {
            let mut key = self.lock(name);
            key.extend(text.into_bytes());
            key
        };
        [
            (of("p".to_owned()), of(format!("p{limit:08x}-"))),
            (of(format!("p{limit:08x}.")), of("q".to_owned())),
        ]
    }

    /// The lock whose key this is, and what of it. `None` for keys that nobody of us wrote.
    pub(crate) fn parse(&self, key: &[u8]) -> Option<(LockName, Part)> {
        let rest = key.strip_prefix(self.locks.as_bytes())?;
        let at = rest.iter().position(|byte| *byte == END)?;
        let (name, part) = (&rest[..at], &rest[at + 1..]);
        let name = percent_decode(name).decode_utf8().ok()?;
        Some((LockName::new(&*name).ok()?, part_of(std::str::from_utf8(part).ok()?)?))
    }
}

/// The end of the range of all keys that begin with this one.
pub(crate) fn end_of(beginning: &[u8]) -> Vec<u8> {
    let mut end = beginning.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All there is.
    vec![0]
}

fn part_of(text: &str) -> Option<Part> {
    let (kind, rest) = text.split_at_checked(1)?;
    match kind {
        "c" => claim(rest).map(Part::Claim),
        "r" => claim(rest).map(Part::Rest),
        "p" => {
            let (limit, id) = rest.split_once('-')?;
            Some(Part::Permits(claim(id)?, u32::from_str_radix(limit, 16).ok()?))
        }
        _ => None,
    }
}

fn claim(text: &str) -> Option<ClaimId> {
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(ClaimId::from_bits))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> LockName {
        LockName::new(text).unwrap()
    }

    #[test]
    fn a_key_tells_whose_it_is() {
        let keys = Keys::new("locks");
        let id = ClaimId::random();
        for text in ["a", "a/b", "a@b", "a%40b", "ä\u{1}\n ", "@", "%"] {
            let permits = Mode::Permits { count: 2, limit: 5 };
            for (mode, part) in [
                (Mode::Exclusive, Part::Claim(id)),
                (Mode::Shared, Part::Claim(id)),
                (permits, Part::Permits(id, 5)),
            ] {
                let key = keys.claim(&name(text), id, mode);
                assert_eq!(keys.parse(&key), Some((name(text), part)));
                assert!(key.starts_with(&keys.lock(&name(text))));
            }
            assert_eq!(keys.parse(&keys.rest(&name(text), id)), Some((name(text), Part::Rest(id))));
        }
        for key in ["locks/1/lock/a", "locks/1/lock/a@x1", "locks/1/lock/a@c1", "other/1/lock/a@c"] {
            assert_eq!(keys.parse(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn no_lock_has_another_ones_keys() {
        let keys = Keys::new("locks");
        let (one, end) = (keys.lock(&name("a")), end_of(&keys.lock(&name("a"))));
        for other in ["a@", "a@c", "aA", "a/b", "a%", "A", "b"] {
            let key = keys.claim(&name(other), ClaimId::random(), Mode::Exclusive);
            assert!(!(one <= key && key < end), "{other}");
        }
    }

    #[test]
    fn every_other_limit_is_in_one_of_two_ranges() {
        let keys = Keys::new("locks");
        let ranges = keys.other_limits(&name("a"), 5);
        for limit in [1, 4, 5, 6, 16, u32::MAX] {
            let key = keys.claim(&name("a"), ClaimId::random(), Mode::Permits { count: 1, limit });
            let found = ranges.iter().any(|(from, to)| *from <= key && key < *to);
            assert_eq!(found, limit != 5, "{limit}");
        }
    }

    #[test]
    fn a_range_ends_after_all_that_begin_alike() {
        assert_eq!(end_of(b"a@"), b"aA");
        assert_eq!(end_of(b"a\xff"), b"b");
        assert_eq!(end_of(b"\xff"), b"\0");
    }
}
