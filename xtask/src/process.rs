//! Child processes whose command lines are shown before they run and again if they fail.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::totals::Totals;
use crate::workspace;

/// The cargo that runs us, in the repository's root.
pub(crate) fn cargo<I, S>(args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).current_dir(workspace::root());
    command
}

/// Runs it to its end.
///
/// # Errors
///
/// If it can't be started or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = announce(command);
    let status = command.status().with_context(|| format!("can't start: {line}"))?;
    check(status, &line)
}

/// Runs it and returns what it wrote to standard output.
///
/// # Errors
///
/// If it can't be started or fails, or writes something that is not UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = announce(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("can't start: {line}"))?;
    check(output.status, &line)?;
    String::from_utf8(output.stdout).with_context(|| format!("not UTF-8, the output of: {line}"))
}

/// Runs tests, passes their output on and adds up what they report.
///
/// That tests fail is no error but part of the sum; so is a run that broke off without a report.
///
/// # Errors
///
/// If it can't be started or its output can't be read.
pub(crate) fn run_tests(command: &mut Command) -> Result<Totals> {
    const RARELY: Duration = Duration::from_secs(3600);
    follow_tests(command, RARELY, |text| {
        if let Some(text) = text {
            println!("{text}");
        }
        Ok(())
    })
}

/// Runs tests, gives each line of their output to `show`, and `None` at least as often as `tick` says. What they write to standard error goes
/// the same way if it is piped.
///
/// # Errors
///
/// As [`run_tests`], or if `show` fails.
pub(crate) fn follow_tests(
    command: &mut Command,
    tick: Duration,
    mut show: impl FnMut(Option<&str>) -> Result<()>,
) -> Result<Totals> {
    let line = announce(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("can't start: {line}"))?;
    let stdout = child.stdout.take().context("the child's standard output is not piped")?;
    let (sender, said) = channel();
    if let Some(stderr) = child.stderr.take() {
        pass_lines_on(stderr, sender.clone());
    }
    pass_lines_on(stdout, sender);
    let mut totals = Totals::default();
    loop {
        match said.recv_timeout(tick) {
            Ok(text) => {
                let text = text.with_context(|| format!("can't read the output of: {line}"))?;
                let text = String::from_utf8_lossy(&text);
                totals.read_line(&text);
                show(Some(&text))?;
            }
            Err(RecvTimeoutError::Timeout) => show(None)?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    show(None)?;
    let status = child.wait().with_context(|| format!("can't wait for: {line}"))?;
    if !status.success() {
        eprintln!("failed ({status}): {line}");
        totals.broke_off_unless_reported(&line);
    }
    Ok(totals)
}

/// Reads to the end on a thread of its own.
fn pass_lines_on(from: impl Read + Send + 'static, to: Sender<std::io::Result<Vec<u8>>>) {
    std::thread::spawn(move || {
        for text in BufReader::new(from).split(b'\n') {
            // Nobody listens any more after an error.
            if to.send(text).is_err() {
                return;
            }
        }
    });
}

/// Shows the command line, in a form that a shell takes, and returns it.
fn announce(command: &Command) -> String {
    let mut line = String::new();
    if let Some(dir) = command.get_current_dir().filter(|dir| *dir != workspace::root()) {
        let dir = dir.strip_prefix(workspace::root()).unwrap_or(dir);
        write!(line, "cd {} && ", dir.display()).expect("writing to a String can't fail");
    }
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            let value = quoted(value);
            write!(line, "{}={value} ", key.display()).expect("writing to a String can't fail");
        }
    }
    let program = Path::new(command.get_program());
    line.push_str(&quoted(program.file_name().unwrap_or(program.as_os_str())));
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(argument));
    }
    eprintln!("$ {line}");
    line
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn check(status: ExitStatus, line: &str) -> Result<()> {
    if !status.success() {
        bail!("failed ({status}): {line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_line_can_be_pasted_into_a_shell() {
        let mut command = cargo(["test", "--", "it's one"]);
        command.env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(announce(&command), r"RUSTDOCFLAGS='-D warnings' cargo test -- 'it'\''s one'");
    }

    #[test]
    fn a_failing_command_is_an_error_that_shows_the_line() {
        let error = run(&mut cargo(["no-such-subcommand"])).unwrap_err();
        assert!(error.to_string().ends_with("cargo no-such-subcommand"), "{error}");
    }

    #[test]
    fn a_test_run_without_a_report_counts_as_one_failure() {
        let totals = run_tests(&mut cargo(["no-such-subcommand"])).unwrap();
        assert_eq!(totals.to_string(), "0 passed, 1 failed");
    }
}
