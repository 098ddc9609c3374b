//! The line of those who wait for one lock, over all processes.
//!
//! It lives in a second file beside the lock file, the gate. Whoever joins takes the next ticket, under a short flock of the gate, writes down who it is, and locks
//! the byte of the gate that has the ticket's number. It then waits for the byte of the one before it, which only it waits for, so
//! that nobody can slip in between when the kernel has woken it and it has not run yet. A process that dies
//! leaves the line with its descriptor.
//!
//! Systems without locks of the open file line up at the flock of the gate itself, which is nearly as good
//! while processors are not scarce.
//!
//! ```text
//!     0     the last ticket, 8 bytes, little-endian
//!   512 ..  who waits, 512 bytes each, in a ring: the record of ticket t lies at place t modulo 256
//! ```

use std::thread;
use std::time::Instant;

use locks_api::spi::Claim;
use locks_api::{Error, ErrorKind, Result};

use crate::boot::BootId;
use crate::directory::Directory;
use crate::file_name::FileName;
use crate::lock_file::{Flock, LockFile, Locked, TryLock};
use crate::ofd::{self, Bytes};
use crate::record::{self, Entry, Latest};
use crate::schedule::{Schedule, clock};
use crate::seats::{MOMENTS, mismatch};

/// Where the last ticket is written.
const LAST: u64 = 0;
/// Where the record of place 0 of the ring lies, how far apart they are, and how many there are.
const RECORDS: u64 = 512;
const RECORD: u64 = 512;
const RING: u64 = 256;
/// The byte of ticket 0. Far behind anything that is ever written.
const FIRST_BYTE: i64 = 1 << 32;
/// Tickets wrap around here, which takes some hundred thousand years.
const TICKETS: u64 = 1 << 61;
const ALL: Bytes = FIRST_BYTE..i64::MAX;

/// How many tickets are tried, should some be taken.
const TRIES: u32 = 100;

/// The gate of one lock, open.
#[derive(Debug)]
pub(crate) struct Line {
    gate: LockFile,
}

impl Line {
    pub(crate) fn open(directory: &Directory, file_name: &FileName) -> Result<Self> {
        Ok(Self { gate: LockFile::open(directory, &file_name.gate())? })
    }

    /// The gate, if there is one.
    pub(crate) fn open_if_there(directory: &Directory, file_name: &FileName) -> Result<Option<Self>> {
        Ok(LockFile::open_if_there(directory, &file_name.gate())?.map(|gate| Self { gate }))
    }

    /// The gate, for reading alone, if there is one.
    pub(crate) fn look(directory: &Directory, file_name: &FileName) -> Result<Option<Self>> {
        Ok(LockFile::look(directory, &file_name.gate())?.map(|gate| Self { gate }))
    }

    /// Keeps everybody from joining if nobody is in line; `None` if somebody is. Never waits.
    pub(crate) fn close_if_empty(self) -> Result<Option<Locked>> {
        match self.gate.try_lock(Flock::Exclusive)? {
            // A gate that was cleared away is nobody's line.
            TryLock::Locked(closed) if closed.is_in_place()? && !ofd::is_locked(&closed, &ALL)? => {
                Ok(Some(closed))
            }
            TryLock::Locked(_) | TryLock::Busy(_) => Ok(None),
        }
    }

    /// Those who wait, first come first; `None` for one of whom nothing is known. Never waits and takes nothing.
    pub(crate) fn waiters(&self, boot: BootId) -> Result<Vec<Option<Latest>>> {
        let tickets = ofd::locked_bytes(&self.gate, ALL)?;
        let mut waiters = Vec::with_capacity(tickets.len());
        for byte in tickets {
            let ticket = (byte - FIRST_BYTE).unsigned_abs();
            let mut record = [0; record::SLOT];
            self.gate.read(&mut record, place_of(ticket))?;
            waiters.push(record::decode(&record, boot).filter(|waiter| waiter.sequence == ticket));
        }
        Ok(waiters)
    }

    /// Refuses a claim for permits if others wait for permits of another number.
    pub(crate) fn check_limit(&self, claim: &Claim, boot: BootId) -> Result<()> {
        let Some(limit) = claim.mode.limit() else { return Ok(()) };
        let waiters = self.waiters(boot)?;
        let other = waiters.iter().flatten().filter_map(|waiter| waiter.mode.limit());
        match other.into_iter().find(|other| *other != limit) {
            Some(other) => Err(mismatch(other, claim.mode)),
            None => Ok(()),
        }
    }

