//! Which rows a drawing has.

use super::super::data::{Lane, Mark, Timeline};

/// The most that is drawn; what there is beyond that nobody could tell apart.
const MOST: usize = 28;

/// A row.
#[derive(Debug)]
pub(super) enum Row {
    /// What happens to the store, to lines or to messages.
    Faults { on: String, number: u32 },
    /// One `Locks`, or several processes of which each began after the one before it was gone.
    Lanes { lanes: Vec<u32>, processes: Vec<u32>, instance: u32, free_from: Option<u64> },
}

/// All rows, from the top.
pub(super) struct Rows {
    pub(super) all: Vec<Row>,
    /// How many are not drawn.
    pub(super) left_out: usize,
}

impl Rows {
    pub(super) fn of(timeline: &Timeline) -> Self {
        let mut all: Vec<Row> = Vec::new();
        for on in ["store", "messages", "line"] {
            let mut numbers: Vec<u32> =
                timeline.marks.iter().filter(|mark| mark.on == on).map(|mark| mark.number).collect();
            numbers.sort_unstable();
            numbers.dedup();
            all.extend(numbers.into_iter().map(|number| Row::Faults { on: on.to_owned(), number }));
        }
        let mut lanes: Vec<(u32, &Lane)> = (0..).zip(&timeline.lanes).collect();
        lanes.sort_by_key(|(_, lane)| (lane.process, lane.instance));
        for (number, lane) in lanes {
            let free = all.iter_mut().find_map(|row| match row {
                Row::Lanes { lanes, processes, free_from, .. } if lane.process > 0 => {
                    let is_free = free_from.is_some_and(|free_from| free_from <= lane.from);
                    is_free.then_some((lanes, processes, free_from))
                }
                _ => None,
            });
            match free {
                Some((lanes, processes, free_from)) => {
                    lanes.push(number);
                    processes.push(lane.process);
                    *free_from = lane.killed;
                }
                None => all.push(Row::Lanes {
                    lanes: vec![number],
                    processes: vec![lane.process],
                    instance: lane.instance,
                    free_from: lane.killed,
                }),
            }
        }
        let left_out = all.len().saturating_sub(MOST);
        all.truncate(MOST);
        Self { all, left_out }
    }

    /// The row of this lane.
    pub(super) fn row_of(&self, lane: u32) -> Option<usize> {
        self.all.iter().position(|row| matches!(row, Row::Lanes { lanes, .. } if lanes.contains(&lane)))
    }

    /// The row in which this fault is drawn.
    pub(super) fn row_of_mark(&self, mark: &Mark) -> Option<usize> {
        self.all.iter().position(|row| match row {
            Row::Faults { on, number } => *on == mark.on && *number == mark.number,
            Row::Lanes { processes, .. } => mark.on == "process" && processes.contains(&mark.number),
        })
    }
}

impl Row {
    pub(super) fn label(&self) -> String {
        match self {
            Self::Faults { on, number } if on == "line" => format!("line {}", number + 1),
            Self::Faults { on, .. } => on.clone(),
            Self::Lanes { processes, instance, .. } => match &processes[..] {
                [0] => format!("test, Locks {}", instance + 1),
                [one] => format!("process {one}"),
                [first, .., last] => format!("processes {first} … {last}"),
                [] => String::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(process: u32, instance: u32, from: u64, killed: Option<u64>) -> Lane {
        Lane { process, instance, from, killed }
    }

    #[test]
    fn processes_that_follow_each_other_share_a_row() {
        let timeline = Timeline {
            lanes: vec![
                lane(1, 0, 0, Some(10)),
                lane(0, 1, 5, None),
                lane(0, 0, 0, None),
                lane(2, 0, 0, None),
                lane(3, 0, 10, Some(30)),
                lane(4, 0, 31, None),
            ],
            marks: vec![Mark { on: "line".into(), number: 2, name: "x".into(), from: 0, to: None }],
            ..Timeline::default()
        };
        let rows = Rows::of(&timeline);
        let labels: Vec<String> = rows.all.iter().map(Row::label).collect();
        assert_eq!(labels, ["line 3", "test, Locks 1", "test, Locks 2", "processes 1 … 4", "process 2"]);
        assert_eq!((rows.row_of(4), rows.row_of(3), rows.row_of(1)), (Some(3), Some(4), Some(2)));
        assert_eq!(rows.row_of_mark(&timeline.marks[0]), Some(0));
    }
}
