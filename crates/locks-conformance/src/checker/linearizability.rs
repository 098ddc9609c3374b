//! A search for an order of the operations that one fenced lock could have gone through (Wing and Gong's, with Lowe's memory of
//! configurations already tried).
//!
//! The model: who holds it, under which tokens and how. An acquire needs all others to be such as it can be held beside, by the rules of readers, writers and permits, and a
//! token above every earlier one; an acquire whose outcome nobody knows may have happened at any time since it began, with any token, or never. A release
//! needs it held under its own token, a downgrade needs it held alone under that. An acquire that was refused changes nothing and is left out.

use std::collections::HashSet;

use super::Violation;
use crate::history::{Mode, Op, Operation, Phase};

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

/// An operation that may have changed the lock.
#[derive(Clone, Copy)]
struct Step {
    does: Change,
    invoked: u64,
    /// `u64::MAX` if it may take effect at any later time, or never.
    ended: u64,
    token: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Acquire(Mode),
    Downgrade,
    Release,
}

impl Step {
    fn of(operation: &Operation) -> Option<Self> {
        let does = match operation.op {
            Op::Acquire => Change::Acquire(operation.mode),
            Op::Downgrade => Change::Downgrade,
            Op::Release => Change::Release,
            Op::Check | Op::Observe => return None,
        };
        if operation.outcome == Phase::Fail {
            return None;
        }
        let certain = operation.outcome == Phase::Ok;
        let ended = operation.ended.filter(|_| certain).unwrap_or(u64::MAX);
        Some(Self { does, invoked: operation.invoked, ended, token: operation.token })
    }

    fn is_certain(&self) -> bool {
        self.ended != u64::MAX
    }

    fn acquires(&self) -> bool {
        matches!(self.does, Change::Acquire(_))
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
        held += match step.does {
            Change::Acquire(_) => 1,
            Change::Downgrade => 0,
            Change::Release => -1,
        };
        latest_end = latest_end.max(step.ended);
    }
    if start < steps.len() {
        windows.push(&steps[start..]);
    }
    windows
}

/// The lock between two steps.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    /// Who holds it, in order; the token is `None` if nobody knows it.
    held: Vec<(Option<u64>, Mode)>,
    last: u64,
}

impl State {
    /// The lock after `step`, or `None` if it can't happen now.
    fn after(&self, step: &Step) -> Option<Self> {
        let (mut held, mut last) = (self.held.clone(), self.last);
        let under_its_token =
            || self.held.iter().position(|(token, _)| token.is_some() && *token == step.token);
        match step.does {
            Change::Acquire(mode) => {
                let others = held.iter().map(|(_, mode)| locks_api::Mode::from(*mode));
                if !locks_api::Mode::from(mode).fits_beside(others)
                    || step.token.is_some_and(|token| token <= last)
                {
                    return None;
                }
                last = step.token.unwrap_or(last);
                held.push((step.token, mode));
                held.sort_unstable();
            }
            Change::Downgrade => {
                let at = under_its_token()?;
                (held[at].1 != Mode::Shared).then(|| held[at].1 = Mode::Shared)?;
                held.sort_unstable();
            }
            Change::Release => {
                held.remove(under_its_token()?);
            }
        }
        Some(Self { held, last })
    }
}

struct Search<'a> {
    steps: &'a [Step],
    start: State,
    tried: HashSet<(Vec<u64>, State)>,
}

impl<'a> Search<'a> {
    fn new(steps: &'a [Step], last: u64) -> Self {
        Self { steps, start: State { held: Vec::new(), last }, tried: HashSet::new() }
    }