    /// How many are in line before this ticket.
    pub(crate) fn ahead_of(&self, ticket: u64) -> Result<u64> {
        let before = FIRST_BYTE..byte(ticket).start;
        Ok(ofd::locked_bytes(&self.gate, before)?.len() as u64)
    }
}

/// Joins the line and marks the lock file: somebody waits. Waits while others join.
///
/// # Errors
///
/// [`ErrorKind::LimitMismatch`] if others wait for permits of another number.
pub(crate) fn join(
    directory: &Directory,
    file_name: &FileName,
    claim: &Claim,
    boot: BootId,
    mark: impl FnOnce() -> Result<()>,
) -> Result<Place> {
    loop {
        let gate = Line::open(directory, file_name)?.gate;
        let joining = gate.duplicate()?.lock(Flock::Exclusive)?;
        if joining.is_in_place()? {
            return Place::take(gate, joining, claim, boot, mark);
        }
    }
}

/// Joins the line, unless others keep the gate closed for long. Never waits for long.
pub(crate) fn try_join(
    directory: &Directory,
    file_name: &FileName,
    claim: &Claim,
    boot: BootId,
    mark: impl FnOnce() -> Result<()>,
) -> Result<Option<Place>> {
    if !ofd::SUPPORTED {
        return Ok(None);
    }
    let mut gate = Line::open(directory, file_name)?.gate;
    let start = Instant::now();
    while start.elapsed() < MOMENTS {
        match gate.duplicate()?.try_lock(Flock::Exclusive)? {
            TryLock::Locked(joining) if joining.is_in_place()? => {
                return Place::take(gate, joining, claim, boot, mark).map(Some);
            }
            TryLock::Locked(_) => gate = Line::open(directory, file_name)?.gate,
            TryLock::Busy(_) => thread::yield_now(),
        }
    }
    Ok(None)
}

/// A place in the line. Left when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    ticket: u64,
    line: Line,
    /// Where there are no tickets: the flock of the gate.
    _closed: Option<Locked>,
}

impl Place {
    fn take(
        gate: LockFile,
        joining: Locked,
        claim: &Claim,
        boot: BootId,
        mark: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let line = Line { gate };
        if !ofd::SUPPORTED {
            mark()?;
            return Ok(Self { ticket: 0, line, _closed: Some(joining) });
        }
        line.check_limit(claim, boot)?;
        let place = Self { ticket: line.next_ticket(claim, boot)?, line, _closed: None };
        // Before others can look: who finds the line empty clears the mark.
        mark()?;
        drop(joining);
        Ok(place)
    }

    /// Waits until everybody before has left the line.
    pub(crate) fn wait_for_turn(&self) -> Result<()> {
        if !ofd::SUPPORTED {
            return Ok(());
        }
        let own = byte(self.ticket).start;
        let mut before = own - 1..own;
        loop {
            ofd::wait(&self.line.gate, &before)?;
            // If the one before was killed, those before it are still in line.
            match ofd::find(&self.line.gate, &(FIRST_BYTE..own))? {
                Some(found) => before = found.bytes,
                None => return Ok(()),
            }
        }
    }

    /// Whether nobody is before.
    pub(crate) fn is_first(&self) -> Result<bool> {
        Ok(!ofd::is_locked(&self.line.gate, &(FIRST_BYTE..byte(self.ticket).start))?)
    }

    /// How many are before.
    pub(crate) fn ahead(&self) -> Result<u64> {
        self.line.ahead_of(self.ticket)
    }

