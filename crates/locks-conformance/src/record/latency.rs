//! How long things took, told from holds and faults.

use std::collections::HashMap;

use super::{End, Hold, Lane, Latencies, Mark};

/// The most values of a kind that a record has.
const MOST: usize = 1_000;

/// What holds and marks, both in the order of their beginnings, tell.
pub(super) fn latencies(holds: &[Hold], lanes: &[Lane], marks: &[Mark]) -> Latencies {
    let mut grants: HashMap<u32, Vec<&Hold>> = HashMap::new();
    for hold in holds {
        grants.entry(hold.lock).or_default().push(hold);
    }
    let next_after = |lock: u32, at: u64| {
        let of_lock = grants.get(&lock)?;
        of_lock.get(of_lock.partition_point(|hold| hold.from < at)).copied()
    };
    let mut latencies = Latencies::default();
    for hold in holds {
        let Some(to) = hold.to else { continue };
        match hold.end {
            End::Released if hold.mode.is_none() => {
                let next = next_after(hold.lock, to).filter(|next| next.mode.is_none() && !next.handed_on);
                // Somebody who came later waited for nothing.
                if let Some(next) = next.filter(|next| next.from.saturating_sub(next.waited) < to) {
                    latencies.wake.push(next.from - to);
                }
            }
            End::Lost => {
                let process = lanes.get(hold.lane as usize).map(|lane| lane.process);
                let concerns = |mark: &&Mark| {
                    let in_its_time = mark.from <= to && mark.to.unwrap_or(mark.from) >= hold.from;
                    in_its_time && (mark.on != "process" || Some(mark.number) == process)
                };
                if let Some(fault) = marks.iter().rev().find(concerns) {
                    latencies.loss.push(to - fault.from);
                }
            }
            End::Died => {
                if let Some(next) = next_after(hold.lock, to) {
                    latencies.takeover.push(next.from - to);
                }
            }
            _ => {}
        }
    }
    for values in [&mut latencies.wake, &mut latencies.loss, &mut latencies.takeover] {
        values.sort_unstable();
        thin(values, MOST);
    }
    latencies
}

/// Leaves so many, evenly.
pub(super) fn thin<T: Clone>(values: &mut Vec<T>, most: usize) {
    if values.len() > most {
        let all = std::mem::take(values);
        values.extend((0..most).map(|index| all[index * all.len() / most].clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(from: u64, to: u64, end: End, waited: u64) -> Hold {
        Hold {
            lane: 0,
            lock: 0,
            token: from + 1,
            mode: None,
            from,
            to: Some(to),
            end,
            reason: None,
            waited,
            handed_on: false,
            valid: Vec::new(),
            at_risk: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn mark(on: &str, number: u32, from: u64) -> Mark {
        Mark { on: on.into(), number, name: "x".into(), from, to: None }
    }

    #[test]
    fn only_those_who_waited_were_woken() {
        let holds = [
            hold(0, 10, End::Released, 0),
            hold(13, 20, End::Released, 8),
            hold(90, 95, End::Released, 1),
            hold(96, 99, End::Open, 0),
        ];
        assert_eq!(latencies(&holds, &[], &[]).wake, [3]);
    }

    #[test]
    fn deaths_and_losses_count_from_what_caused_them() {
        let lanes = [Lane { process: 3, instance: 0, from: 0, killed: None }];
        let holds = [hold(0, 10, End::Died, 0), hold(30, 50, End::Lost, 0)];
        let marks =
            [mark("process", 3, 10), mark("line", 0, 35), mark("process", 1, 40), mark("store", 0, 60)];
        let found = latencies(&holds, &lanes, &marks);
        assert_eq!((found.takeover, found.loss, found.wake), (vec![20], vec![15], vec![]));
    }
}
