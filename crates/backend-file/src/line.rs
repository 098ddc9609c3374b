//! The line of those who wait for one lock, over all processes.
//!
//! It lives in a second file beside the lock file, the gate. Whoever joins takes the next ticket, under a short flock of the gate, and locks the
//! byte of the gate that has the ticket's number. It then waits for the byte of the one before it, which only it waits for, so
//! that nobody can slip in between when the kernel has woken it and it has not run yet. A process that dies
//! leaves the line with its descriptor.
//!
//! The bytes are locked for the open file (OFD locks, Linux 3.15), since plain POSIX locks are lost when any
//! descriptor of the file is closed. Systems without them line up at the flock of the gate itself, which is nearly as good
//! while processors are not scarce.

use locks_api::Result;

use crate::directory::Directory;
use crate::file_name::FileName;
use crate::lock_file::{LockFile, Locked, TryLock};

/// The gate of one lock, open.
#[derive(Debug)]
pub(crate) struct Line {
    gate: LockFile,
}

impl Line {
    pub(crate) fn open(directory: &Directory, file_name: &FileName) -> Result<Self> {
        Ok(Self { gate: LockFile::open(directory, &file_name.gate())? })
    }

    /// Keeps everybody from joining if nobody is in line; `None` if somebody is. Never waits.
    pub(crate) fn close_if_empty(self) -> Result<Option<Locked>> {
        match self.gate.try_lock()? {
            TryLock::Locked(closed) if !tickets::any(&closed)? => Ok(Some(closed)),
            TryLock::Locked(_) | TryLock::Busy(_) => Ok(None),
        }
    }

    /// Joins the line and marks the lock file: somebody waits.
    pub(crate) fn join(self, lock: &LockFile) -> Result<Place> {
        let joining = self.gate.duplicate()?.lock()?;
        self.join_closed(joining, lock)
    }

    /// Joins the line unless somebody else is just joining or looking. Never waits.
    pub(crate) fn try_join(self, lock: &LockFile) -> Result<Spot> {
        match self.gate.duplicate()?.try_lock()? {
            TryLock::Locked(joining) => Ok(Spot::InLine(self.join_closed(joining, lock)?)),
            TryLock::Busy(_) => Ok(Spot::AtTheEnd(self)),
        }
    }

    fn join_closed(self, joining: Locked, lock: &LockFile) -> Result<Place> {
        let ticket = tickets::take(&self.gate)?;
        let mut place = Place { ticket, gate: self.gate, closed: None };
        // Before others can look: who finds the line empty clears the mark.
        lock.announce_waiting()?;
        place.closed = (!tickets::SUPPORTED).then_some(joining);
        Ok(place)
    }
}

/// Where one stands who tried to join.
#[derive(Debug)]
pub(crate) enum Spot {
    InLine(Place),
    /// Not in line yet.
    AtTheEnd(Line),
}

/// A place in the line. Left when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    ticket: tickets::Ticket,
    gate: LockFile,
    /// Where there are no tickets: the flock of the gate.
    closed: Option<Locked>,
}

