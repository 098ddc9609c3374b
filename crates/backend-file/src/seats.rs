//! Those who hold a lock together: a seat and a record for each, and the permits that it has.
//!
//! All of it is locked bytes of the lock file, which the kernel frees when their holder ends, however it ends:
//!
//! ```text
//!    1 << 40          the gate: held for the microseconds in which somebody decides and writes
//!   (1 << 40) + 1     in use: shared by all who have the side file of an existing path open
//!    1 << 41 ..       one byte for each seat
//!    1 << 42 ..       one byte for each permit
//!   (1 << 60) + t     the exclusive holder with the first token t lives, where that has to be seen
//! ```
//!
//! A holder writes its record before it locks the byte of its seat, so that a record counts exactly while the byte is locked. Records tell people and queries who
//! holds. Exclusion never trusts them: what decides is whether any seat is locked and which permits are.

use std::thread;
use std::time::{Duration, Instant};

use locks_api::spi::{Mode, TokenBlock};
use locks_api::{Error, ErrorKind, Result};

use crate::boot::BootId;
use crate::lock_file::{LockFile, Locked};
use crate::ofd::{self, Bytes, Part};
use crate::record::{self, Latest};

const GATE: Bytes = (1 << 40)..(1 << 40) + 1;
pub(crate) const IN_USE: Bytes = (1 << 40) + 1..(1 << 40) + 2;
const FIRST_SEAT: i64 = 1 << 41;
const MOST_SEATS: i64 = 1 << 20;
const SEATS: Bytes = FIRST_SEAT..FIRST_SEAT + MOST_SEATS;
const FIRST_PERMIT: i64 = 1 << 42;
const FIRST_LIFE: i64 = 1 << 60;

/// How long the gate may be closed by others before that is called long: they need microseconds, and a turn on a processor.
pub(crate) const MOMENTS: Duration = Duration::from_millis(20);

/// Where the record of seat 0 lies, and how far apart they are.
const RECORDS: u64 = 1 << 16;
const RECORD: u64 = 512;

/// The byte that says that the exclusive holder of this token lives.
pub(crate) fn life(first_token: u64) -> Bytes {
    let byte = FIRST_LIFE + i64::try_from(first_token).unwrap_or_default();
    byte..byte + 1
}

/// Whether anybody shares the lock or has permits of it, apart from this open file.
pub(crate) fn is_anybody_there(file: &LockFile) -> Result<bool> {
    ofd::is_locked(file, &SEATS)
}

/// Closes the gate behind this open file. Waits while others are behind it; unless `patient`, false if that takes more than moments.
pub(crate) fn enter(locked: &mut Locked, patient: bool) -> Result<bool> {
    let start = Instant::now();
    loop {
        if locked.try_bytes(&GATE)? {
            return Ok(true);
        }
        if patient || start.elapsed() > MOMENTS {
            break;
        }
        thread::yield_now();
    }
    if patient {
        locked.wait_for_bytes(&GATE)?;
    }
    Ok(patient)
}

/// Opens the gate again.
pub(crate) fn leave(locked: &Locked) -> Result<()> {
    ofd::unlock(locked, &GATE)
}

/// Takes a seat, with this record, for the grant with this token. Only behind the gate.
pub(crate) fn take(locked: &mut Locked, first_token: u64, record: &[u8]) -> Result<()> {
    for seat in candidates(first_token) {
        let byte = FIRST_SEAT + seat..FIRST_SEAT + seat + 1;
        if !ofd::is_locked(locked, &byte)? {
            locked.write(record, RECORDS + RECORD * seat.unsigned_abs())?;
            // Nobody else is behind the gate.
            if locked.try_bytes(&byte)? {
                return Ok(());
            }
        }
    }
    Err(Error::new(
        ErrorKind::StoreFull,
        format!("too many holders share {}, which has room for a million", locked.path().display()),
    ))
}

/// Seats to try: the first one, then any of ever more. So a file is no longer than a few times the most holders that it ever had,
/// and no crowd is looked through one by one.
fn candidates(seed: u64) -> impl Iterator<Item = i64> {
    let mut state = seed;
    let next = move |below: i64| {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        ((state >> 33) as i64) % below
    };
    let random = (2..=20).flat_map(|bits| [1_i64 << bits; 4]).map(next);
    std::iter::once(0).chain(random)
}

