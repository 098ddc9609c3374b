//! A search for an order of the operations that one fenced mutex could have gone through (Wing and Gong's, with Lowe's memory of
//! configurations already tried).
//!
//! The model: free, or held under one token. An acquire needs it free and a token above every earlier one; an acquire whose
//! outcome nobody knows may have happened at any time since it began, with any token, or never. A release
//! needs it held under its own token. An acquire that was refused changes nothing and is left out.

use std::collections::HashSet;

use super::Violation;
use crate::history::{Op, Operation, Phase};

/// The most operations that a stretch without a quiet moment may have.
pub const MAX_WINDOW: usize = 2_000;

/// Searches each stretch between two quiet moments, in which nobody holds the lock and nothing is under way, on its own.
///
/// # Errors
///
/// [`Violation::NotLinearizable`] or [`Violation::TooLong`].
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    let mut steps: Vec<Step> = operations.iter().filter_map(Step::of).collect();
    steps.sort_by_key(|step| step.invoked);
    let mut last = 0;
    for window in windows(&steps) {
        let lock = || operations.first().map(|operation| operation.lock.clone()).unwrap_or_default();
        if window.len() > MAX_WINDOW {
            return Err(Violation::TooLong { lock: lock(), operations: window.len() });
        }
        if !Search::new(window, last).succeeds() {
            return Err(Violation::NotLinearizable { lock: lock(), operations: window.len() });
        }
        last = window.iter().filter_map(|step| step.token).fold(last, u64::max);
    }
    Ok(())
}

/// An operation that may have changed the mutex.
#[derive(Clone, Copy)]
struct Step {
    acquires: bool,
    invoked: u64,
    /// `u64::MAX` if it may take effect at any later time, or never.
    ended: u64,
    token: Option<u64>,
}

impl Step {
    fn of(operation: &Operation) -> Option<Self> {
        let acquires = match operation.op {
            Op::Acquire => true,
            Op::Release => false,
            Op::Check => return None,
        };
        if operation.outcome == Phase::Fail {
            return None;
        }
        let certain = operation.outcome == Phase::Ok;
        let ended = operation.ended.filter(|_| certain).unwrap_or(u64::MAX);
        Some(Self { acquires, invoked: operation.invoked, ended, token: operation.token })
    }

    fn is_certain(&self) -> bool {
        self.ended != u64::MAX
    }
}

/// Cuts before each step at whose beginning every earlier acquire is released and every earlier step is over.
fn windows(steps: &[Step]) -> Vec<&[Step]> {
    let mut windows = Vec::new();
    let (mut start, mut held, mut latest_end) = (0, 0_i64, 0);
    for (index, step) in steps.iter().enumerate() {
        if index > start && held == 0 && latest_end < step.invoked {
            windows.push(&steps[start..index]);
            start = index;
        }
        held += if step.acquires { 1 } else { -1 };
        latest_end = latest_end.max(step.ended);
    }
    if start < steps.len() {
        windows.push(&steps[start..]);
    }
    windows
}

/// The mutex between two steps.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Mutex {
    Free {
        last: u64,
    },
    /// `None` for a holder whose token nobody knows.
    Held {
        token: Option<u64>,
        last: u64,
    },
}

impl Mutex {
    /// The mutex after `step`, or `None` if it can't happen now.
    fn after(self, step: &Step) -> Option<Self> {
        match (self, step.acquires) {
            (Self::Free { last }, true) => match step.token {
                Some(token) if token > last => Some(Self::Held { token: Some(token), last: token }),
                Some(_) => None,
                None => Some(Self::Held { token: None, last }),
            },
            (Self::Held { token, last }, false) if token == step.token => Some(Self::Free { last }),
            _ => None,
        }
    }
}

struct Search<'a> {
    steps: &'a [Step],
    start: Mutex,
    tried: HashSet<(Vec<u64>, Mutex)>,
}

impl<'a> Search<'a> {
    fn new(steps: &'a [Step], last: u64) -> Self {
        Self { steps, start: Mutex::Free { last }, tried: HashSet::new() }
    }

    /// Depth first, with a stack of its own: a window is longer than a thread's stack is deep.
    fn succeeds(mut self) -> bool {
        struct Level {
            mutex: Mutex,
            /// What may come next, and how far it was tried.
            candidates: Vec<usize>,
            next: usize,
            /// The step that led here.
            taken: Option<usize>,
        }
        let mut done = vec![0_u64; self.steps.len().div_ceil(64)];
        let mut levels =
            vec![Level { mutex: self.start, candidates: self.candidates(&done), next: 0, taken: None }];
        while let Some(level) = levels.last_mut() {
            if self.all_certain_done(&done) {
                return true;
            }
            let Some(&index) = level.candidates.get(level.next) else {
                if let Some(taken) = level.taken {
                    done[taken / 64] &= !(1 << (taken % 64));
                }
                levels.pop();
                continue;
            };
            level.next += 1;
            let Some(mutex) = level.mutex.after(&self.steps[index]) else { continue };
            done[index / 64] |= 1 << (index % 64);
            if self.tried.insert((done.clone(), mutex)) {
                let candidates = self.candidates(&done);
                levels.push(Level { mutex, candidates, next: 0, taken: Some(index) });
            } else {
                done[index / 64] &= !(1 << (index % 64));
            }
        }
        false
    }

