//! The options of the commands that run another one: one table, from which they are understood, explained and completed.

use std::ffi::OsString;

use lexopt::Arg::{Long, Short, Value};

use crate::Tool;

/// An option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) short: Option<char>,
    pub(crate) long: &'static str,
    /// What its value is called, if it has one.
    pub(crate) value: Option<&'static str>,
    /// One sentence or two.
    pub(crate) about: &'static str,
}

/// All of them, in the order of the help.
pub(crate) const FLAGS: [Flag; 25] = [
    flag(
        None,
        "url",
        Some("URL"),
        "The store that keeps the lock, or the name that the configuration has for it [default: $LOCKS_URL, else what the configuration says, else file:]",
    ),
    flag(None, "name", Some("NAME"), "The lock's name [default: made from the exact command]"),
    flag(Some('w'), "timeout", Some("DURATION"), "Wait this long at most; 0 tries once [default: no limit]"),
    flag(
        Some('E'),
        "conflict-exit-code",
        Some("N"),
        "The exit code when the lock is not had, 0 to 255 [default: 75]",
    ),
    flag(
        None,
        "ttl",
        Some("DURATION"),
        "On stores with an expiry: how long others are kept out if we vanish [default: the store's]",
    ),
    flag(None, "shared", None, "Share the lock with others that share it, as a reader"),
    flag(
        None,
        "permits",
        Some("LIMIT"),
        "Let so many hold the lock at a time; all who use it give the same number",
    ),
    flag(
        Some('c'),
        "command",
        Some("STRING"),
        "Have /bin/sh run this, instead of a command and its arguments",
    ),
    flag(None, "max-run", Some("DURATION"), "End the command if it runs for longer; the exit code is 124"),
    flag(
        None,
        "kill-after",
        Some("DURATION"),
        "How long after TERM a command that is to end is killed [default: 10s; on stores with an expiry a third of the time that a lock lasts, which is also the most]",
    ),
    flag(
        None,
        "on-lost",
        Some("WHAT"),
        "When the lock is lost: kill the command before somebody else can have the lock, warn, or ignore it [default: kill]",
    ),
    flag(
        None,
        "min-hold",
        Some("DURATION"),
        "Nobody else gets the lock for so long from its grant, even if the command is faster",
    ),
    flag(
        None,
        "once-per",
        Some("DURATION"),
        "Not before so much time has passed since the start of the last run that succeeded",
    ),
    flag(
        None,
        "one-per-host",
        None,
        "Not if another process of this user on this host runs under the lock or waits for it with this option",
    ),
    flag(
        None,
        "no-inherit",
        None,
        "What the command leaves running neither keeps the lock nor is ended: for commands that start daemons",
    ),
    flag(None, "label", Some("TEXT"), "What others are told about the holder [default: the command's name]"),
    flag(None, "print-name", None, "Print the lock's name and do nothing else"),
    flag(None, "json-fd", Some("N"), "Write events as lines of JSON to this open descriptor"),
    flag(None, "json", None, "Write events as lines of JSON to stderr, instead of words of our own"),
    flag(Some('q'), "quiet", None, "Say nothing but errors: not that the lock is taken"),
    flag(Some('v'), "verbose", None, "Say each step"),
    flag(
        None,
        "config",
        Some("FILE"),
        "The configuration [default: $LOCKS_CONFIG, else .config/locks/config.toml in the user's home, else /etc/locks/config.toml]",
    ),
    flag(None, "no-config", None, "Read no configuration"),
    flag(Some('h'), "help", None, "Print this"),
    flag(Some('V'), "version", None, "Print the version"),
];

const fn flag(
    short: Option<char>,
    long: &'static str,
    value: Option<&'static str>,
    about: &'static str,
) -> Flag {
    Flag { short, long, value, about }
}

/// What a command line says: each option as it was given last.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// In the order of [`FLAGS`]; of an option without a value, an empty one.
    values: [Option<OsString>; FLAGS.len()],
    /// The program and its arguments.
    pub(crate) command: Vec<OsString>,
}

impl Given {
    /// Whether the option was given.
    pub(crate) fn has(&self, long: &str) -> bool {
        index(|flag| flag.long == long).is_some_and(|index| self.values[index].is_some())
    }

    /// The option's value, which is then gone.
    pub(crate) fn take(&mut self, long: &str) -> Option<OsString> {
        index(|flag| flag.long == long).and_then(|index| self.values[index].take())
    }
}

