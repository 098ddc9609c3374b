//! Who holds and who waits, and taking locks away.

use std::collections::BTreeMap;
use std::time::Duration;

use locks_api::spi::{ClaimId, HeldBy, Inspect, LockState, Result, WaitingFor, async_trait};
use locks_api::{FencingToken, LockName};
use redis::Value;

use crate::backend::{PATIENCE, RedisBackend};
use crate::error::strange;
use crate::link::{Session, texts};
use crate::record;
use crate::scripts::Step;

/// How many locks one script looks at, so that it holds up nobody.
const LOOKED_AT_ONCE: usize = 100;

#[async_trait]
impl Inspect for RedisBackend {
    async fn state(&self, name: &LockName) -> Result<LockState> {
        let session = self.link.session().await?;
        let states = self.states(&session, std::slice::from_ref(name)).await?;
        states.into_iter().next().ok_or_else(|| strange("no state"))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<LockState>> {
        let session = self.link.session().await?;
        let begins = self.link.lock_prefix();
        let pattern = format!("{}{}*", escaped(&begins), escaped(prefix));
        let mut found = BTreeMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys) = self.link.scan(&session, &pattern, &cursor).await?;
            // The server may name a key more than once.
            let names: Vec<LockName> = keys
                .iter()
                .filter_map(|key| LockName::new(key.strip_prefix(&begins)?).ok())
                .filter(|name| name.as_str().starts_with(prefix) && !found.contains_key(name.as_str()))
                .collect();
            for names in names.chunks(LOOKED_AT_ONCE) {
                let states = self.states(&session, names).await?;
                found.extend(states.into_iter().map(|state| (state.name.as_str().to_owned(), state)));
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
        Ok(found.into_values().filter(LockState::is_in_use).collect())
    }

    async fn break_lock(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        self.count(&self.link.scripts().break_lock, name, claim).await
    }

    async fn revoke(&self, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        self.count(&self.link.scripts().revoke, name, claim).await
    }
}

impl RedisBackend {
    /// Does something with all who hold the lock, or with this one. How many they were.
    async fn count(&self, step: &Step, name: &LockName, claim: Option<ClaimId>) -> Result<u32> {
        let mut call = self.call(std::slice::from_ref(name), LockName::as_str);
        call.arguments.push(claim.map(|claim| claim.to_string()).unwrap_or_default());
        let answer = self.about(step, &call, PATIENCE).await?;
        match &answer[..] {
            [count] => count.parse().map_err(|_| strange(count)),
            other => Err(strange(other)),
        }
    }

    async fn states(&self, session: &Session, names: &[LockName]) -> Result<Vec<LockState>> {
        let call = self.call(names, LockName::as_str);
        let step = &self.link.scripts().state;
        match self.link.run(session, step, &call, PATIENCE).await? {
            Value::Array(answers) if answers.len() == names.len() => {
                names.iter().zip(&answers).map(|(name, answer)| state(name, &texts(answer)?)).collect()
            }
            other => Err(strange(other)),
        }
    }
}

/// The text, for a pattern that it matches and nothing else.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// `"<µs until it is due>"`, then a line for each who holds and for each who waits.
fn state(name: &LockName, lines: &[String]) -> Result<LockState> {
    let mut state = LockState::free(name.clone());
    let (first, lines) = lines.split_first().ok_or_else(|| strange("an empty state"))?;
    let not_due_for = record::micros(first).ok_or_else(|| strange(first))?;
    state.not_due_for = (not_due_for > Duration::ZERO).then_some(not_due_for);
    let mut waiters = Vec::new();
    for line in lines {
        let parsed = match line.split_at_checked(2) {
            Some(("H ", rest)) => held_by(rest).map(|held| state.holders.push(held)),
            Some(("W ", rest)) => waiting_for(rest).map(|waiting| waiters.push(waiting)),
            _ => None,
        };
        parsed.ok_or_else(|| strange(line))?;
    }
    state.waiters = Some(waiters);
    Ok(state)
}

/// `"<kind> <weight> <limit> <claim> <first token> <µs to live> <since> <holder>"`.
fn held_by(text: &str) -> Option<HeldBy> {
    let mut words = text.splitn(7, ' ');
    let mut held = HeldBy::new(record::mode(words.next()?, words.next()?, words.next()?)?);
    held.claim = Some(claim(words.next()?)?);
    held.token = Some(FencingToken::new(words.next()?.parse().ok()?)?);
    held.remaining = Some(record::micros(words.next()?)?);
    held.holder = record::decode_holder(words.next()?);
    Some(held)
}

/// `"<kind> <weight> <limit> <claim> <holder>"`.
fn waiting_for(text: &str) -> Option<WaitingFor> {
    let mut words = text.splitn(5, ' ');
    let mut waiting = WaitingFor::new();
    waiting.mode = Some(record::mode(words.next()?, words.next()?, words.next()?)?);
    waiting.claim = Some(claim(words.next()?)?);
    waiting.holder = record::decode_person(words.next()?);
    Some(waiting)
}

fn claim(text: &str) -> Option<ClaimId> {
    u128::from_str_radix(text, 16).ok().map(ClaimId::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_its_text_alone() {
        assert_eq!(escaped(r"a*b?[c]\d"), r"a\*b\?\[c\]\\d");
        assert_eq!(escaped("{ns}:1:l:ü^-"), "{ns}:1:l:ü^-");
    }

    #[test]
    fn nonsense_is_an_error_and_no_state() {
        let name = LockName::new("a").unwrap();
        for lines in [&[][..], &["x"], &["0", "H X"], &["0", "W Y 1 0 0 \u{1f}\u{1f}"], &["0", "ü"]] {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert!(state(&name, &lines).is_err(), "{lines:?}");
        }
    }
}
