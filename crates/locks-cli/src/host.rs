//! `--one-per-host`: at most one process of this user and host waits for a lock or holds it.

use locks::Locks;
use sha2::{Digest, Sha256};

use crate::command_name::push_hex;
use crate::kind::{Held, Kind, Wish};
use crate::options::Options;
use crate::reactor::Reactor;
use crate::trouble::Trouble;

/// The right to be the one. It ends with the process, and when it is dropped.
#[derive(Debug)]
pub(crate) struct Alone {
    _held: Held,
    _locks: Locks,
}

/// Takes it, or says that somebody else of this host has it.
///
/// # Errors
///
/// If it is taken, or can't be had.
pub(crate) fn alone(options: &Options, reactor: &Reactor) -> Result<Alone, Trouble> {
    // In the directory of the lock itself if that is on this host, so that its users need no other.
    let url = options.store.directory_url().unwrap_or("file:");
    let mut hash = Sha256::new();
    for part in [options.store.identity().as_str(), options.wish.name.as_str()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let mut name = "one-per-host-".to_owned();
    push_hex(&mut name, &hash.finalize());
    let name = locks::LockName::new(name).map_err(|error| Trouble::store(&error))?;
    let wish = Wish {
        name,
        kind: Kind::Exclusive,
        ttl: None,
        min_hold: None,
        once_per: None,
        ..options.wish.clone()
    };
    let opened = reactor.run_unless_signalled(locks::connect(url)).map_err(Trouble::signal)?;
    let locks = opened.map_err(|error| Trouble::connect("--one-per-host", &error))?;
    let attempt = reactor.run_unless_signalled(wish.attempt(&locks)).map_err(Trouble::signal)?;
    match attempt {
        Ok(held) => Ok(Alone { _held: held, _locks: locks }),
        Err(error) => Err(Trouble::not_alone(&options.wish.name, &error)),
    }
}
