//! What is shown while the kit runs: backends beside groups, what runs now, and for how long.
//!
//! On a terminal one picture that is drawn again and again; elsewhere a line for each group that is through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::termios::tcgetwinsize;
use serde::Deserialize;

/// How often a terminal is drawn anew.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// A line of what the kit says while it runs.
#[derive(Debug, Deserialize)]
#[serde(tag = "progress", rename_all = "kebab-case")]
enum Progress {
    Planned { harness: String, cases: Vec<String> },
    Began { harness: String, case: String },
    Ended { harness: String, case: String, outcome: String },
}

/// The present state of a run, as it is shown.
pub(crate) struct Live {
    path: PathBuf,
    read: u64,
    state: State,
    began: Instant,
    is_terminal: bool,
    drawn: usize,
}

impl Live {
    /// Follows what the kit writes to `records`.
    pub(crate) fn new(records: &Path) -> Self {
        Self {
            path: records.join("progress.jsonl"),
            read: 0,
            state: State::default(),
            began: Instant::now(),
            is_terminal: std::io::stdout().is_terminal(),
            drawn: 0,
        }
    }

    /// Whether lines of tests are to be passed on: a picture would be torn by them.
    pub(crate) fn passes_lines_on(&self) -> bool {
        !self.is_terminal
    }

    /// Draws the next picture below what was written meanwhile.
    pub(crate) fn begin_anew(&mut self) {
        self.drawn = 0;
    }

    /// Reads what is new and shows it.
    ///
    /// # Errors
    ///
    /// If it can't be read or shown.
    pub(crate) fn show(&mut self) -> Result<()> {
        for line in self.news()? {
            if let Some(told) = self.state.hear(line)
                && !self.is_terminal
            {
                println!("{told}");
            }
        }
        if self.is_terminal { self.draw() } else { Ok(()) }
    }

    fn news(&mut self) -> Result<Vec<Progress>> {
        // There is none before the first case.
        let Ok(mut file) = File::open(&self.path) else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| format!("can't read {}", self.path.display()))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        let lines = text[..whole].lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().with_context(|| format!("{} makes no sense", self.path.display()))
    }

    fn draw(&mut self) -> Result<()> {
        let wide = tcgetwinsize(std::io::stdout()).map_or(80, |size| usize::from(size.ws_col));
        let picture = self.state.picture(self.began.elapsed(), wide);
        let mut text = String::new();
        if self.drawn > 0 {
            write!(text, "\x1b[{}A", self.drawn)?;
        }
        for line in &picture {
            writeln!(text, "\x1b[2K{line}")?;
        }
        // What is left of a longer picture.
        text.push_str("\x1b[J");
        self.drawn = picture.len();
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush().context("can't write to the terminal")
    }
}

#[derive(Debug, Default)]
struct State {
    harnesses: Vec<String>,
    groups: Vec<String>,
    cells: BTreeMap<(String, String), Cell>,
    running: BTreeSet<(String, String)>,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    planned: usize,
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Cell {
    fn done(&self) -> usize {
        self.passed + self.failed + self.ignored
    }

    fn is_through(&self) -> bool {
        self.done() >= self.planned
    }
}

impl State {
    /// Takes it in. A line to be told if a group is through by it.
    fn hear(&mut self, progress: Progress) -> Option<String> {
        match progress {
            Progress::Planned { harness, cases } => {
                for case in cases {
                    self.cell(&harness, &case).planned += 1;
                }
                None
            }
            Progress::Began { harness, case } => {
                self.running.insert((harness, case));
                None
            }
            Progress::Ended { harness, case, outcome } => {
                let cell = self.cell(&harness, &case);
                match outcome.as_str() {
                    "passed" => cell.passed += 1,
                    "failed" => cell.failed += 1,
                    _ => cell.ignored += 1,
                }
                cell.planned = cell.planned.max(cell.done());
                let cell = cell.clone();
                self.running.remove(&(harness.clone(), case.clone()));
                let group = group_of(&case);
                cell.is_through().then(|| {
                    let Cell { passed, failed, ignored, .. } = cell;
                    format!("{harness} {group}: {passed} passed, {failed} failed, {ignored} left out")
                })
            }
        }
    }

    fn cell(&mut self, harness: &str, case: &str) -> &mut Cell {
        let group = group_of(case);
        for (list, name) in [(&mut self.harnesses, harness), (&mut self.groups, group)] {
            if !list.iter().any(|known| known == name) {
                list.push(name.to_owned());
            }
        }
        self.cells.entry((harness.to_owned(), group.to_owned())).or_default()
    }

