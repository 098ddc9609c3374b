//! `locks setup`: makes a store ready that is known to be new.

use locks::SetUp;

use super::arguments::{Arguments, early};
use super::{Command, Complaint};
use crate::json::Object;
use crate::reactor::Reactor;
use crate::store::Store;
use crate::trouble::Trouble;
use crate::words;

pub(super) const SETUP: Command = Command {
    name: "setup",
    about: "Make a store ready that is known to be new",
    usage: "[URL]",
    example: "file:",
    more: &[
        "A server that knows of no locks may be one that has forgotten them, so the first lock on it waits for as long as a forgotten one could \
         last. This ends that wait. Only say it of a store that is new, or on which nobody relies on a lock: otherwise a lock can have two holders.",
        "URL is the store, with the options that its users give, or its name in the configuration; $LOCKS_URL, else the configuration's default, if it is \
         left out. Other users of the machine can read a password on a command line, and none in the environment.",
    ],
    flags: &["print", "json", "config", "no-config", "help"],
    most_words: 1,
    run,
};

fn run(command: &Command, mut arguments: Arguments) -> Result<u8, Complaint> {
    let store = arguments.named_store(command.name)?;
    if arguments.print
        && let Some(script) =
            locks::set_up_script(&store.url).map_err(|error| Trouble::connect(&store.source, &error))?
    {
        return Ok(words::print(&if arguments.json {
            let url = words::one_line(&store.public_url());
            format!(
                "{}\n",
                Object::default().text("url", &url).text("would", "run_sql").text("sql", &script).finish()
            )
        } else {
            script
        }));
    }
    let (what, said) = if arguments.print {
        // Opened, so that nothing is said about a store that can't be.
        let reactor = Reactor::new().map_err(|error| Trouble::no_reactor(&error))?;
        let opened = reactor.run_unless_signalled(locks::builder(&store.url)).map_err(early)?;
        let locks = opened.map_err(|error| Trouble::connect(&store.source, &error))?.build();
        match locks.guarantees().ttl {
            None => ("nothing", "nothing would be done, stores of this kind are ready by themselves"),
            Some(_) => (
                "end_grace",
                "the record would be written that no lock was forgotten; there is no schema to be made",
            ),
        }
    } else {
        match set_up(&store)? {
            SetUp::NotNeeded => ("nothing", "nothing to set up, stores of this kind are ready by themselves"),
            // Whatever else it may come to say.
            _ => ("ready", "ready; a grace that ran was ended"),
        }
    };
    let url = words::one_line(&store.public_url());
    let text = if arguments.json {
        let key = if arguments.print { "would" } else { "done" };
        Object::default().text("url", &url).text(key, what).finish()
    } else {
        format!("{url}: {said}")
    };
    Ok(words::print(&format!("{text}\n")))
}

fn set_up(store: &Store) -> Result<SetUp, Trouble> {
    let reactor = Reactor::new().map_err(|error| Trouble::no_reactor(&error))?;
    reactor
        .run_unless_signalled(locks::set_up(&store.url))
        .map_err(early)?
        .map_err(|error| Trouble::connect(&store.source, &error))
}
