//! The sum over all test binaries.

use std::fmt;
use std::ops::AddAssign;

use anyhow::{Result, bail};

use crate::failures::Failures;

/// How many tests passed, failed and were skipped. Reads as the line that CI looks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
    failures: Failures,
}

impl Totals {
    /// Adds what this line reports, if it is the closing line of a test binary, and keeps it if it says why a test failed.
    pub(crate) fn read_line(&mut self, line: &str) {
        self.failures.read_line(line);
        let Some(report) = line.trim_start().strip_prefix("test result: ") else { return };
        for part in report.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Notes that this command failed, so that one which crashed before its report is not taken for a good one.
    pub(crate) fn broke_off_unless_reported(&mut self, command: &str) {
        self.failed = self.failed.max(1);
        self.failures.note(format!("failed: {command}"));
    }

    /// Whether a test failed.
    pub(crate) fn has_failures(&self) -> bool {
        self.failed > 0
    }

    /// Shows the line and says whether it is a good one.
    ///
    /// # Errors
    ///
    /// If a test failed, with what it said, or none ran.
    pub(crate) fn close(self) -> Result<()> {
        println!("{self}");
        if self.failed > 0 {
            bail!("{} failed{}", self.failed, self.failures);
        }
        if self.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.append(other.failures);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Totals {
        let mut totals = Totals::default();
        for line in lines {
            totals.read_line(line);
        }
        totals
    }

    #[test]
    fn closing_lines_are_added_up_and_others_ignored() {
        let totals = read(&[
            "running 3 tests",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "the test result: 100 passed",
            "test result: FAILED. 4 passed; 3 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.20s",
        ]);
        assert_eq!((totals.passed, totals.failed, totals.skipped), (6, 3, 1));
        assert_eq!(totals.to_string(), "6 passed, 3 failed, 1 skipped");
        assert!(totals.close().is_err());
    }

    #[test]
    fn nothing_run_is_a_failure() {
        assert_eq!(Totals::default().close().unwrap_err().to_string(), "no test ran");
    }

    #[test]
    fn a_crash_counts_once_and_only_if_nothing_else_was_reported() {
        let mut totals = read(&["test result: ok. 2 passed; 0 failed; 0 ignored"]);
        totals.broke_off_unless_reported("cargo test");
        assert_eq!(totals.to_string(), "2 passed, 1 failed");
        totals.broke_off_unless_reported("cargo test --doc");
        assert_eq!(totals.to_string(), "2 passed, 1 failed");
        let error = totals.close().unwrap_err();
        assert_eq!(error.to_string(), "1 failed\nfailed: cargo test\nfailed: cargo test --doc");
    }

    #[test]
    fn a_good_sum_closes_well() {
        assert!(read(&["test result: ok. 1 passed; 0 failed; 0 ignored"]).close().is_ok());
    }
}
