//! What the programs say for themselves: whole lines on stderr, each in one write. Nobody listening is no trouble.

use std::io::{IsTerminal, Write};

use crate::exit;

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Loudness {
    /// Errors only: not that the lock is taken.
    Quiet,
    /// Errors, who is in the way, and to a terminal that we wait.
    #[default]
    Normal,
    /// Every step.
    Verbose,
}

/// A program's voice.
#[derive(Debug)]
pub(crate) struct Words {
    /// Whose it is: every line begins with it.
    program: &'static str,
    loudness: Loudness,
}

impl Words {
    pub(crate) fn new(program: &'static str) -> Self {
        Self { program, loudness: Loudness::Normal }
    }

    pub(crate) fn with_loudness(self, loudness: Loudness) -> Self {
        Self { loudness, ..self }
    }

    /// What went wrong. Said even when quiet: a silent failure can't be mended.
    pub(crate) fn error(&self, line: &str) {
        self.say(line);
    }

    /// What a person wants to know and a cron job may not.
    pub(crate) fn remark(&self, line: &str) {
        if self.loudness != Loudness::Quiet {
            self.say(line);
        }
    }

    /// One of the steps.
    pub(crate) fn step(&self, line: impl FnOnce() -> String) {
        if self.loudness == Loudness::Verbose {
            self.say(&line());
        }
    }

    /// Whether somebody wants to hear that we wait.
    pub(crate) fn narrates_waiting(&self) -> bool {
        match self.loudness {
            Loudness::Quiet => false,
            Loudness::Normal => std::io::stderr().is_terminal(),
            Loudness::Verbose => true,
        }
    }

    fn say(&self, line: &str) {
        let text = format!("{}: {}\n", self.program, one_line(line));
        std::io::stderr().write_all(text.as_bytes()).ok();
    }
}

/// Prints what was asked for, such as the help, and returns the exit code.
pub(crate) fn print(text: &str) -> u8 {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => 0,
        Err(_) => exit::UNAVAILABLE,
    }
}

/// The text without line breaks and other control characters, which names and arguments may hold.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_lines() {
        assert_eq!(one_line("a\nb\u{1b}[31m é"), "a\\nb\\u{1b}[31m é");
    }
}
