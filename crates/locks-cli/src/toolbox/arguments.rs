//! What the commands of the toolbox have in common: the store, how they answer, their help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::Arg::{Long, Short, Value};
use locks::{Error, Locks};
use nix::sys::signal::Signal;

use super::{Command, Complaint, NAME, misunderstood, next};
use crate::config::Source;
use crate::flags::{Flag, paragraph};
use crate::reactor::Reactor;
use crate::store::{Store, URL_VARIABLE};
use crate::trouble::{Cause, Trouble};

/// The options that a command may have.
pub(super) const FLAGS: [Flag; 7] = [
    Flag {
        short: None,
        long: "url",
        value: Some("URL"),
        about: "The store, or the name that the configuration has for it [default: $LOCKS_URL, else what the configuration says, else file:]",
    },
    Flag { short: None, long: "print", value: None, about: "Print what would be done and do nothing" },
    Flag {
        short: None,
        long: "older-than",
        value: Some("DURATION"),
        about: "Only locks that were granted last so long ago, such as 12h or 30d [default: 30d]",
    },
    Flag { short: None, long: "json", value: None, about: "Answer in one line of JSON" },
    Flag {
        short: None,
        long: "config",
        value: Some("FILE"),
        about: "The configuration [default: $LOCKS_CONFIG, else .config/locks/config.toml in the user's home, else /etc/locks/config.toml]",
    },
    Flag { short: None, long: "no-config", value: None, about: "Read no configuration" },
    Flag { short: Some('h'), long: "help", value: None, about: "Print this" },
];

/// What stands behind a command's name.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) url: Option<OsString>,
    pub(super) print: bool,
    pub(super) json: bool,
    pub(super) help: bool,
    pub(super) words: Vec<OsString>,
    pub(super) older_than: Option<OsString>,
    config: Option<OsString>,
    no_config: bool,
}

impl Arguments {
    /// Understands all that is left, for `command`.
    ///
    /// # Errors
    ///
    /// What makes no sense.
    pub(super) fn parse(command: &Command, mut parser: lexopt::Parser) -> Result<Self, Complaint> {
        let mut arguments = Self::default();
        while let Some(argument) = next(&mut parser)? {
            let long = match &argument {
                Long(long) => FLAGS.iter().map(|flag| flag.long).find(|known| long == known),
                Short('h') => Some("help"),
                Short(_) | Value(_) => None,
            };
            match (long.filter(|long| command.flags.contains(long)), argument) {
                (Some("print"), _) => arguments.print = true,
                (Some("json"), _) => arguments.json = true,
                (Some("help"), _) => {
                    arguments.help = true;
                    return Ok(arguments);
                }
                (Some("no-config"), _) => arguments.no_config = true,
                (Some("url"), _) => arguments.url = Some(parser.value().map_err(misunderstood)?),
                (Some("older-than"), _) => {
                    arguments.older_than = Some(parser.value().map_err(misunderstood)?)
                }
                (Some("config"), _) => arguments.config = Some(parser.value().map_err(misunderstood)?),
                (None, Value(word)) if arguments.words.len() < command.most_words => {
                    arguments.words.push(word)
                }
                (_, unknown) => return Err(misunderstood(unknown.unexpected())),
            }
        }
        Ok(arguments)
    }

    /// Which configuration counts.
    ///
    /// # Errors
    ///
    /// If it is said in two ways.
    pub(super) fn source(&self) -> Result<Source, Complaint> {
        match (&self.config, self.no_config) {
            (Some(_), true) => {
                Err(Complaint::Usage("--config and --no-config can't be given together".to_owned()))
            }
            (Some(path), false) => Ok(Source::File(PathBuf::from(path))),
            (None, true) => Ok(Source::None),
            (None, false) => Ok(Source::Usual),
        }
    }

    /// The store that is looked at.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn store(&mut self) -> Result<Store, Complaint> {
        let source = self.source()?;
        Ok(Store::of_command(self.url.take(), &source).map_err(Complaint::Usage)?.with_login()?)
    }

    /// The store that has to be named.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn named_store(&mut self, command: &str) -> Result<Store, Complaint> {
        let source = self.source()?;
        let url = self.words.pop();
        let store = Store::given(command, url, &source).map_err(Complaint::Usage)?;
        let missing = || {
            Complaint::Usage(format!("no URL given, and none in {URL_VARIABLE}; see {NAME} {command} --help"))
        };
        store.ok_or_else(missing)?.with_login().map_err(Complaint::Trouble)
    }
}

/// How long a store may be out of reach.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the store, and ends with the first signal.
///
/// # Errors
///
/// If there is no answer, or this.
pub(super) fn ask<T>(
    store: &Store,
    question: impl AsyncFnOnce(&Locks) -> Result<T, Error>,
) -> Result<T, Trouble> {
    let reactor = Reactor::new().map_err(|error| Trouble::no_reactor(&error))?;
    let asking = async {
        let builder =
            locks::builder(&store.url).await.map_err(|error| Trouble::connect(&store.source, &error))?;
        let locks = builder.store_timeout(PATIENCE).build();
        question(&locks).await.map_err(|error| Trouble::store(&error))
    };
    reactor.run_unless_signalled(asking).map_err(early)?
}

/// A signal was faster than the store.
pub(super) fn early(signal: Signal) -> Trouble {
    Trouble { cause: Cause::Signal(signal), message: format!("{signal} came before the store's answer") }
}

/// The help of one command.
pub(super) fn help(command: &Command) -> String {
    let mut options = String::new();
    for flag in FLAGS.iter().filter(|flag| command.flags.contains(&flag.long)) {
        let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
        let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
        options += &paragraph(&format!("  {short}--{}{value}", flag.long), 22, flag.about);
    }
    let Command { name, about, usage, example, more, .. } = command;
    let more: String = more.iter().map(|text| format!("{}\n", paragraph("", 0, text).trim_start())).collect();
    format!(
        "{about}.\n\nUsage: {NAME} {name} {usage}\n       {NAME} {name} {example}\n\n{more}Options:\n{options}"
    )
}
