//! A second opinion on who holds a lock, from the kernel: one bound abstract Unix socket for each place inside a
//! lock, of which an exclusive one has one.
//!
//! It needs no clock and no file, and a killed process leaves nothing behind.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;

/// How long a process that is being torn down may take for it.
const TEAR_DOWN: Duration = Duration::from_secs(10);

/// Proof that nobody else is inside the lock. Leave by dropping it, before the lock is released.
#[derive(Debug)]
pub(crate) struct Witness {
    _listeners: Vec<UnixListener>,
}

/// How many places there are inside a lock, and how many of them a holder takes up: readers one of many and a writer all of them, holders of
/// permits one for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) of: u32,
    pub(crate) taken: u32,
}

/// Somebody else is inside, and alive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    pub(crate) with_pid: u32,
}

impl Witness {
    /// Enters the lock of this name, alone.
    pub(crate) fn enter(lock: &str) -> io::Result<Result<Self, Overlap>> {
        Self::take(lock, Places { of: 1, taken: 1 })
    }

    /// Enters the lock of this name beside others who leave it so many places.
    ///
    /// The kernel closes the files of a dying process in no certain order, so a holder may find the witness of the one
    /// that has just died: it waits until that is gone. Nothing else is waited for.
    pub(crate) fn take(lock: &str, places: Places) -> io::Result<Result<Self, Overlap>> {
        let began = Instant::now();
        let (mut listeners, first) = (Vec::new(), fastrand::u32(..places.of));
        loop {
            let mut alive = None;
            let mut dying = false;
            for place in (0..places.of).map(|place| (first + place) % places.of) {
                if listeners.len() == places.taken as usize {
                    break;
                }
                if listeners.iter().any(|(taken, _)| *taken == place) {
                    continue;
                }
                match enter_place(lock, place)? {
                    Inside::Me(listener) => listeners.push((place, listener)),
                    Inside::Nobody => dying = true,
                    Inside::Other(pid) if is_dying(pid) => dying = true,
                    Inside::Other(pid) => alive = Some(pid),
                }
            }
            if listeners.len() == places.taken as usize {
                let listeners = listeners.into_iter().map(|(_, listener)| listener).collect();
                return Ok(Ok(Self { _listeners: listeners }));
            }
            if let Some(with_pid) = alive
                && (!dying || began.elapsed() > TEAR_DOWN)
            {
                return Ok(Err(Overlap { with_pid }));
            }
            std::thread::yield_now();
        }
    }
}

/// Who is in a place.
enum Inside {
    Me(UnixListener),
    /// Whoever was there has just left.
    Nobody,
    Other(u32),
}

fn enter_place(lock: &str, place: u32) -> io::Result<Inside> {
    let address = SocketAddr::from_abstract_name(format!("locks-conformance/{place}/{lock}"))?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => return Ok(Inside::Me(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => return Err(error),
    }
    let Ok(stream) = UnixStream::connect_addr(&address) else { return Ok(Inside::Nobody) };
    let pid = socket_peercred(&stream)?.pid.as_raw_nonzero().get().unsigned_abs();
    Ok(Inside::Other(pid))
}

/// A process gives up its memory before its files, and its command line goes with the memory.
fn is_dying(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_inside_as_there_are_places() {
        let lock = format!("{:032x}", fastrand::u128(..));
        let take = |taken| Witness::take(&lock, Places { of: 5, taken }).unwrap();
        let (two, three) = (take(2).unwrap(), take(3).unwrap());
        assert_eq!(take(1).unwrap_err(), Overlap { with_pid: std::process::id() });
        drop(two);
        let until = Instant::now() + TEAR_DOWN;
        let one = loop {
            if let Ok(one) = take(1) {
                break one;
            }
            assert!(Instant::now() < until, "whoever left is still seen inside");
        };
        assert!(take(2).is_err());
        drop((one, three));
    }

    #[test]
    fn a_second_one_inside_is_seen() {
        let lock = format!("{:032x}", fastrand::u128(..));
        let first = Witness::enter(&lock).unwrap().unwrap();
        assert_eq!(Witness::enter(&lock).unwrap().unwrap_err(), Overlap { with_pid: std::process::id() });
        drop(first);
        // A child that another test of this process forks has the descriptor, too, until it becomes another program.
        let until = Instant::now() + TEAR_DOWN;
        while Witness::enter(&lock).unwrap().is_err() {
            assert!(Instant::now() < until, "whoever left is still seen inside");
            std::thread::yield_now();
        }
    }
}
