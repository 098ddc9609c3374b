//! Rounds in which the sides of a comparison take turns.

use std::time::Duration;

use anyhow::Result;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// The median is taken over so many rounds.
    pub(crate) rounds: usize,
    /// Repetitions of something that takes microseconds, per round.
    pub(crate) calls: u32,
    /// Repetitions of something that goes to a server and back, per round.
    pub(crate) trips: u32,
    /// Repetitions of something that starts a process, per round.
    pub(crate) spawns: u32,
    /// How long contenders contend, per round.
    pub(crate) contention: Duration,
    /// How long contenders contend if one side takes its time, per round.
    pub(crate) slow_contention: Duration,
    /// How many wait for a lock at the most.
    pub(crate) waiters: usize,
    /// How often many held locks are renewed while they are looked at.
    pub(crate) renewals: u64,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 9,
        calls: 20_000,
        trips: 2_000,
        spawns: 100,
        contention: Duration::from_millis(1_000),
        slow_contention: Duration::from_millis(1_000),
        waiters: 512,
        renewals: 10,
    };
    pub(crate) const QUICK: Self = Self {
        rounds: 5,
        calls: 500,
        trips: 50,
        spawns: 3,
        contention: Duration::from_millis(100),
        slow_contention: Duration::from_millis(300),
        waiters: 64,
        renewals: 1,
    };
}

/// One side of a comparison: does its work once and says how much time or how much work it was.
pub(crate) type Side<'a> = &'a mut dyn FnMut() -> Result<f64>;

/// Lets the sides take turns, in reversed order every other round, after a turn each that does not count.
/// Returns what each said, round by round.
pub(crate) fn interleaved<const N: usize>(effort: Effort, mut sides: [Side<'_>; N]) -> Result<[Vec<f64>; N]> {
    for side in &mut sides {
        side()?;
    }
    let mut said = [const { Vec::new() }; N];
    for round in 0..effort.rounds {
        for turn in 0..N {
            let side = if round % 2 == 0 { turn } else { N - 1 - turn };
            said[side].push(sides[side]()?);
        }
    }
    Ok(said)
}

/// What a measurement came to over its rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of these values, of which there is at least one.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Self { median, least: sorted[0], most: sorted[sorted.len() - 1] }
    }

    /// Of the ratios round by round.
    pub(crate) fn of_ratios(over: &[f64], under: &[f64]) -> Self {
        Self::of(&over.iter().zip(under).map(|(over, under)| over / under).collect::<Vec<_>>())
    }
}

/// Jain's index of how evenly a good was shared: 1 if all got the same, 1/n if one got all.
pub(crate) fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let squares: f64 = shares.iter().map(|&share| (share as f64).powi(2)).sum();
    if squares == 0.0 { 0.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_and_jain() {
        let spread = Spread::of(&[3.0, 1.0, 2.0, 10.0]);
        assert_eq!(spread, Spread { median: 2.5, least: 1.0, most: 10.0 });
        assert_eq!(Spread::of_ratios(&[4.0, 9.0, 8.0], &[2.0, 3.0, 8.0]).median, 2.0);
        assert_eq!(jain(&[5, 5, 5, 5]), 1.0);
        assert_eq!(jain(&[8, 0, 0, 0]), 0.25);
        assert_eq!(jain(&[0, 0]), 0.0);
    }

    #[test]
    fn sides_take_turns() {
        let order = std::cell::RefCell::new(String::new());
        let turn = |name: char| {
            order.borrow_mut().push(name);
            Ok(f64::from(u32::from(name)))
        };
        let effort = Effort { rounds: 2, ..Effort::QUICK };
        let said = interleaved(effort, [&mut || turn('a'), &mut || turn('b')]).unwrap();
        assert_eq!(*order.borrow(), "ababba");
        assert_eq!(said, [vec![97.0; 2], vec![98.0; 2]]);
    }
}
