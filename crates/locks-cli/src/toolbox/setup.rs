//! `locks setup`: makes a store ready that is known to be new.

use lexopt::Arg::{Long, Short, Value};
use locks::SetUp;

use super::{Complaint, NAME, misunderstood, next};
use crate::reactor::Reactor;
use crate::store::{Store, URL_VARIABLE};
use crate::trouble::{Cause, Trouble};
use crate::words;

pub(super) const ABOUT: &str = "Make a store ready that is known to be new";

pub(super) fn run(mut parser: lexopt::Parser) -> Result<u8, Complaint> {
    let mut url = None;
    while let Some(argument) = next(&mut parser)? {
        match argument {
            Long("help") | Short('h') => return Ok(words::print(&help())),
            Value(value) if url.is_none() => url = Some(value),
            unknown => return Err(misunderstood(unknown.unexpected())),
        }
    }
    let store = Store::given("setup", url).map_err(Complaint::Usage)?;
    let store = store.ok_or_else(|| {
        Complaint::Usage(format!("no URL given, and none in {URL_VARIABLE}; see {NAME} setup --help"))
    })?;
    let done = set_up(&store)?;
    let did = match done {
        SetUp::NotNeeded => "nothing to set up, stores of this kind are ready by themselves",
        // Whatever else it may come to say.
        _ => "ready; a grace that ran was ended",
    };
    Ok(words::print(&format!("{}: {did}\n", words::one_line(&store.public_url()))))
}

fn set_up(store: &Store) -> Result<SetUp, Trouble> {
    let reactor = Reactor::new().map_err(|error| Trouble::no_reactor(&error))?;
    reactor
        .run_unless_signalled(locks::set_up(&store.url))
        .map_err(|signal| Trouble {
            cause: Cause::Signal(signal),
            message: format!("{signal} came before the store's answer"),
        })?
        .map_err(|error| Trouble::connect(store.source, &error))
}

fn help() -> String {
    format!(
        "\
{ABOUT}.

Usage: {NAME} setup [URL]

A server that knows of no locks may be one that has forgotten them, so the first lock on it waits
for as long as a forgotten one could last. This ends that wait. Only say it of a store that is
new, or on which nobody relies on a lock: otherwise a lock can have two holders.

URL is the store, with the options that its users give; $LOCKS_URL if it is left out. Other users
of the machine can read a password on a command line, and none in the environment.

Options:
  -h, --help  Print this
"
    )
}
