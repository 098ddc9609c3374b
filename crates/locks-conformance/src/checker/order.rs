//! Tokens give the order of grants, so most can be told without a search.

use std::collections::HashSet;

use super::{Highest, Violation};
use crate::history::{Mode, Op, Operation, Phase};

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
            // Whether there was such a leader is another question.
            Op::Acquire | Op::Observe => true,
            Op::Release if operation.outcome == Phase::Ok => live.remove(&token),
            Op::Check | Op::Release | Op::Downgrade => granted.contains(&token),
        };
        if !known {
            return Err(Violation::NeverGranted { lock: operation.lock.clone(), token });
        }
    }
    Ok(())
}

/// From the moment an acquire returned to the moment its release began nobody else held the lock who may not hold it beside, and
/// such holds follow each other in the order of their tokens. A hold that nobody saw end counts up to its
/// client's last sign of life; an exclusive one that became shared is that from the moment at which it began to.
///
/// # Errors
///
/// [`Violation::Overlap`] or [`Violation::OverLimit`].
pub fn disjoint(operations: &[Operation]) -> Result<(), Violation> {
    let lock = || operations.first().map(|operation| operation.lock.clone()).unwrap_or_default();
    let mut holds: Vec<Hold> = granted(operations).flat_map(|grant| Hold::of(grant, operations)).collect();
    holds.sort_by_key(|hold| hold.from);
    let mut live: Vec<&Hold> = Vec::new();
    let mut before = Highest::default();
    for hold in &holds {
        live.retain(|other| other.until > hold.from && other.token != hold.token);
        let out_of_order = before.of_those_that_exclude(hold.mode).filter(|first| *first > hold.token);
        let excluded = live.iter().find(|other| !hold.may_be_beside(other)).map(|other| other.token);
        if let Some(first) = excluded.or(out_of_order) {
            return Err(Violation::Overlap { lock: lock(), first, second: hold.token });
        }
        let mode = locks_api::Mode::from(hold.mode);
        if !mode.fits_beside(live.iter().map(|other| other.mode.into())) {
            let others: u32 = live.iter().map(|other| locks_api::Mode::from(other.mode).permits()).sum();
            return Err(Violation::OverLimit {
                lock: lock(),
                token: hold.token,
                permits: others.saturating_add(mode.permits()),
                limit: mode.limit().unwrap_or_default(),
            });
        }
        before.add(hold.mode, hold.token);
        live.push(hold);
    }
    Ok(())
}

/// A time during which a lock was surely held in one mode.
struct Hold {
    token: u64,
    mode: Mode,
    from: u64,
    until: u64,
}

impl Hold {
    /// The hold that began with this grant; two if it was downgraded.
    fn of(grant: &Operation, operations: &[Operation]) -> Vec<Self> {
        let (Some(token), Some(from)) = (grant.token, grant.ended) else { return Vec::new() };
        let under_it =
            |op: Op| operations.iter().filter(move |other| other.token == Some(token) && other.op == op);
        let release = under_it(Op::Release).map(|release| release.invoked).next();
        let last_sign = || under_it(Op::Check).filter_map(|check| check.held?.then_some(check.invoked)).max();
        let until = release.or_else(last_sign).unwrap_or(from);
        let downgrade = under_it(Op::Downgrade).map(|downgrade| downgrade.invoked).next();
        match downgrade.filter(|at| *at <= until) {
            None => vec![Self { token, mode: grant.mode, from, until }],
            Some(at) => vec![
                Self { token, mode: grant.mode, from, until: at },
                Self { token, mode: Mode::Shared, from: at, until },
            ],
        }
    }

    fn may_be_beside(&self, other: &Self) -> bool {
        let (mode, beside) = (locks_api::Mode::from(self.mode), locks_api::Mode::from(other.mode));
        mode.is_compatible(beside) && mode.limit() == beside.limit()
    }
}

