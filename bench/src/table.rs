//! The table of results: one row for each goal, with what was measured and whether it holds.

use std::fmt;
use std::fs;

use rustix::system::uname;

use crate::rounds::Spread;

/// What a value has to be.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Shown beside the others for comparison.
    None,
}

/// What a value counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Times,
    MiB,
    Number,
}

/// All results so far.
#[derive(Default)]
pub(crate) struct Table {
    cores: String,
    rows: Vec<Row>,
    notes: Vec<String>,
    overlaps: u64,
}

struct Row {
    what: String,
    cores: String,
    goal: Goal,
    unit: Unit,
    value: Spread,
}

impl Table {
    /// The rows from here on were measured on these cores.
    pub(crate) fn on(&mut self, cores: String) {
        self.cores = cores;
    }

    /// Adds a row and shows it at once.
    pub(crate) fn row(&mut self, what: impl Into<String>, goal: Goal, unit: Unit, value: Spread) {
        let row = Row { what: what.into(), cores: self.cores.clone(), goal, unit, value };
        eprintln!("{row}");
        self.rows.push(row);
    }

    /// Says something below the rows, once.
    pub(crate) fn note(&mut self, note: &str) {
        if !self.notes.iter().any(|said| said == note) {
            self.notes.push(note.to_owned());
        }
    }

    /// Adds to the number of times that two held the same lock.
    pub(crate) fn count_overlaps(&mut self, overlaps: u64) {
        self.overlaps += overlaps;
    }

    pub(crate) fn overlaps(&self) -> u64 {
        self.overlaps
    }
}

impl Row {
    fn amount(&self, value: f64) -> String {
        match self.unit {
            Unit::Times => format!("{value:.2} ×"),
            Unit::MiB => format!("{value:.2} MiB"),
            Unit::Number => format!("{value:.3}"),
        }
    }

    fn verdict(&self) -> &'static str {
        let holds = match self.goal {
            Goal::AtMost(most) => self.value.median <= most,
            Goal::AtLeast(least) => self.value.median >= least,
            Goal::None => return "",
        };
        if holds { "holds" } else { "**falls short**" }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goal = match self.goal {
            Goal::AtMost(most) => format!("≤ {}", self.amount(most)),
            Goal::AtLeast(least) => format!("≥ {}", self.amount(least)),
            Goal::None => "–".to_owned(),
        };
        let Spread { median, least, most } = self.value;
        let measured = if least < most {
            format!("{} ({} to {})", self.amount(median), self.amount(least), self.amount(most))
        } else {
            self.amount(median)
        };
        write!(f, "| {} | {} | {goal} | {measured} | {} |", self.what, self.cores, self.verdict())
    }
}

/// Markdown.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | on | goal | measured: median (least to most) | |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        let all: Vec<&Row> = self.rows.iter().collect();
        let mut shown: Vec<&str> = Vec::new();
        for row in &all {
            if !shown.contains(&row.what.as_str()) {
                shown.push(&row.what);
                for same in all.iter().filter(|other| other.what == row.what) {
                    writeln!(f, "{same}")?;
                }
            }
        }
        write!(f, "\nOverlapping holders in all contended runs: {}. Machine: {}.", self.overlaps, machine())?;
        for note in &self.notes {
            write!(f, " {note}.")?;
        }
        writeln!(f)
    }
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    let model = model.trim_start_matches(['\t', ' ', ':']).to_owned();
    let system = uname();
    format!("{model}, {} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_whether_their_goal_is_reached() {
        let mut table = Table::default();
        table.on("1 core".to_owned());
        let value = Spread { median: 1.2, least: 1.0, most: 1.5 };
        table.row("a", Goal::AtMost(1.1), Unit::Times, value);
        table.row("b", Goal::AtLeast(1.1), Unit::MiB, value);
        table.row("c", Goal::None, Unit::Number, Spread::of(&[0.5]));
        table.on("2 cores".to_owned());
        table.row("a", Goal::AtMost(1.2), Unit::Times, value);
        table.note("Not installed: d");
        table.note("Not installed: d");
        let text = table.to_string();
        let rows: Vec<&str> = text.lines().skip(2).take(4).collect();
        assert_eq!(
            rows,
            [
                "| a | 1 core | ≤ 1.10 × | 1.20 × (1.00 × to 1.50 ×) | **falls short** |",
                "| a | 2 cores | ≤ 1.20 × | 1.20 × (1.00 × to 1.50 ×) | holds |",
                "| b | 1 core | ≥ 1.10 MiB | 1.20 MiB (1.00 MiB to 1.50 MiB) | holds |",
                "| c | 1 core | – | 0.500 |  |",
            ]
        );
        assert!(
            text.ends_with(". Not installed: d.\n") && text.matches("Not installed").count() == 1,
            "{text}"
        );
    }
}