/// Takes so many of the permits, if there are so many. Only behind the gate.
pub(crate) fn take_permits(locked: &mut Locked, count: u32, limit: u32) -> Result<bool> {
    let Some(parts) = free_permits(locked, count, limit)? else { return Ok(false) };
    for part in parts {
        // Nobody else is behind the gate.
        if !locked.try_bytes(&part)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether so many permits seem to be free.
pub(crate) fn are_free(file: &LockFile, count: u32, limit: u32) -> Result<bool> {
    Ok(free_permits(file, count, limit)?.is_some())
}

/// Where so many permits are free: the first ones there are. Costs a question to the kernel for each piece that is free or taken, whatever the limit.
fn free_permits(file: &LockFile, count: u32, limit: u32) -> Result<Option<Vec<Bytes>>> {
    let mut wanted = i64::from(count);
    let mut free = Vec::new();
    ofd::walk(file, FIRST_PERMIT..FIRST_PERMIT + i64::from(limit), |part| {
        if let Part::Free(part) = part {
            let part = part.start..part.end.min(part.start + wanted);
            wanted -= part.end - part.start;
            free.push(part);
        }
        wanted > 0
    })?;
    Ok((wanted == 0).then_some(free))
}

/// The records of all seats that are taken, in the order of their grants. `None` for one that can't be read.
pub(crate) fn holders(file: &LockFile, boot: BootId) -> Result<Vec<Option<Latest>>> {
    let seats = ofd::locked_bytes(file, SEATS)?;
    let mut holders = Vec::with_capacity(seats.len());
    for seat in seats {
        let mut record = [0; record::SLOT];
        file.read(&mut record, RECORDS + RECORD * (seat - FIRST_SEAT).unsigned_abs())?;
        holders.push(record::decode(&record, boot));
    }
    holders.sort_by_key(|holder| holder.as_ref().and_then(|latest| latest.token));
    Ok(holders)
}

/// What keeps a claim from joining those who hold the lock together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Nothing.
    Fits,
    /// They hold it in another way.
    OtherMode,
    /// They have permits of another number.
    OtherLimit(u32),
}

/// Whether a claim may join, as far as the mode goes. Only behind the gate, under a flock.
pub(crate) fn fits(file: &LockFile, last: Mode, wanted: Mode) -> Result<Fit> {
    let same = match (last, wanted) {
        (Mode::Permits { limit: there, .. }, Mode::Permits { limit, .. }) => there == limit,
        (one, other) => one.is_compatible(other),
    };
    if same || !is_anybody_there(file)? {
        return Ok(Fit::Fits);
    }
    Ok(match (last.limit(), wanted.limit()) {
        (Some(there), Some(_)) => Fit::OtherLimit(there),
        _ => Fit::OtherMode,
    })
}

/// What a claim for permits is told when others have them by another number.
pub(crate) fn mismatch(there: u32, asked: Mode) -> Error {
    let asked = asked.limit().unwrap_or_default();
    Error::new(
        ErrorKind::LimitMismatch,
        format!("the semaphore is in use with a limit of {there} and was asked for with {asked}"),
    )
}

/// Marks the exclusive holder of these tokens as alive, for those who can't see its flock.
pub(crate) fn show_life(locked: &mut Locked, tokens: &TokenBlock) -> Result<()> {
    locked.try_bytes(&life(tokens.first().get())).map(drop)
}

#[cfg(test)]
#[cfg(any(target_os = "linux", target_os = "android"))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::directory::Directory;
    use crate::lock_file::{Flock, TryLock};

    fn open(path: &Path) -> Locked {
        let directory = Directory::open(path, &crate::FileBackend::options()).unwrap();
        match LockFile::open(&directory, "x.lock").unwrap().try_lock(Flock::Shared).unwrap() {
            TryLock::Locked(locked) => locked,
            TryLock::Busy(file) => panic!("busy: {file:?}"),
        }
    }

    #[test]
    fn permits_are_counted_by_the_kernel_and_the_largest_limit_costs_nothing() {
        let temp = tempfile::tempdir().unwrap();
        for limit in [5, u32::MAX] {
            let [mut one, mut two, mut three] = [(); 3].map(|()| open(temp.path()));
            assert!(take_permits(&mut one, 2, limit).unwrap());
            assert!(take_permits(&mut two, limit - 3, limit).unwrap());
            assert!(!take_permits(&mut three, 2, limit).unwrap());
            assert!(take_permits(&mut three, 1, limit).unwrap());
            assert!(!take_permits(&mut open(temp.path()), 1, limit).unwrap());
            // What is free then is in two pieces.
            drop(one);
            drop(three);
            let mut four = open(temp.path());
            assert!(!take_permits(&mut four, 4, limit).unwrap());
            assert!(take_permits(&mut four, 3, limit).unwrap());
            assert!(!take_permits(&mut open(temp.path()), 1, limit).unwrap());
            drop(two);
            assert!(take_permits(&mut open(temp.path()), limit - 3, limit).unwrap());
        }
    }

    #[test]
    fn a_thousand_seats_stay_close_together() {
        let seats: Vec<i64> = candidates(7).collect();
        assert_eq!(seats[0], 0);
        assert!(seats[1..5].iter().all(|seat| (0..4).contains(seat)));
        assert!(seats.iter().all(|seat| (0..MOST_SEATS).contains(seat)));
    }
}