fn granted(operations: &[Operation]) -> impl Iterator<Item = &Operation> {
    operations.iter().filter(|operation| operation.op == Op::Acquire && operation.outcome == Phase::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::scripted::{acquire, acquire_as, downgrade, refused, release, said, unknown_release};

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
    fn readers_and_permits_may_overlap_and_writers_may_not() {
        let read = |client, from, until, token| {
            [
                acquire_as(Mode::Shared, client, from, from + 1, token),
                release(client, until, until + 1, token),
            ]
        };
        let write = |client, from, until, token| {
            [acquire(client, from, from + 1, token), release(client, until, until + 1, token)]
        };
        let good = [read(1, 0, 20, 1), read(2, 5, 30, 2), write(3, 31, 40, 3), read(1, 50, 60, 4)].concat();
        assert_eq!(disjoint(&good), Ok(()));
        // Answers may come in another order than grants.
        assert_eq!(disjoint(&[read(1, 5, 20, 1), read(2, 0, 30, 2)].concat()), Ok(()));
        for bad in [
            [read(1, 0, 20, 1), write(2, 10, 30, 2)],
            [write(1, 0, 20, 1), read(2, 10, 30, 2)],
            [read(1, 0, 5, 2), write(2, 10, 30, 1)],
        ] {
            assert!(matches!(disjoint(&bad.concat()), Err(Violation::Overlap { .. })), "{bad:?}");
        }
    }

    #[test]
    fn one_reader_that_outlasts_others_still_counts() {
        let history = [
            acquire_as(Mode::Shared, 1, 0, 1, 1),
            acquire_as(Mode::Shared, 2, 2, 3, 2),
            release(2, 4, 5, 2),
            acquire(3, 6, 7, 3),
            release(3, 8, 9, 3),
            release(1, 20, 21, 1),
        ];
        assert!(matches!(disjoint(&history), Err(Violation::Overlap { first: 1, second: 3, .. })));
    }

    #[test]
    fn a_downgraded_writer_is_a_reader_from_then_on() {
        let history = |reader_from| {
            [
                acquire(1, 0, 1, 1),
                downgrade(1, 10, 12, 1),
                acquire_as(Mode::Shared, 2, 2, reader_from, 2),
                release(2, 20, 21, 2),
                release(1, 30, 31, 1),
            ]
        };
        assert_eq!(disjoint(&history(11)), Ok(()));
        assert!(matches!(disjoint(&history(9)), Err(Violation::Overlap { .. })));
        let mut writer = history(11);
        writer[2].mode = Mode::Exclusive;
        assert!(matches!(disjoint(&writer), Err(Violation::Overlap { first: 1, second: 2, .. })));
    }

    #[test]
    fn too_many_permits_are_seen() {
        let permits = |count, limit| Mode::Permits { count, limit };
        let history = |last, limit| {
            [
                acquire_as(permits(2, 5), 1, 0, 1, 1),
                acquire_as(permits(2, 5), 2, 2, 3, 2),
                acquire_as(permits(last, limit), 3, 4, 5, 3),
                release(1, 10, 11, 1),
            ]
            .into_iter()
            .chain([release(2, 12, 13, 2), release(3, 14, 15, 3)])
            .collect::<Vec<_>>()
        };
        assert_eq!(disjoint(&history(1, 5)), Ok(()));
        let seen = disjoint(&history(2, 5));
        assert!(matches!(seen, Err(Violation::OverLimit { permits: 6, limit: 5, token: 3, .. })), "{seen:?}");
        assert!(matches!(disjoint(&history(1, 6)), Err(Violation::Overlap { .. })));
        let mut writer = history(1, 5);
        writer[2].mode = Mode::Exclusive;
        assert!(matches!(disjoint(&writer), Err(Violation::Overlap { .. })));
    }

    #[test]
    fn what_was_never_granted_is_seen() {
        assert!(matches!(provenance(&[release(1, 0, 1, 5)]), Err(Violation::NeverGranted { token: 5, .. })));
        let twice = [acquire(1, 0, 1, 5), release(1, 2, 3, 5), release(1, 4, 5, 5)];
        assert!(matches!(provenance(&twice), Err(Violation::NeverGranted { token: 5, .. })));
        assert!(matches!(provenance(&[said(1, 0, 1, 5, false)]), Err(Violation::NeverGranted { .. })));
    }
}