impl Place {
    /// Waits until everybody before has left the line.
    pub(crate) fn wait_for_turn(&self) -> Result<()> {
        tickets::wait_for_turn(&self.gate, &self.ticket)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.gate.is_of_this_process() {
            // Explicitly, as programs that are being started have a copy of the descriptor. If it fails, closing does the same.
            drop(tickets::give_back(&self.gate, &self.ticket));
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod tickets {
    use locks_api::Result;
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    use crate::lock_file::LockFile;

    pub(super) const SUPPORTED: bool = true;

    /// Where the last ticket is written, as 8 bytes, little-endian.
    const LAST: u64 = 0;

    /// The byte of ticket 0. Far behind anything that is ever written.
    const FIRST_BYTE: i64 = 1 << 32;

    /// Tickets wrap around here, which takes some hundred thousand years.
    const TICKETS: u64 = 1 << 61;

    /// A number whose byte is locked.
    #[derive(Debug)]
    pub(super) struct Ticket(u64);

    /// Takes the next ticket. The flock of the gate keeps others from taking the same.
    pub(super) fn take(gate: &LockFile) -> Result<Ticket> {
        let mut last = [0; 8];
        gate.read(&mut last, LAST)?;
        let mut number = u64::from_le_bytes(last);
        loop {
            number = number % TICKETS + 1;
            // Taken already only if somebody tampered with the file.
            if set(gate, libc::F_WRLCK, byte(number))? {
                break;
            }
        }
        gate.write(&number.to_le_bytes(), LAST)?;
        Ok(Ticket(number))
    }

    pub(super) fn give_back(gate: &LockFile, ticket: &Ticket) -> Result<bool> {
        set(gate, libc::F_UNLCK, byte(ticket.0))
    }

    pub(super) fn wait_for_turn(gate: &LockFile, ticket: &Ticket) -> Result<()> {
        let mut before = byte(ticket.0) - 1;
        loop {
            wait(gate, before)?;
            // If the one before was killed, those before it are still in line.
            match find(gate, FIRST_BYTE, byte(ticket.0) - FIRST_BYTE)? {
                Some(found) => before = found,
                None => return Ok(()),
            }
        }
    }

    /// Whether anybody else is in line.
    pub(super) fn any(gate: &LockFile) -> Result<bool> {
        Ok(find(gate, FIRST_BYTE, 0)?.is_some())
    }

    fn byte(number: u64) -> i64 {
        FIRST_BYTE + i64::try_from(number).unwrap_or(0)
    }

    /// Locks or unlocks a byte. False if somebody else has it.
    fn set(gate: &LockFile, kind: libc::c_int, byte: i64) -> Result<bool> {
        match fcntl(gate, FcntlArg::F_OFD_SETLK(&bytes(kind, byte, 1))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(gate.failed("lock", error.into())),
        }
    }

    /// Waits until nobody else has a byte.
    fn wait(gate: &LockFile, byte: i64) -> Result<()> {
        loop {
            match fcntl(gate, FcntlArg::F_OFD_SETLKW(&bytes(libc::F_RDLCK, byte, 1))) {
                Ok(_) => return set(gate, libc::F_UNLCK, byte).map(drop),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(gate.failed("lock", error.into())),
            }
        }
    }

    /// One of these bytes that somebody else has locked; a `len` of 0 is all from `start` on.
    fn find(gate: &LockFile, start: i64, len: i64) -> Result<Option<i64>> {
        let mut found = bytes(libc::F_WRLCK, start, len);
        match fcntl(gate, FcntlArg::F_OFD_GETLK(&mut found)) {
            Ok(_) if libc::c_int::from(found.l_type) == libc::F_UNLCK => Ok(None),
            Ok(_) => Ok(Some(found.l_start)),
            Err(error) => Err(gate.failed("check", error.into())),
        }
    }

    fn bytes(kind: libc::c_int, start: i64, len: i64) -> libc::flock {
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: len,
            l_pid: 0, // as OFD locks demand
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod tickets {
    use locks_api::Result;

    use crate::lock_file::LockFile;

    pub(super) const SUPPORTED: bool = false;

    #[derive(Debug)]
    pub(super) struct Ticket;

    pub(super) fn take(_gate: &LockFile) -> Result<Ticket> {
        Ok(Ticket)
    }

    pub(super) fn give_back(_gate: &LockFile, _ticket: &Ticket) -> Result<bool> {
        Ok(true)
    }

    pub(super) fn wait_for_turn(_gate: &LockFile, _ticket: &Ticket) -> Result<()> {
        Ok(())
    }

    pub(super) fn any(_gate: &LockFile) -> Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
#[cfg(any(target_os = "linux", target_os = "android"))]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use locks_api::LockName;

    use super::*;

    struct Files {
        directory: Directory,
        name: FileName,
    }

    impl Files {
        fn new(path: &Path) -> Self {
            let name = FileName::of(&LockName::new("x").unwrap());
            Self { directory: Directory::open(path, false, false).unwrap(), name }
        }

        fn lock(&self) -> LockFile {
            LockFile::open(&self.directory, &self.name.lock()).unwrap()
        }

        fn line(&self) -> Line {
            Line::open(&self.directory, &self.name).unwrap()
        }

        fn join(&self) -> Place {
            self.line().join(&self.lock()).unwrap()
        }

        fn is_empty(&self) -> bool {
            self.line().close_if_empty().unwrap().is_some()
        }
    }

    #[test]
    fn the_line_is_empty_when_everybody_has_left_it() {
        let temp = tempfile::tempdir().unwrap();
        let files = Files::new(temp.path());
        assert!(files.is_empty());
        assert!(!files.lock().contents().unwrap().somebody_waits());
        let places = [files.join(), files.join()];
        assert!(files.lock().contents().unwrap().somebody_waits());
        for place in places {
            assert!(!files.is_empty());
            drop(place);
        }
        assert!(files.is_empty());
    }

    #[test]
    fn each_waits_for_all_before_it_and_for_nobody_else() {
        let temp = tempfile::tempdir().unwrap();
        let files = Files::new(temp.path());
        let (first, second, third) = (files.join(), files.join(), files.join());
        first.wait_for_turn().unwrap();
        std::thread::scope(|scope| {
            let (told, turns) = mpsc::channel();
            scope.spawn(move || {
                third.wait_for_turn().unwrap();
                told.send("third").unwrap();
                drop(third);
            });
            // As if its process were killed: the third one still has to wait for the first.
            drop(second);
            assert_eq!(turns.recv_timeout(std::time::Duration::from_millis(50)).ok(), None);
            drop(first);
            assert_eq!(turns.recv(), Ok("third"));
        });
        assert!(files.is_empty());
    }

    #[test]
    fn a_spoilt_gate_gives_new_tickets() {
        let temp = tempfile::tempdir().unwrap();
        let files = Files::new(temp.path());
        drop(files.join());
        for spoilt in [&[0xff; 8][..], b"abc", b""] {
            std::fs::write(files.directory.path().join(files.name.gate()), spoilt).unwrap();
            let place = files.join();
            place.wait_for_turn().unwrap();
            assert!(!files.is_empty());
            drop(place);
            assert!(files.is_empty());
        }
    }
}