    /// Depth first, with a stack of its own: a window is longer than a thread's stack is deep.
    fn succeeds(mut self) -> bool {
        struct Level {
            state: State,
            /// What may come next, and how far it was tried.
            candidates: Vec<usize>,
            next: usize,
            /// The step that led here.
            taken: Option<usize>,
        }
        let mut done = vec![0_u64; self.steps.len().div_ceil(64)];
        let mut levels = vec![Level {
            state: self.start.clone(),
            candidates: self.candidates(&done),
            next: 0,
            taken: None,
        }];
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
            let Some(state) = level.state.after(&self.steps[index]) else { continue };
            done[index / 64] |= 1 << (index % 64);
            if self.tried.insert((done.clone(), state.clone())) {
                let candidates = self.candidates(&done);
                levels.push(Level { state, candidates, next: 0, taken: Some(index) });
            } else {
                done[index / 64] &= !(1 << (index % 64));
            }
        }
        false
    }

    /// What may be next: not done yet, and begun before anything else that is not done yet has ended. What gives the lock up comes first, which
    /// changes nothing but the time it takes. An acquire comes after all that surely got lower tokens: they could not follow it.
    fn candidates(&self, done: &[u64]) -> Vec<usize> {
        let open = |index: &usize| done[index / 64] & (1 << (index % 64)) == 0;
        let (mut first_end, mut lowest) = (u64::MAX, u64::MAX);
        for step in (0..self.steps.len()).filter(open).map(|index| &self.steps[index]) {
            first_end = first_end.min(step.ended);
            if let Some(token) = step.token.filter(|_| step.acquires() && step.is_certain()) {
                lowest = lowest.min(token);
            }
        }
        let mut candidates: Vec<usize> = (0..self.steps.len())
            .filter(open)
            .take_while(|index| self.steps[*index].invoked <= first_end)
            .filter(|index| {
                let step = &self.steps[*index];
                !step.acquires() || step.token.is_none_or(|token| token <= lowest)
            })
            .collect();
        candidates.sort_by_key(|index| self.steps[*index].acquires());
        candidates
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
    use crate::checker::scripted::{
        acquire, acquire_as, downgrade, refused, release, unknown_acquire, unknown_release,
    };

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
    #[test]
    fn readers_may_overlap_and_a_writer_may_not() {
        let history = |second: Mode| {
            [
                acquire_as(Mode::Shared, 1, 0, 1, 5),
                acquire_as(second, 2, 2, 3, 6),
                release(1, 4, 5, 5),
                release(2, 6, 7, 6),
            ]
        };
        assert_eq!(check(&history(Mode::Shared)), Ok(()));
        assert!(not_linearizable(&history(Mode::Exclusive)));
        assert!(not_linearizable(&history(Mode::Permits { count: 1, limit: 5 })));
        let mut writer_first = history(Mode::Shared);
        writer_first[0].mode = Mode::Exclusive;
        assert!(not_linearizable(&writer_first));
    }

    #[test]
    fn readers_tokens_must_grow_too() {
        let mut history = [
            acquire_as(Mode::Shared, 1, 0, 1, 5),
            acquire_as(Mode::Shared, 2, 2, 3, 4),
            release(1, 4, 5, 5),
            release(2, 6, 7, 4),
        ];
        assert!(not_linearizable(&history));
        // Two that were under way at the same time may have been granted in either order.
        history[1].invoked = 0;
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn too_many_permits_are_seen() {
        let permits = |count| Mode::Permits { count, limit: 3 };
        let history = |last| {
            [
                acquire_as(permits(1), 1, 0, 1, 5),
                acquire_as(permits(1), 2, 2, 3, 6),
                acquire_as(permits(last), 3, 4, 5, 7),
                release(1, 6, 7, 5),
                release(2, 6, 7, 6),
                release(3, 6, 7, 7),
            ]
        };
        assert_eq!(check(&history(1)), Ok(()));
        assert!(not_linearizable(&history(2)));
        // A release under way may have made room.
        let mut in_time = history(2);
        in_time[3].invoked = 3;
        assert_eq!(check(&in_time), Ok(()));
    }

    #[test]
    fn a_downgrade_lets_readers_in_and_no_writer() {
        let history = |second: Mode| {
            [
                acquire(1, 0, 1, 5),
                downgrade(1, 2, 3, 5),
                acquire_as(second, 2, 4, 5, 6),
                release(1, 6, 7, 5),
                release(2, 8, 9, 6),
            ]
        };
        assert_eq!(check(&history(Mode::Shared)), Ok(()));
        assert!(not_linearizable(&history(Mode::Exclusive)));
        let mut too_early = history(Mode::Shared);
        (too_early[2].invoked, too_early[2].ended) = (1, Some(1));
        (too_early[1].invoked, too_early[1].ended) = (2, Some(3));
        assert!(not_linearizable(&too_early));
        assert!(not_linearizable(&[downgrade(1, 2, 3, 5)]));
    }

    #[test]
    fn contended_stretches_of_permits_end() {
        let mut history = Vec::new();
        for round in 0..150_u64 {
            let client = u32::try_from(round % 8).unwrap();
            let mode = Mode::Permits { count: 1 + client % 3, limit: 24 };
            // Eight at a time, each of which waits for long before it is answered.
            let begin = (round / 8) * 100;
            history.push(acquire_as(mode, client, begin, begin + 50 - round % 8, round + 1));
            history.push(release(client, begin + 60, begin + 99, round + 1));
        }
        assert_eq!(check(&history), Ok(()));
        history[200].mode = Mode::Permits { count: 24, limit: 24 };
        assert!(not_linearizable(&history));
    }
}
