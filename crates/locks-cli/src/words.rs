//! What the programs say for themselves: whole lines on stderr, each in one write. Nobody listening is no trouble.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use crate::exit;

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Loudness {
    /// Nothing at all: events tell it.
    Mute,
    /// Errors only: not that the lock is taken.
    Quiet,
    /// Errors, who is in the way, and to a terminal that we wait.
    #[default]
    Normal,
    /// Every step.
    Verbose,
}

/// Who listens while we wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    Nobody,
    /// Wants one line at the beginning and one at the end.
    Log,
    /// A person at a terminal, who wants one line that is kept up to date.
    Watcher,
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
        if self.loudness != Loudness::Mute {
            self.say(line);
        }
    }

    /// What a person wants to know and a cron job may not.
    pub(crate) fn remark(&self, line: &str) {
        if !matches!(self.loudness, Loudness::Mute | Loudness::Quiet) {
            self.say(line);
        }
    }

    /// One of the steps.
    pub(crate) fn step(&self, line: impl FnOnce() -> String) {
        if self.loudness == Loudness::Verbose {
            self.say(&line());
        }
    }

    /// Who wants to hear that we wait.
    pub(crate) fn audience(&self) -> Audience {
        let on_terminal = || std::io::stderr().is_terminal();
        match self.loudness {
            Loudness::Mute | Loudness::Quiet => Audience::Nobody,
            Loudness::Normal | Loudness::Verbose if on_terminal() => match std::env::var_os("TERM") {
                Some(terminal) if terminal != "dumb" => Audience::Watcher,
                _ => Audience::Log,
            },
            Loudness::Normal => Audience::Nobody,
            Loudness::Verbose => Audience::Log,
        }
    }

    /// Puts `line` into the place of the status line that was there, on a terminal.
    pub(crate) fn status(&self, line: &str) {
        let columns = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(80, |size| size.ws_col);
        let room = usize::from(if columns == 0 { 80 } else { columns }) - 1;
        let line = one_line(&format!("{}: {line}", self.program));
        // More than one row could not be taken back.
        let shown: String = line.chars().take(room).collect();
        std::io::stderr().write_all(format!("\r{shown}\x1b[K").as_bytes()).ok();
    }

    /// Takes the status line away.
    pub(crate) fn end_status(&self) {
        std::io::stderr().write_all(b"\r\x1b[K").ok();
    }

    fn say(&self, line: &str) {
        let text = format!("{}: {}\n", self.program, one_line(line));
        std::io::stderr().write_all(text.as_bytes()).ok();
    }
}

/// Prints what was asked for, such as the help, and returns the exit code.
pub(crate) fn print(text: &str) -> u8 {
    print_bytes(text.as_bytes())
}

/// The same.
pub(crate) fn print_bytes(text: &[u8]) -> u8 {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => 0,
        // Such as head(1), which has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(_) => exit::UNAVAILABLE,
    }
}

/// The text without line breaks and other control characters, which names and arguments may hold.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        // Also what makes a terminal show text in another order than it stands.
        let reorders =
            matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || reorders {
            // Writing to a string can't fail.
            write!(line, "{}", c.escape_default()).ok();
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_lines() {
        assert_eq!(one_line("a\nb\u{1b}[31m é\u{202e}"), "a\\nb\\u{1b}[31m é\\u{202e}");
    }
}
