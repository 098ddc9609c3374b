//! What guards said about themselves.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Highest, Violation};
use crate::history::{Mode, Op, Operation, Phase};

/// No guard that was asked after a guard with a higher token had said that it holds, says that it holds, unless the two may hold together.
///
/// Two answers whose calls overlap prove nothing: a process that was stopped inside the call may
/// have had its answer ready long before.
///
/// # Errors
///
/// [`Violation::StaleHolder`].
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    check_late(operations, Duration::ZERO)
}

/// The same where a guard may hear of its end so much later than somebody else gets the lock.
///
/// # Errors
///
/// [`Violation::StaleHolder`].
pub fn check_late(operations: &[Operation], late: Duration) -> Result<(), Violation> {
    let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
    struct Yes<'a> {
        operation: &'a Operation,
        token: u64,
        ended: u64,
    }
    let mut yes: Vec<Yes<'_>> = operations
        .iter()
        .filter(|operation| operation.op == Op::Check && operation.outcome == Phase::Ok)
        .filter(|operation| operation.held == Some(true))
        .filter_map(|operation| Some(Yes { operation, token: operation.token?, ended: operation.ended? }))
        .collect();
    yes.sort_by_key(|yes| yes.ended);
    let modes = Modes::of(operations);
    let by_end: Vec<(u64, u64)> = yes.iter().map(|yes| (yes.ended, yes.token)).collect();
    yes.sort_by_key(|yes| yes.operation.invoked);
    let mut ended = by_end.into_iter().peekable();
    let mut before = Highest::default();
    for yes in yes {
        while let Some((_, token)) =
            ended.next_if(|(ended, _)| ended.saturating_add(late) < yes.operation.invoked)
        {
            before.add(modes.granted(token), token);
        }
        let newer = before.of_those_that_exclude(modes.last(yes.token));
        if let Some(newer) = newer.filter(|newer| yes.token < *newer) {
            let lock = yes.operation.lock.clone();
            return Err(Violation::StaleHolder { lock, stale: yes.token, newer });
        }
    }
    Ok(())
}

/// How the holds under each token were held.
struct Modes {
    granted: HashMap<u64, Mode>,
    downgraded: HashSet<u64>,
}

impl Modes {
    fn of(operations: &[Operation]) -> Self {
        let with_token = |op: Op| {
            operations
                .iter()
                .filter(move |other| other.op == op)
                .filter_map(|other| Some((other.token?, other)))
        };
        let granted = with_token(Op::Acquire).map(|(token, grant)| (token, grant.mode)).collect();
        let downgraded = with_token(Op::Downgrade).map(|(token, _)| token).collect();
        Self { granted, downgraded }
    }

    /// Nobody got in beside it who could not hold beside this.
    fn granted(&self, token: u64) -> Mode {
        self.granted.get(&token).copied().unwrap_or_default()
    }

    /// Whoever can hold beside this may have got in since.
    fn last(&self, token: u64) -> Mode {
        if self.downgraded.contains(&token) { Mode::Shared } else { self.granted(token) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::scripted::{acquire, acquire_as, downgrade, said};

    #[test]
    fn answers_in_the_order_of_tokens_pass() {
        let history = [said(1, 0, 1, 5, true), said(2, 2, 3, 6, true), said(1, 4, 5, 5, false)];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn an_answer_that_was_long_under_way_proves_nothing() {
        assert_eq!(check(&[said(1, 0, 90, 5, true), said(2, 10, 20, 6, true)]), Ok(()));
    }

    #[test]
    fn a_guard_that_outlives_its_successors_word_is_seen() {
        let history = [said(2, 0, 1, 6, true), said(1, 2, 3, 5, true)];
        assert!(matches!(check(&history), Err(Violation::StaleHolder { stale: 5, newer: 6, .. })));
        let nested = [said(3, 0, 9, 4, true), said(2, 1, 2, 6, true), said(1, 3, 4, 5, true)];
        assert!(matches!(check(&nested), Err(Violation::StaleHolder { stale: 5, newer: 6, .. })));
    }

    #[test]
    fn a_guard_may_be_late_and_no_later() {
        let history = [said(2, 0, 1, 6, true), said(1, 12, 13, 5, true)];
        assert_eq!(check_late(&history, Duration::from_nanos(11)), Ok(()));
        assert!(check_late(&history, Duration::from_nanos(10)).is_err());
    }

    #[test]
    fn readers_say_so_beside_each_other_and_not_beside_a_writer() {
        let reader = |client, token| acquire_as(Mode::Shared, client, 0, 1, token);
        let answers = [said(2, 10, 11, 6, true), said(1, 12, 13, 5, true)];
        let together = [vec![reader(1, 5), reader(2, 6)], answers.to_vec()].concat();
        assert_eq!(check(&together), Ok(()));
        let beside_a_writer = [vec![reader(1, 5), acquire(2, 0, 1, 6)], answers.to_vec()].concat();
        assert!(matches!(check(&beside_a_writer), Err(Violation::StaleHolder { stale: 5, newer: 6, .. })));
        let a_stale_writer = [vec![acquire(1, 0, 1, 5), reader(2, 6)], answers.to_vec()].concat();
        assert!(matches!(check(&a_stale_writer), Err(Violation::StaleHolder { stale: 5, newer: 6, .. })));
        let downgraded = [vec![acquire(1, 0, 1, 5), downgrade(1, 2, 3, 5), reader(2, 6)], answers.to_vec()];
        assert_eq!(check(&downgraded.concat()), Ok(()));
    }
}
