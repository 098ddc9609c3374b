//! Backends beside groups of cases, as numbers.

use std::fmt::Write as _;

use super::data::{Outcome, Record};
use super::html::{Escaped, id};

const INTO_STRING: &str = "writing to a String can't fail";

/// How many cases of a group there are, by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
}

impl Count {
    pub(crate) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Ignored => self.ignored += 1,
        }
    }

    pub(crate) fn of<'a>(records: impl Iterator<Item = &'a Record>) -> Self {
        let mut count = Self::default();
        records.for_each(|record| count.add(record.outcome));
        count
    }

    /// One word that decides how it looks.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self { failed: 1.., .. } => "failed",
            Self { passed: 1.., .. } => "passed",
            Self { ignored: 1.., .. } => "ignored",
            _ => "none",
        }
    }

    /// "3 passed, 1 left out".
    pub(crate) fn words(self) -> String {
        let parts = [(self.passed, "passed"), (self.failed, "failed"), (self.ignored, "left out")];
        let words: Vec<String> = parts
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, word)| format!("{number} {word}"))
            .collect();
        if words.is_empty() { "no case".to_owned() } else { words.join(", ") }
    }
}

/// The groups in the order in which the kit's README lists them; others come last.
pub(crate) const ORDER: [&str; 22] = [
    "exclusive",
    "tokens",
    "waiting",
    "names",
    "lease",
    "options",
    "rw",
    "semaphore",
    "lock_all",
    "election",
    "schedule",
    "inspection",
    "offers",
    "process",
    "crash",
    "cancellation",
    "faults",
    "wire",
    "restart",
    "resources",
    "soak",
    "spi",
];

/// The groups of these records, in their order.
pub(crate) fn groups(records: &[Record]) -> Vec<&str> {
    let mut groups: Vec<&str> = records.iter().map(|record| &*record.group).collect();
    groups
        .sort_by_key(|group| (ORDER.iter().position(|known| known == group).unwrap_or(ORDER.len()), *group));
    groups.dedup();
    groups
}

/// The harnesses of these records, in their order.
pub(crate) fn harnesses(records: &[Record]) -> Vec<&str> {
    let mut harnesses: Vec<&str> = records.iter().map(|record| &*record.harness).collect();
    harnesses.dedup();
    harnesses
}

/// The table: each cell leads to its cases. The longer of the two lists goes down.
pub(super) fn table(records: &[Record]) -> String {
    let (harnesses, groups) = (harnesses(records), groups(records));
    let harnesses_go_down = harnesses.len() > groups.len();
    let (down, across) = if harnesses_go_down { (&harnesses, &groups) } else { (&groups, &harnesses) };
    let mut table = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Matrix of groups and backends\">\n\
         <table class=\"matrix\">\n<caption>Cases passed, or failed (✕), of all that there are. What is left out says why: each number \
         leads to its cases.</caption>\n<thead><tr>",
    );
    write!(table, "<th scope=\"col\">{}</th>", if harnesses_go_down { "backend" } else { "group" })
        .expect(INTO_STRING);
    for name in across {
        write!(table, "<th scope=\"col\">{}</th>", Escaped(name)).expect(INTO_STRING);
    }
    table.push_str("</tr></thead>\n<tbody>\n");
    for first in down {
        write!(table, "<tr><th scope=\"row\">{}</th>", Escaped(first)).expect(INTO_STRING);
        for second in across {
            let (harness, group) = if harnesses_go_down { (first, second) } else { (second, first) };
            let of_both =
                records.iter().filter(|record| record.harness == *harness && record.group == *group);
            cell(&mut table, Count::of(of_both), &id(&["g", harness, group]), harness, group);
        }
        table.push_str("</tr>\n");
    }
    table.push_str("</tbody>\n");
    if !harnesses_go_down {
        table.push_str("<tfoot><tr><th scope=\"row\">all</th>");
        for harness in &harnesses {
            let count = Count::of(records.iter().filter(|record| record.harness == *harness));
            cell(&mut table, count, &id(&["b", harness]), harness, "all groups");
        }
        table.push_str("</tr></tfoot>\n");
    }
    table.push_str("</table>\n</div>\n");
    table
}

fn cell(table: &mut String, count: Count, target: &str, harness: &str, group: &str) {
    let class = count.class();
    if class == "none" {
        write!(table, "<td class=\"none\"><span aria-label=\"no case was run\">·</span></td>")
            .expect(INTO_STRING);
        return;
    }
    let label = format!("{harness}, {group}: {}", count.words());
    write!(
        table,
        "<td class=\"{class}\"><a href=\"#{target}\" aria-label=\"{0}\" title=\"{0}\">",
        Escaped(&label)
    )
    .expect(INTO_STRING);
    let all = count.passed + count.failed + count.ignored;
    match count {
        Count { failed: 1.., .. } => write!(table, "<b>✕ {}</b>", count.failed),
        _ => write!(table, "<span class=\"n\">{}</span>", count.passed),
    }
    .expect(INTO_STRING);
    if count.passed < all {
        write!(table, "<span class=\"left\"> of {all}</span>").expect(INTO_STRING);
    }
    table.push_str("</a></td>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    #[test]
    fn the_groups_are_those_of_the_kit() {
        let dir = root().join("crates/locks-conformance/src/cases");
        let mut modules: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .filter(|path| {
                std::fs::read_to_string(path).unwrap().contains("CASES: &[Case]") || path.ends_with("wire.rs")
            })
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        modules.sort_unstable();
        let mut known = ORDER;
        known.sort_unstable();
        assert_eq!(modules, known);
    }

    #[test]
    fn one_failure_decides() {
        let count = Count { passed: 5, failed: 1, ignored: 2 };
        assert_eq!((count.class(), &*count.words()), ("failed", "5 passed, 1 failed, 2 left out"));
        assert_eq!((Count::default().class(), &*Count::default().words()), ("none", "no case"));
    }
}
