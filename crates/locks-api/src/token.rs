//! Fencing tokens and the blocks in which stores hand them out.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

/// A number that grows with every grant of one lock, over crashes and restarts of holders and stores.
///
/// Send it along with every write to the resource that the lock protects and let the resource refuse
/// smaller ones (see [`FenceGate`](crate::FenceGate)): a holder that was paused past its deadline then can't harm anything.
/// Tokens of different locks can't be compared. A token is never zero and fits in 53 bits, so it
/// survives JSON and Lua.
///
/// ```
/// use locks_api::FencingToken;
///
/// let token = FencingToken::new(7).unwrap();
/// assert_eq!(token.get(), 7);
/// assert_eq!(token.to_string(), "7");
/// assert_eq!(FencingToken::new(0), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(NonZeroU64);

impl FencingToken {
    /// The largest token: 2⁵³ − 1. Microseconds since 1970 reach it in the year 2255.
    pub const MAX: Self = Self(NonZeroU64::new((1 << 53) - 1).expect("not zero"));

    /// The token with this number, or `None` if it is zero or above [`FencingToken::MAX`].
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) if number.get() <= Self::MAX.0.get() => Some(Self(number)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The run of consecutive tokens that belongs to one grant of a store.
///
/// The first token goes to the first guard; each hand-on inside the process takes the next one, so
/// that hand-ons number themselves without a round trip. The store's next grant starts above the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBlock {
    first: FencingToken,
    len: NonZeroU32,
}

impl TokenBlock {
    /// The most tokens that one grant takes.
    pub const MAX_LEN: u32 = 64;

    /// The block of `len` tokens that starts at `first`, or `None` if it is empty, longer than
    /// [`TokenBlock::MAX_LEN`] or runs past [`FencingToken::MAX`].
    pub const fn new(first: FencingToken, len: u32) -> Option<Self> {
        let Some(nonzero) = NonZeroU32::new(len) else { return None };
        if len > Self::MAX_LEN || first.get() + (len as u64 - 1) > FencingToken::MAX.get() {
            return None;
        }
        Some(Self { first, len: nonzero })
    }

    /// The block that follows `counter`, the last token ever handed out for the lock, when the store's clock
    /// shows `clock_micros` (µs since 1970): as long as it may be without passing the clock, and one token at least.
    ///
    /// No token exceeds the store's clock at its grant unless the counter already did. So a store that lost a
    /// counter goes on at [`TokenBlock::without_counter`] and never issues a token twice, as long as its clock
    /// is not behind the last grant. `None` once the tokens are used up (year 2255).
    ///
    /// ```
    /// use locks_api::spi::TokenBlock;
    ///
    /// let block = TokenBlock::after(1_000, 2_000).unwrap();
    /// assert_eq!((block.first().get(), block.len()), (1_001, 64));
    /// let close = TokenBlock::after(1_997, 2_000).unwrap();
    /// assert_eq!((close.first().get(), close.len()), (1_998, 3));
    /// let ahead = TokenBlock::after(9_000, 2_000).unwrap();
    /// assert_eq!((ahead.first().get(), ahead.len()), (9_001, 1));
    /// ```
    pub fn after(counter: u64, clock_micros: u64) -> Option<Self> {
        let room = clock_micros.saturating_sub(counter).clamp(1, u64::from(Self::MAX_LEN));
        let first = FencingToken::new(counter.checked_add(1)?)?;
        Self::new(first, u32::try_from(room).ok()?)
    }

    /// The block of a lock whose counter is missing, or was written in an earlier epoch and ended at `counter`:
    /// it starts at the clock, above everything that the lost counter can have handed out.
    ///
    /// ```
    /// use locks_api::spi::TokenBlock;
    ///
    /// let fresh = TokenBlock::without_counter(None, 2_000).unwrap();
    /// assert_eq!((fresh.first().get(), fresh.len()), (2_000, 1));
    /// let old_epoch = TokenBlock::without_counter(Some(9_000), 2_000).unwrap();
    /// assert_eq!(old_epoch.first().get(), 9_001);
    /// ```
    pub fn without_counter(counter: Option<u64>, clock_micros: u64) -> Option<Self> {
        let next = counter.unwrap_or(0).checked_add(1)?;
        Self::new(FencingToken::new(next.max(clock_micros))?, 1)
    }

    /// The first token.
    pub const fn first(&self) -> FencingToken {
        self.first
    }

    /// The last token: what the store's counter shows after the grant.
    pub fn last(&self) -> FencingToken {
        self.nth(self.len.get() - 1).unwrap_or(self.first)
    }

    /// How many tokens the block has: 1 to [`TokenBlock::MAX_LEN`].
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub const fn len(&self) -> u32 {
        self.len.get()
    }

    /// The token at `index`, counted from 0, or `None` past the end.
    pub fn nth(&self, index: u32) -> Option<FencingToken> {
        if index >= self.len.get() {
            return None;
        }
        FencingToken::new(self.first.get() + u64::from(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_never_passes_the_clock_and_never_goes_back() {
        let mut counter = 0;
        let mut clock = 10;
        for step in 0..10_000_u64 {
            clock += step % 7;
            let block = TokenBlock::after(counter, clock).unwrap();
            assert!(block.first().get() > counter);
            assert!(block.last().get() <= clock.max(counter + 1));
            counter = block.last().get();
        }
    }

    #[test]
    fn blocks_end_at_the_largest_token() {
        assert!(TokenBlock::new(FencingToken::MAX, 1).is_some());
        assert!(TokenBlock::new(FencingToken::MAX, 2).is_none());
        assert!(TokenBlock::new(FencingToken::new(1).unwrap(), 0).is_none());
        assert!(TokenBlock::new(FencingToken::new(1).unwrap(), 65).is_none());
        assert!(TokenBlock::after(FencingToken::MAX.get(), 1).is_none());
    }
}