/// Understands what stands before the command. `--help` and `--version` end it at once.
///
/// # Errors
///
/// What is wrong, in one line.
pub(crate) fn parse(tool: Tool, parser: &mut lexopt::Parser) -> Result<Given, String> {
    let mut given = Given::default();
    let see_help = |error: lexopt::Error| format!("{error}; see {} --help", tool.name());
    while let Some(argument) = parser.next().map_err(see_help)? {
        let index = match &argument {
            Long(name) => index(|flag| flag.long == *name),
            Short(letter) => index(|flag| flag.short == Some(*letter)),
            Value(_) => None,
        };
        match (index, argument) {
            (Some(index), _) => {
                let flag = FLAGS[index];
                if flag.long == "timeout" && tool == Tool::Abort {
                    return Err(
                        "--timeout: lock-abort never waits; use lock-block to wait for the lock".to_owned()
                    );
                }
                given.values[index] = Some(match flag.value {
                    Some(_) => parser.value().map_err(see_help)?,
                    None => OsString::new(),
                });
                if matches!(flag.long, "help" | "version") {
                    break;
                }
            }
            (None, Value(program)) => {
                // What comes after the program is its own.
                given.command.push(program);
                given.command.extend(parser.raw_args().map_err(see_help)?);
                break;
            }
            (None, unknown) => return Err(see_help(unknown.unexpected())),
        }
    }
    Ok(given)
}

fn index(is: impl Fn(&Flag) -> bool) -> Option<usize> {
    FLAGS.iter().position(is)
}

/// The options that `tool` has.
pub(crate) fn of(tool: Tool) -> impl Iterator<Item = Flag> {
    FLAGS.into_iter().filter(move |flag| flag.long != "timeout" || tool != Tool::Abort)
}

/// What a tool does, in one sentence.
pub(crate) const fn about(tool: Tool) -> &'static str {
    match tool {
        Tool::Abort => "Runs a command under a named lock, or not at all if the lock is taken.",
        Tool::Block => "Waits for a named lock and runs a command under it.",
        Tool::Run => "Waits for a named lock and runs a command under it, as lock-block does.",
    }
}

/// A line that works, after the tool's name.
pub(crate) const fn example(tool: Tool) -> &'static str {
    match tool {
        Tool::Abort => "--name nightly -- echo \"nobody else runs this\"",
        Tool::Block | Tool::Run => "--name nightly --timeout 5m -- echo \"nobody else runs this\"",
    }
}

/// What the exit codes mean, in a few sentences.
pub(crate) const EXIT_CODES: &str = "the command's own; 128 + n if signal n ended it or the wait; 75 the lock is taken, not due \
    yet, or was not had in time; 64 usage; 69 the store can't be used; 70 a bug; 79 the lock was lost; 124 the command ran for longer than \
    --max-run; 126 the command can't be run; 127 there is no such command.";

pub(crate) fn help(tool: Tool) -> String {
    let name = tool.name();
    let mut options = String::new();
    for flag in of(tool) {
        let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
        let begin = format!("  {short}--{}{value}", flag.long);
        options += &paragraph(&begin, COLUMN, flag.about);
    }
    format!(
        "\
{}

Usage: {name} [OPTIONS] [--] CMD [ARG]...
       {name} {}

The command is run as it is, without a shell; what comes after its name belongs to it.

Options:
{options}
Durations are seconds or have units: 0, 1.5, 90s, 2m, 1h30m.

{}",
        about(tool),
        example(tool),
        paragraph("Exit codes:", 0, EXIT_CODES)
    )
}

/// Where the explanations begin.
const COLUMN: usize = 30;

/// The most columns of a line.
const WIDTH: usize = 98;

/// `begin`, then `text` from `column` on, in as many lines as it takes.
pub(crate) fn paragraph(begin: &str, column: usize, text: &str) -> String {
    let mut paragraph = String::new();
    let mut line = begin.to_owned();
    for word in text.split_whitespace() {
        let at = if line.chars().count() < column { column } else { line.chars().count() + 1 };
        if at + word.chars().count() > WIDTH {
            paragraph += &line;
            paragraph.push('\n');
            line = format!("{:column$}{word}", "");
        } else {
            line = format!("{line:<at$}{word}");
        }
    }
    paragraph + &line + "\n"
}
