//! Tokens give the order of grants, so most can be told without a search.

use std::collections::HashSet;

use super::Violation;
use crate::history::{Op, Operation, Phase};

/// Tokens are unique, and grow in real time: what was granted before another acquire began has the lower token.
///
/// # Errors
///
/// [`Violation::TokenReused`], [`Violation::TokenOrder`] or [`Violation::Unidentified`].
pub fn tokens(operations: &[Operation]) -> Result<(), Violation> {
    let mut grants = Vec::new();
    for grant in granted(operations) {
        let (Some(token), Some(_)) = (grant.token, &grant.claim) else {
            return Err(Violation::Unidentified { lock: grant.lock.clone() });
        };
        grants.push((grant, token, grant.ended.unwrap_or(u64::MAX)));
    }
    let mut seen = HashSet::new();
    if let Some((grant, token, _)) = grants.iter().find(|(_, token, _)| !seen.insert(*token)) {
        return Err(Violation::TokenReused { lock: grant.lock.clone(), token: *token });
    }

    let mut by_begin: Vec<_> = grants.iter().collect();
    by_begin.sort_by_key(|(grant, ..)| grant.invoked);
    let mut by_end: Vec<_> = grants.iter().collect();
    by_end.sort_by_key(|(_, _, ended)| *ended);
    let mut ended = by_end.into_iter().peekable();
    let mut highest = 0;
    for (grant, token, _) in by_begin {
        while let Some((_, earlier, _)) = ended.next_if(|(_, _, ended)| *ended < grant.invoked) {
            highest = highest.max(*earlier);
        }
        if *token <= highest {
            return Err(Violation::TokenOrder { lock: grant.lock.clone(), earlier: highest, later: *token });
        }
    }
    Ok(())
}

/// Whatever is released or checked was granted before, and released once at most.
///
/// # Errors
///
/// [`Violation::NeverGranted`], also for a second successful release.
pub fn provenance(operations: &[Operation]) -> Result<(), Violation> {
    let mut live: HashSet<u64> = granted(operations).filter_map(|grant| grant.token).collect();
    let granted = live.clone();
    for operation in operations {
        let Some(token) = operation.token else { continue };
        let known = match operation.op {
            Op::Acquire => true,
            Op::Check => granted.contains(&token),
            Op::Release if operation.outcome == Phase::Ok => live.remove(&token),
            Op::Release => granted.contains(&token),
        };
        if !known {
            return Err(Violation::NeverGranted { lock: operation.lock.clone(), token });
        }
    }
    Ok(())
}

/// From the moment an acquire returned to the moment its release began nobody else held the lock, and
/// holds follow each other in the order of their tokens. A hold that nobody saw end counts up to its
/// client's last sign of life.
///
/// # Errors
///
/// [`Violation::Overlap`].
pub fn disjoint(operations: &[Operation]) -> Result<(), Violation> {
    struct Hold {
        token: u64,
        from: u64,
        until: u64,
    }
    let mut holds: Vec<Hold> = granted(operations)
        .filter_map(|grant| {
            let (token, from) = (grant.token?, grant.ended?);
            let under_it =
                || operations.iter().filter(|other| other.token == Some(token) && other.op != Op::Acquire);
            let release = under_it().find(|other| other.op == Op::Release).map(|release| release.invoked);
            let last_sign = || under_it().filter_map(|check| check.held?.then_some(check.invoked)).max();
            Some(Hold { token, from, until: release.or_else(last_sign).unwrap_or(from) })
        })
        .collect();
    holds.sort_by_key(|hold| hold.from);
    for pair in holds.windows(2) {
        if pair[0].until > pair[1].from || pair[0].token > pair[1].token {
            let lock = operations.first().map(|operation| operation.lock.clone()).unwrap_or_default();
            return Err(Violation::Overlap { lock, first: pair[0].token, second: pair[1].token });
        }
    }
    Ok(())
}

fn granted(operations: &[Operation]) -> impl Iterator<Item = &Operation> {
    operations.iter().filter(|operation| operation.op == Op::Acquire && operation.outcome == Phase::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::scripted::{acquire, refused, release, said, unknown_release};

    #[test]
    fn a_good_history_passes() {
        let history = [
            acquire(1, 0, 10, 5),
            refused(2, 11, 12),
            release(1, 20, 30, 5),
            acquire(2, 15, 25, 9),
            said(2, 26, 27, 9, true),
            release(2, 40, 50, 9),
            acquire(1, 45, 60, 10),
        ];
        assert_eq!(tokens(&history), Ok(()));
        assert_eq!(provenance(&history), Ok(()));
        assert_eq!(disjoint(&history), Ok(()));
    }

    #[test]
    fn tokens_that_overlap_in_time_may_come_in_any_order() {
        assert_eq!(tokens(&[acquire(1, 0, 10, 9), acquire(2, 5, 20, 5)]), Ok(()));
    }

    #[test]
    fn a_reused_token_is_seen() {
        let history = [acquire(1, 0, 1, 5), release(1, 2, 3, 5), acquire(2, 4, 5, 5)];
        assert!(matches!(tokens(&history), Err(Violation::TokenReused { token: 5, .. })));
    }

    #[test]
    fn a_token_that_goes_back_is_seen_even_across_others() {
        let history = [acquire(1, 0, 1, 7), acquire(2, 0, 90, 8), acquire(3, 4, 5, 6)];
        assert!(matches!(tokens(&history), Err(Violation::TokenOrder { earlier: 7, later: 6, .. })));
    }

    #[test]
    fn a_grant_without_a_claim_is_seen() {
        let mut grant = acquire(1, 0, 1, 7);
        grant.claim = None;
        assert!(matches!(tokens(&[grant]), Err(Violation::Unidentified { .. })));
    }

    #[test]
    fn overlapping_holds_are_seen() {
        let history = [acquire(1, 0, 1, 5), acquire(2, 2, 3, 6), release(1, 4, 5, 5), release(2, 6, 7, 6)];
        assert!(matches!(disjoint(&history), Err(Violation::Overlap { first: 5, second: 6, .. })));
    }

    #[test]
    fn a_hold_whose_end_nobody_saw_counts_up_to_its_last_sign() {
        let silent = [acquire(1, 0, 1, 5), acquire(2, 2, 3, 6)];
        assert_eq!(disjoint(&silent), Ok(()));
        let alive = [acquire(1, 0, 1, 5), acquire(2, 2, 3, 6), said(1, 4, 5, 5, true)];
        assert!(matches!(disjoint(&alive), Err(Violation::Overlap { .. })));
        let tried = [acquire(1, 0, 1, 5), acquire(2, 2, 3, 6), unknown_release(1, 4, 5)];
        assert!(matches!(disjoint(&tried), Err(Violation::Overlap { .. })));
    }

    #[test]
    fn holds_against_the_order_of_tokens_are_seen() {
        let history = [acquire(1, 0, 1, 6), release(1, 2, 9, 6), acquire(2, 0, 3, 5)];
        assert!(matches!(disjoint(&history), Err(Violation::Overlap { first: 6, second: 5, .. })));
    }

    #[test]
    fn what_was_never_granted_is_seen() {
        assert!(matches!(provenance(&[release(1, 0, 1, 5)]), Err(Violation::NeverGranted { token: 5, .. })));
        let twice = [acquire(1, 0, 1, 5), release(1, 2, 3, 5), release(1, 4, 5, 5)];
        assert!(matches!(provenance(&twice), Err(Violation::NeverGranted { token: 5, .. })));
        assert!(matches!(provenance(&[said(1, 0, 1, 5, false)]), Err(Violation::NeverGranted { .. })));
    }
}
