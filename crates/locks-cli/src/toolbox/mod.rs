//! `locks`: what looks after stores. One command a module.

mod arguments;
mod gc;
mod inspect;
mod paper;
mod setup;

use std::ffi::OsString;

use lexopt::Arg::{Long, Short, Value};

use self::arguments::Arguments;
use crate::trouble::Trouble;
use crate::words::{self, Words};
use crate::{Tool, answer, conclude, exit, flags, options};

pub(crate) const NAME: &str = "locks";

/// One of the commands of `locks`, beside `run`.
struct Command {
    name: &'static str,
    /// What it does, in one line of the help.
    about: &'static str,
    /// What stands behind its name, as the help shows it.
    usage: &'static str,
    /// The same as a line that works.
    example: &'static str,
    /// Paragraphs of its help.
    more: &'static [&'static str],
    /// Which of the options it has.
    flags: &'static [&'static str],
    most_words: usize,
    run: fn(&Self, Arguments) -> Result<u8, Complaint>,
}

const COMMANDS: [Command; 6] =
    [inspect::STATUS, inspect::LIST, setup::SETUP, gc::GC, paper::COMPLETIONS, paper::MAN];

/// Why there is no exit code of success.
enum Complaint {
    /// The command line makes no sense, for this reason.
    Usage(String),
    Trouble(Trouble),
}

impl From<Trouble> for Complaint {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Does what `arguments` ask for, the first of which is the program's own name, and returns the exit code.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let words = Words::new(NAME);
    match choose(lexopt::Parser::from_iter(arguments)) {
        Ok(code) => code,
        Err(Complaint::Usage(complaint)) => {
            words.error(&complaint);
            exit::USAGE
        }
        Err(Complaint::Trouble(trouble)) => conclude(&trouble, exit::BUSY, &words),
    }
}

fn choose(mut parser: lexopt::Parser) -> Result<u8, Complaint> {
    match next(&mut parser)? {
        Some(Long("help") | Short('h')) => Ok(words::print(&help())),
        Some(Long("version") | Short('V')) => {
            Ok(words::print(&format!("{NAME} {}\n", env!("CARGO_PKG_VERSION"))))
        }
        Some(Value(name)) if name == "run" => {
            Ok(answer(Tool::Run, options::parse_rest(Tool::Run, &mut parser)))
        }
        Some(Value(name)) => match COMMANDS.iter().find(|command| name == command.name) {
            Some(command) => {
                let arguments = Arguments::parse(command, parser)?;
                if arguments.help {
                    return Ok(words::print(&arguments::help(command)));
                }
                (command.run)(command, arguments)
            }
            None => Err(Complaint::Usage(format!("there is no command {name:?}; see {NAME} --help"))),
        },
        Some(unknown) => Err(misunderstood(unknown.unexpected())),
        None => Err(Complaint::Usage(format!("no command given; see {NAME} --help"))),
    }
}

/// The next argument.
fn next(parser: &mut lexopt::Parser) -> Result<Option<lexopt::Arg<'_>>, Complaint> {
    parser.next().map_err(misunderstood)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn misunderstood(error: lexopt::Error) -> Complaint {
    Complaint::Usage(format!("{error}; see {NAME} --help"))
}

fn help() -> String {
    let mut commands = format!("  {:<13}{}\n", "run", flags::about(Tool::Run).trim_end_matches('.'));
    for Command { name, about, .. } in COMMANDS {
        commands += &format!("  {name:<13}{about}\n");
    }
    format!(
        "\
Looks after the stores that keep locks.

Usage: {NAME} COMMAND [ARG]...
       {NAME} list --json

Commands:
{commands}
Options:
  -h, --help     Print this, or the help of a command that stands before it
  -V, --version  Print the version

Exit codes: 0 done; 64 usage; 69 the store can't be used; 70 a bug; 128 + n if signal n ended it.
Those of run are in its own help.
"
    )
}
