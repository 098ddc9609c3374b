//! What those who watch an election were told.

use std::collections::{HashMap, HashSet};

use super::Violation;
use crate::history::{Op, Operation, Phase};

/// No observer is told of a leader that is older than one it was told of before, or than one that knew that it led before the observer asked; and
/// whoever it is told of was granted the lead.
///
/// # Errors
///
/// [`Violation::Backwards`] or [`Violation::NeverGranted`].
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    let acquired = || operations.iter().filter(|operation| operation.op == Op::Acquire);
    let granted: HashSet<u64> = acquired().filter_map(|grant| grant.token).collect();
    // One that was killed may have led without having said so.
    let all_are_known = acquired().all(|grant| grant.outcome != Phase::Info);
    let mut known: Vec<(u64, u64)> =
        acquired().filter_map(|grant| Some((grant.ended?, grant.token?))).collect();
    known.sort_unstable();
    let mut known = known.into_iter().peekable();
    let mut seen: Vec<&Operation> = operations
        .iter()
        .filter(|operation| operation.op == Op::Observe && operation.outcome == Phase::Ok)
        .collect();
    seen.sort_by_key(|seen| seen.invoked);
    let (mut newest, mut told) = (0, HashMap::new());
    for seen in seen {
        while let Some((_, token)) = known.next_if(|(ended, _)| *ended < seen.invoked) {
            newest = newest.max(token);
        }
        let Some(token) = seen.token else { continue };
        if all_are_known && !granted.contains(&token) {
            return Err(Violation::NeverGranted { lock: seen.lock.clone(), token });
        }
        let last = told.insert(seen.client, token).unwrap_or(0);
        if token < last.max(newest) {
            return Err(Violation::Backwards {
                lock: seen.lock.clone(),
                newer: last.max(newest),
                older: token,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::scripted::{acquire, observed, release, unknown_acquire};

    #[test]
    fn leaders_in_order_pass() {
        let history = [
            observed(8, 0, 1, None),
            acquire(1, 0, 5, 5),
            observed(8, 1, 4, Some(5)),
            observed(9, 3, 30, Some(5)),
            release(1, 6, 7, 5),
            observed(8, 8, 9, None),
            acquire(2, 8, 12, 6),
            observed(8, 11, 20, Some(6)),
            observed(9, 31, 40, Some(6)),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn an_observer_that_goes_back_is_seen() {
        let history = [
            acquire(1, 0, 50, 5),
            acquire(2, 0, 50, 6),
            observed(8, 1, 10, Some(6)),
            observed(9, 11, 12, Some(5)),
            observed(8, 11, 12, Some(5)),
        ];
        assert!(matches!(check(&history), Err(Violation::Backwards { newer: 6, older: 5, .. })));
        assert_eq!(check(&history[..4]), Ok(()));
    }

    #[test]
    fn what_was_over_before_the_question_is_seen() {
        let history =
            [acquire(1, 0, 1, 5), release(1, 2, 3, 5), acquire(2, 4, 5, 6), observed(8, 6, 7, Some(5))];
        assert!(matches!(check(&history), Err(Violation::Backwards { newer: 6, older: 5, .. })));
    }

    #[test]
    fn a_leader_that_never_was_is_seen() {
        let history = [acquire(1, 0, 1, 5), observed(8, 6, 7, Some(6))];
        assert!(matches!(check(&history), Err(Violation::NeverGranted { token: 6, .. })));
        // Unless nobody knows what came of a candidate.
        let killed = [acquire(1, 0, 1, 5), unknown_acquire(2, 2), observed(8, 6, 7, Some(6))];
        assert_eq!(check(&killed), Ok(()));
    }
}
