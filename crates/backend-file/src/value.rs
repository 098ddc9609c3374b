//! The value beside an exclusive hold, for elections.
//!
//! It lies in the lock file, in one of two places that are written in turn, so that a write that was cut short spoils only a value that nobody was
//! promised. It belongs to one grant: under any other claim or token it is nobody's.
//!
//! ```text
//!   0 magic "locksval"   8 crc32 of the rest   12 length   16 sequence   24 claim (16)   40 first token   48 the value
//! ```

use locks_api::Result;
use locks_api::spi::ClaimId;

use crate::lock_file::LockFile;

const PLACES: [u64; 2] = [4096, 3 * 4096];
const MAGIC: [u8; 8] = *b"locksval";
const HEADER: usize = 48;
const MAX: usize = 4096;
const LEN: usize = HEADER + MAX;

/// Writes the value of this grant. Only by its holder, or by who is about to be.
pub(crate) fn write(file: &LockFile, claim: ClaimId, first_token: u64, value: &str) -> Result<()> {
    let [first, second] = both(file)?;
    let (sequence, place) = match (first, second) {
        (Some(first), Some(second)) if first.sequence > second.sequence => (first.sequence, PLACES[1]),
        (_, Some(second)) => (second.sequence, PLACES[0]),
        (Some(first), None) => (first.sequence, PLACES[1]),
        (None, None) => (0, PLACES[0]),
    };
    let mut bytes = MAGIC.to_vec();
    bytes.extend([0; 4]);
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(sequence.wrapping_add(1).to_le_bytes());
    bytes.extend(claim.to_bits().to_le_bytes());
    bytes.extend(first_token.to_le_bytes());
    bytes.extend(value.as_bytes());
    let sum = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    file.write(&bytes, place)
}

/// The value of this grant, if it has one.
pub(crate) fn read(file: &LockFile, claim: ClaimId, first_token: u64) -> Result<Option<String>> {
    let newest = both(file)?.into_iter().flatten().max_by_key(|value| value.sequence);
    Ok(newest
        .filter(|value| value.claim == claim.to_bits() && value.first_token == first_token)
        .map(|value| value.text))
}

struct Value {
    sequence: u64,
    claim: u128,
    first_token: u64,
    text: String,
}

fn both(file: &LockFile) -> Result<[Option<Value>; 2]> {
    let mut values = [None, None];
    for (value, place) in values.iter_mut().zip(PLACES) {
        let mut bytes = vec![0; LEN];
        let len = file.read(&mut bytes, place)?;
        *value = decode(&bytes[..len]);
    }
    Ok(values)
}

fn decode(bytes: &[u8]) -> Option<Value> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let u64_at = |start: usize| Some(u64::from_le_bytes(header.get(start..start + 8)?.try_into().ok()?));
    let [sum, len] = [8, 12].map(|start| u32::from_le_bytes([0, 1, 2, 3].map(|byte| header[start + byte])));
    let text = rest.get(..usize::try_from(len).ok()?)?;
    if header[..8] != MAGIC || crc32fast::hash(&bytes[12..HEADER + text.len()]) != sum {
        return None;
    }
    Some(Value {
        sequence: u64_at(16)?,
        claim: u128::from_le_bytes(header.get(24..40)?.try_into().ok()?),
        first_token: u64_at(40)?,
        text: String::from_utf8(text.to_vec()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::directory::Directory;

    #[test]
    fn the_newest_whole_value_of_this_very_grant_counts() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path(), &crate::FileBackend::options()).unwrap();
        let file = LockFile::open(&directory, "x.lock").unwrap();
        let [one, other] = [(); 2].map(|()| ClaimId::random());
        assert_eq!(read(&file, one, 1).unwrap(), None);
        let long = "é".repeat(MAX / 2);
        for value in ["first", "", &long, "last"] {
            write(&file, one, 1, value).unwrap();
            assert_eq!(read(&file, one, 1).unwrap().as_deref(), Some(value));
        }
        assert_eq!(read(&file, one, 2).unwrap(), None);
        assert_eq!(read(&file, other, 1).unwrap(), None);
        // The next write is cut short: the one before still counts.
        let place = if decode(&slot(&file, 0)).unwrap().text == "last" { 1 } else { 0 };
        write(&file, one, 1, "torn").unwrap();
        let disk = std::fs::OpenOptions::new().write(true).open(file.path()).unwrap();
        disk.write_all_at(b"x", PLACES[place] + HEADER as u64).unwrap();
        assert_eq!(read(&file, one, 1).unwrap().as_deref(), Some("last"));
        write(&file, other, 3, "next").unwrap();
        assert_eq!(read(&file, one, 1).unwrap(), None);
    }

    fn slot(file: &LockFile, place: usize) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        file.read(&mut bytes, PLACES[place]).unwrap();
        bytes
    }
}