    /// Leaves the line, also while a thread waits for its turn.
    pub(crate) fn leave(&self) {
        if ofd::SUPPORTED && self.line.gate.is_of_this_process() {
            // Explicitly, as programs that are being started have a copy of the descriptor. If it fails, closing does the same.
            drop(ofd::unlock(&self.line.gate, &byte(self.ticket)));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Line {
    /// Takes the next ticket. The flock of the gate keeps others from taking the same.
    ///
    /// No number is used twice: a thread whose claim was cancelled may still be about to wait for the ticket before that, and must not find
    /// itself behind a newer one.
    fn next_ticket(&self, claim: &Claim, boot: BootId) -> Result<u64> {
        let mut last = [0; 8];
        self.gate.read(&mut last, LAST)?;
        let mut ticket = u64::from_le_bytes(last);
        for _ in 0..TRIES {
            ticket = ticket % TICKETS + 1;
            match self.write_down(ticket, claim, boot) {
                // Waiting needs no room. It is only not told who it is.
                Err(error) if error.kind() == ErrorKind::StoreFull && claim.mode.limit().is_none() => {}
                written => written?,
            }
            // Taken already only if somebody tampered with the file.
            if ofd::try_lock(&self.gate, &byte(ticket))? {
                self.gate.write(&ticket.to_le_bytes(), LAST)?;
                return Ok(ticket);
            }
        }
        Err(Error::new(
            ErrorKind::Backend,
            format!("somebody else uses {}; remove the file", self.gate.path().display()),
        ))
    }

    fn write_down(&self, ticket: u64, claim: &Claim, boot: BootId) -> Result<()> {
        let schedule = Schedule::default();
        let entry = Entry { counter: 0, first_token: 0, boot, since_micros: clock(), claim, schedule };
        self.gate.write(&record::encode_alone(ticket, &entry), place_of(ticket))
    }
}

fn place_of(ticket: u64) -> u64 {
    RECORDS + RECORD * (ticket % RING)
}

fn byte(ticket: u64) -> Bytes {
    let byte = FIRST_BYTE + i64::try_from(ticket).unwrap_or(0);
    byte..byte + 1
}

#[cfg(test)]
#[cfg(any(target_os = "linux", target_os = "android"))]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use locks_api::LockName;
    use locks_api::spi::{ClaimId, InstanceId, Mode};

    use super::*;

    const BOOT: BootId = BootId::from_bytes([7; 16]);

    struct Files {
        directory: Directory,
        name: FileName,
    }

    impl Files {
        fn new(path: &Path) -> Self {
            let name = FileName::of(&LockName::new("x").unwrap());
            Self { directory: Directory::open(path, &crate::FileBackend::options()).unwrap(), name }
        }

        fn lock(&self) -> LockFile {
            LockFile::open(&self.directory, &self.name.lock()).unwrap()
        }

        fn claim(limit: u32) -> Claim {
            let claim = Claim::new(LockName::new("x").unwrap(), InstanceId::random());
            claim.with_mode(Mode::Permits { count: 1, limit })
        }

        fn try_join(&self, claim: &Claim) -> Result<Place> {
            join(&self.directory, &self.name, claim, BOOT, || self.lock().announce_waiting())
        }

        fn join(&self) -> Place {
            self.try_join(&Self::claim(5)).unwrap()
        }

        fn is_empty(&self) -> bool {
            Line::open(&self.directory, &self.name).unwrap().close_if_empty().unwrap().is_some()
        }

        fn waiters(&self) -> Vec<Option<ClaimId>> {
            let line = Line::look(&self.directory, &self.name).unwrap().unwrap();
            line.waiters(BOOT).unwrap().into_iter().map(|waiter| waiter?.claim).collect()
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
        thread::scope(|scope| {
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

    #[test]
    fn who_waits_can_be_read_and_no_number_is_used_twice() {
        let temp = tempfile::tempdir().unwrap();
        let files = Files::new(temp.path());
        for round in 0..3 {
            let claims = [(); 4].map(|()| Files::claim(5));
            let mut places: Vec<Place> = claims.iter().map(|claim| files.try_join(claim).unwrap()).collect();
            assert_eq!(
                places.iter().map(|place| place.ticket).collect::<Vec<_>>(),
                [1, 2, 3, 4].map(|ticket| 4 * round + ticket)
            );
            assert_eq!(places[3].ahead().unwrap(), 3);
            places.remove(1).leave();
            assert_eq!(files.waiters(), [0, 2, 3].map(|index: usize| Some(claims[index].id)));
            assert!(places[0].is_first().unwrap() && !places[1].is_first().unwrap());
        }
        assert_eq!(files.waiters(), []);
    }

    #[test]
    fn permits_of_two_numbers_are_not_waited_for_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let files = Files::new(temp.path());
        let place = files.join();
        let error = files.try_join(&Files::claim(7)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitMismatch);
        assert!(error.to_string().contains('5') && error.to_string().contains('7'), "{error}");
        drop(place);
        files.try_join(&Files::claim(7)).unwrap();
    }
}
