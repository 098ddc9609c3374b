//! What failed tests said, kept to be shown again where it is looked for: at the end.

use std::fmt;

/// So many lines of one test binary's failures are kept; who wants the rest finds it further up.
const KEPT: usize = 40;

/// The sections that test binaries name "failures", from the output of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    lines: Vec<String>,
    /// How many lines the section has that is being read.
    section: Option<usize>,
}

impl Failures {
    /// Keeps the line if it belongs to such a section.
    pub(crate) fn read_line(&mut self, line: &str) {
        if line.starts_with("test result: ") {
            if let Some(more) =
                self.section.take().and_then(|length| length.checked_sub(KEPT)).filter(|more| *more > 0)
            {
                self.lines.push(format!("… and {more} more lines"));
            }
            return;
        }
        if let Some(length) = self.section {
            if is_of_a_backtrace(line) {
                return;
            }
            self.section = Some(length + 1);
            if length < KEPT {
                self.lines.push(line.to_owned());
            }
        } else if line == "failures:" {
            self.section = Some(0);
        }
    }

    /// Notes a command that failed.
    pub(crate) fn note(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Adds what somebody else has read.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.lines.append(&mut other.lines);
    }
}

/// Whether it is a frame of a backtrace or its place.
fn is_of_a_backtrace(line: &str) -> bool {
    let text = line.trim_start();
    let numbered = text.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    line.starts_with("  ") && (numbered || text.starts_with("at "))
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> String {
        let mut failures = Failures::default();
        for line in lines {
            failures.read_line(line);
        }
        failures.to_string()
    }

    #[test]
    fn the_section_is_kept_and_nothing_else() {
        let said = [
            "test one ... FAILED",
            "failures:",
            "---- one stdout ----",
            "thread 'one' panicked at here",
            "stack backtrace:",
            "   0: __rustc::rust_begin_unwind",
            "             at ./std/src/panicking.rs:689:5",
            "failures:",
            "    one",
            "test result: FAILED. 0 passed; 1 failed",
            "test two ... ok",
        ];
        assert_eq!(
            read(&said),
            "\n---- one stdout ----\nthread 'one' panicked at here\nstack backtrace:\nfailures:\n    one"
        );
    }

    #[test]
    fn one_binary_does_not_hide_the_next() {
        let mut said = vec!["failures:"];
        said.resize(KEPT + 3, "much");
        said.extend(["test result: FAILED.", "failures:", "two", "test result: FAILED."]);
        let kept = read(&said);
        assert!(kept.ends_with("\nmuch\n… and 2 more lines\ntwo"), "{kept}");
    }

    #[test]
    fn good_tests_leave_nothing() {
        assert_eq!(read(&["test one ... ok", "test result: ok. 1 passed"]), "");
    }
}
