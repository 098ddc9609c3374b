//! `locks gc`: removes what locks that nobody uses left in a store.

use std::time::Duration;

use locks::{Error, Locks};

use super::arguments::{Arguments, ask};
use super::{Command, Complaint};
use crate::duration::duration;
use crate::json::Object;
use crate::words;

pub(super) const GC: Command = Command {
    name: "gc",
    about: "Remove the files of locks that nobody uses any more",
    usage: "[OPTIONS]",
    example: "--older-than 30d",
    more: &[
        "Locks that are held or waited for stay, as do those that were granted last less than DURATION ago, and whoever takes locks meanwhile is in no danger. \
         Stores that remove what is old by themselves, such as Redis, are left as they are.",
    ],
    flags: &["url", "older-than", "json", "config", "no-config", "help"],
    most_words: 0,
    run,
};

/// How long ago a lock was granted last, if nothing else is said.
const A_MONTH: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What became of the locks of a store.
#[derive(Clone, Copy, Debug, Default)]
struct Collected {
    removed: u64,
    kept: u64,
}

fn run(_: &Command, mut arguments: Arguments) -> Result<u8, Complaint> {
    let age = arguments.older_than.take().map(|age| duration("--older-than", age)).transpose();
    let age = age.map_err(Complaint::Usage)?.unwrap_or(A_MONTH);
    let store = arguments.store()?;
    let collected = ask(&store, async |locks| collect(locks, age))?;
    let url = words::one_line(&store.public_url());
    let text = match collected {
        Some(Collected { removed, kept }) if arguments.json => {
            Object::default().text("url", &url).number("removed", removed).number("kept", kept).finish()
        }
        None if arguments.json => Object::default().text("url", &url).finish(),
        Some(Collected { removed, kept }) => format!("{url}: {removed} removed, {kept} kept"),
        None => format!("{url}: nothing to remove, stores of this kind do so by themselves"),
    };
    Ok(words::print(&format!("{text}\n")))
}

/// `None` if there is nothing to be done in a store of this kind.
#[cfg(feature = "file")]
fn collect(locks: &Locks, age: Duration) -> Result<Option<Collected>, Error> {
    let backend: &dyn std::any::Any = locks.backend();
    let Some(file) = backend.downcast_ref::<locks::file::FileBackend>() else { return Ok(None) };
    let collected = file.collect_garbage(age)?;
    Ok(Some(Collected { removed: collected.removed, kept: collected.kept }))
}

/// Files are the file store's.
#[cfg(not(feature = "file"))]
fn collect(_: &Locks, _: Duration) -> Result<Option<Collected>, Error> {
    Ok(None)
}