    /// What may be next: not done yet, and begun before anything else that is not done yet has ended. Likely ones come
    /// first, which changes nothing but the time it takes: releases, then acquires in the order of their tokens.
    fn candidates(&self, done: &[u64]) -> Vec<usize> {
        let open = |index: &usize| done[index / 64] & (1 << (index % 64)) == 0;
        let first_end = (0..self.steps.len()).filter(open).map(|index| self.steps[index].ended).min();
        let first_end = first_end.unwrap_or(u64::MAX);
        (0..self.steps.len())
            .filter(open)
            .take_while(|index| self.steps[*index].invoked <= first_end)
            .collect()
    }

    /// Steps of unknown outcome may never have happened.
    fn all_certain_done(&self, done: &[u64]) -> bool {
        let open = |index: usize| done[index / 64] & (1 << (index % 64)) == 0;
        self.steps.iter().enumerate().all(|(index, step)| !step.is_certain() || !open(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::scripted::{acquire, refused, release, unknown_acquire, unknown_release};

    fn not_linearizable(history: &[Operation]) -> bool {
        matches!(check(history), Err(Violation::NotLinearizable { .. }))
    }

    #[test]
    fn one_after_the_other_passes() {
        let history = [
            acquire(1, 0, 1, 5),
            refused(2, 1, 2),
            release(1, 2, 3, 5),
            acquire(2, 4, 5, 6),
            release(2, 6, 7, 6),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_release_under_way_may_have_let_the_next_in() {
        let history = [acquire(1, 0, 1, 5), release(1, 2, 9, 5), acquire(2, 3, 4, 6), release(2, 10, 11, 6)];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn two_holders_are_seen() {
        let history = [acquire(1, 0, 1, 5), acquire(2, 2, 3, 6), release(1, 4, 5, 5), release(2, 6, 7, 6)];
        assert!(not_linearizable(&history));
    }

    #[test]
    fn two_holders_are_seen_even_if_one_never_released() {
        assert!(not_linearizable(&[acquire(1, 0, 1, 5), acquire(2, 2, 3, 6)]));
    }

    #[test]
    fn a_release_of_unknown_outcome_may_or_may_not_have_happened() {
        assert_eq!(check(&[acquire(1, 0, 1, 5), unknown_release(1, 2, 5), acquire(2, 3, 4, 6)]), Ok(()));
        assert_eq!(check(&[acquire(1, 0, 1, 5), unknown_release(1, 2, 5)]), Ok(()));
        assert!(not_linearizable(&[acquire(1, 0, 1, 5), acquire(2, 2, 3, 6), unknown_release(1, 4, 5)]));
    }

    #[test]
    fn an_acquire_of_unknown_outcome_may_or_may_not_have_happened() {
        let history = [unknown_acquire(1, 0), acquire(2, 1, 2, 5), release(2, 3, 4, 5)];
        assert_eq!(check(&history), Ok(()));
        assert_eq!(check(&[unknown_acquire(1, 0)]), Ok(()));
    }

    #[test]
    fn a_token_that_goes_back_is_seen_across_quiet_moments() {
        let history =
            [acquire(1, 0, 1, 5), release(1, 2, 3, 5), acquire(2, 10, 11, 4), release(2, 12, 13, 4)];
        assert!(not_linearizable(&history));
    }

    #[test]
    fn the_release_of_somebody_elses_hold_is_seen() {
        assert!(not_linearizable(&[acquire(1, 0, 1, 5), release(2, 2, 3, 4)]));
        assert!(not_linearizable(&[release(2, 2, 3, 4)]));
    }

    #[test]
    fn quiet_moments_cut_the_history() {
        let history =
            [acquire(1, 0, 1, 5), release(1, 2, 3, 5), acquire(2, 10, 11, 6), release(2, 12, 13, 6)];
        let steps: Vec<Step> = history.iter().filter_map(Step::of).collect();
        assert_eq!(windows(&steps).iter().map(|window| window.len()).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn contended_stretches_of_many_clients_end() {
        let mut history = Vec::new();
        for round in 0..100_u64 {
            let client = u32::try_from(round % 10).unwrap();
            let begin = (round * 10).saturating_sub(95);
            history.push(acquire(client, begin, round * 10 + 5, round + 1));
            history.push(release(client, round * 10 + 6, round * 10 + 12, round + 1));
        }
        assert_eq!(check(&history), Ok(()));
        history[101].token = Some(2);
        assert!(not_linearizable(&history));
    }
}
