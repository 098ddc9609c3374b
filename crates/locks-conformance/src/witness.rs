//! A second opinion on who holds a lock, from the kernel: one bound abstract Unix socket per lock.
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
    _listener: UnixListener,
}

/// Somebody else is inside, and alive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    pub(crate) with_pid: u32,
}

impl Witness {
    /// Enters the lock of this name.
    ///
    /// The kernel closes the files of a dying process in no certain order, so a holder may find the witness of the one
    /// that has just died: it waits until that is gone. Nothing else is waited for.
    pub(crate) fn enter(lock: &str) -> io::Result<Result<Self, Overlap>> {
        let address = SocketAddr::from_abstract_name(format!("locks-conformance/{lock}"))?;
        let began = Instant::now();
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => return Ok(Ok(Self { _listener: listener })),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
            // Refused: it went away in between.
            if let Ok(stream) = UnixStream::connect_addr(&address) {
                let with_pid = socket_peercred(&stream)?.pid.as_raw_nonzero().get().unsigned_abs();
                if !is_dying(with_pid) || began.elapsed() > TEAR_DOWN {
                    return Ok(Err(Overlap { with_pid }));
                }
            }
            std::thread::yield_now();
        }
    }
}

/// A process gives up its memory before its files, and its command line goes with the memory.
fn is_dying(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

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
