//! What guards said about themselves.

use super::Violation;
use crate::history::{Op, Operation, Phase};

/// No guard that was asked after a guard with a higher token had said that it holds, says that it holds.
///
/// Two answers whose calls overlap prove nothing: a process that was stopped inside the call may
/// have had its answer ready long before.
///
/// # Errors
///
/// [`Violation::StaleHolder`].
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
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
    let by_end: Vec<(u64, u64)> = yes.iter().map(|yes| (yes.ended, yes.token)).collect();
    yes.sort_by_key(|yes| yes.operation.invoked);
    let mut ended = by_end.into_iter().peekable();
    let mut highest = 0;
    for yes in yes {
        while let Some((_, token)) = ended.next_if(|(ended, _)| *ended < yes.operation.invoked) {
            highest = highest.max(token);
        }
        if yes.token < highest {
            let lock = yes.operation.lock.clone();
            return Err(Violation::StaleHolder { lock, stale: yes.token, newer: highest });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::scripted::said;

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
}