    /// As lines that are no longer than `wide`: one that is broken by the terminal would count as two.
    fn picture(&self, elapsed: Duration, wide: usize) -> Vec<String> {
        let longest = |names: &[String]| names.iter().map(String::len).max().unwrap_or(0);
        let first = longest(&self.groups).max(5);
        let room = wide.saturating_sub(first) / self.harnesses.len().max(1);
        let columns = longest(&self.harnesses).max(7).min(room.saturating_sub(3)).max(5);
        let mut head = format!("{:first$}", "");
        for harness in &self.harnesses {
            write!(head, "  \x1b[1m{:>columns$}\x1b[0m", cut(harness, columns)).expect(INTO_STRING);
        }
        let mut lines = vec![head];
        for group in &self.groups {
            let mut line = format!("{group:first$}");
            for harness in &self.harnesses {
                let cell = self.cells.get(&(harness.clone(), group.clone())).cloned().unwrap_or_default();
                let runs = self.running.iter().any(|(of, case)| of == harness && group_of(case) == group);
                let text = match &cell {
                    Cell { planned: 0, .. } => "·".to_owned(),
                    Cell { failed: 1.., .. } => format!("{} ✕", cell.failed),
                    _ if cell.is_through() && cell.passed == 0 => "–".to_owned(),
                    _ if cell.is_through() => format!("{} ✓", cell.passed),
                    _ => format!("{}/{}", cell.done(), cell.planned),
                };
                let colour = match &cell {
                    Cell { failed: 1.., .. } => "\x1b[1;31m",
                    _ if runs => "\x1b[1;33m",
                    _ if cell.is_through() && cell.passed > 0 => "\x1b[32m",
                    _ => "\x1b[2m",
                };
                write!(line, "  {colour}{text:>columns$}\x1b[0m").expect(INTO_STRING);
            }
            lines.push(line);
        }
        let (mut done, mut planned) = (0, 0);
        for cell in self.cells.values() {
            done += cell.done();
            planned += cell.planned;
        }
        let seconds = elapsed.as_secs();
        lines.push(format!("{done} of {planned} cases, {}:{:02}", seconds / 60, seconds % 60));
        for (harness, case) in self.running.iter().take(4) {
            lines.push(cut(&format!("  {harness}::{case}"), wide.saturating_sub(1)));
        }
        lines
    }
}

const INTO_STRING: &str = "writing to a String can't fail";

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn group_of(case: &str) -> &str {
    case.split_once("::").map_or(case, |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Progress {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_group_is_told_when_it_is_through() {
        let mut state = State::default();
        let planned = r#"{"progress":"planned","harness":"m","cases":["a::x","a::y","b::z"]}"#;
        assert_eq!(state.hear(read(planned)), None);
        assert_eq!(state.hear(read(r#"{"progress":"began","harness":"m","case":"a::x"}"#)), None);
        assert!(state.picture(Duration::from_secs(61), 80).contains(&"  m::a::x".to_owned()));
        let ended = r#"{"progress":"ended","harness":"m","case":"a::x","outcome":"passed","seconds":1.0}"#;
        assert_eq!(state.hear(read(ended)), None);
        let ended =
            r#"{"progress":"ended","harness":"m","case":"a::y","outcome":"failed","why":"w","seconds":1.0}"#;
        assert_eq!(state.hear(read(ended)), Some("m a: 1 passed, 1 failed, 0 left out".to_owned()));
        let picture = state.picture(Duration::from_secs(61), 80).join("\n");
        assert!(picture.contains("1 ✕") && picture.contains("0/1"), "{picture}");
        assert!(picture.contains("2 of 3 cases, 1:01"), "{picture}");
        for number in 0..8 {
            let cases = vec!["a::x".to_owned()];
            state.hear(Progress::Planned { harness: format!("a-backend-{number}"), cases });
        }
        let plain = |line: &String| {
            line.split('\x1b')
                .map(|part| part.split_once('m').map_or(part, |(_, text)| text))
                .collect::<String>()
        };
        let longest = state.picture(Duration::ZERO, 80).iter().map(|line| plain(line).chars().count()).max();
        assert!(longest.is_some_and(|longest| (60..80).contains(&longest)), "{longest:?}");
    }
}
