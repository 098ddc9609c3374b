//! What a lock file holds: the token counter, who holds the lock, and whether somebody waits.
//!
//! ```text
//!      0 ..  511  slot 0
//!    511          waiting: not 0 if somebody may wait at the gate
//!    512 .. 1023  slot 1
//!   1024 ..       full name of the lock, only where the file's name is a hash
//! ```
//!
//! The two slots are written in turn, each with one `pwrite`, so that a write that was cut short spoils only the newer one, whose tokens
//! nobody has seen. The waiting byte lies between them so that the one write of either slot can clear it, and outside of both
//! so that a write can also leave it alone.
//!
//! A slot, all numbers little-endian. Magic, checksum, version and length keep their places and their meaning in every later version:
//!
//! ```text
//!   0 magic "locksrec"   8 crc32 of the record but these 4 bytes   12 version   14 length of the record
//!  16 sequence          24 token counter                           32 boot id (16)
//!  48 pid               52 length of host   54 zero                56 since, µs since 1970
//!  64 host, then label
//! ```

use std::time::{Duration, SystemTime};

use locks_api::spi::TokenBlock;
use locks_api::{Error, ErrorKind, Holder, LockName};

use crate::boot::BootId;

const SLOT: usize = 511;
const SLOTS: [usize; 2] = [0, 512];
/// Where the waiting byte lies.
pub(crate) const WAITING: usize = 511;
/// What one read fetches: both slots and the byte between them.
pub(crate) const LEN: usize = 1023;

const MAGIC: [u8; 8] = *b"locksrec";
const VERSION: u16 = 1;
const TEXT: usize = 64;
const MAX_HOST: usize = 128;

/// A lock file's first [`LEN`] bytes, checked.
pub(crate) struct Contents {
    bytes: [u8; LEN],
    /// Which slot was written last, if one is whole.
    newest: Option<usize>,
}

impl Contents {
    /// Checks what was read. A slot that is empty, torn or spoilt counts as not there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] if a whole slot was written by a later version of this format.
    pub(crate) fn check(bytes: [u8; LEN]) -> Result<Self, Error> {
        let mut newest = None;
        for (index, start) in SLOTS.into_iter().enumerate() {
            let slot = &bytes[start..start + SLOT];
            if slot[..8] != MAGIC || checksum(slot) != Some(u32::from_le_bytes(array(slot, 8))) {
                continue;
            }
            let version = u16::from_le_bytes(array(slot, 12));
            if version != VERSION {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the lock file has format {version} and this program knows format {VERSION}; update the program"
                    ),
                ));
            }
            let sequence = u64::from_le_bytes(array(slot, 16));
            if newest.is_none_or(|(_, highest)| sequence > highest) {
                newest = Some((index, sequence));
            }
        }
        Ok(Self { bytes, newest: newest.map(|(index, _)| index) })
    }

    /// Whether somebody may wait at the gate.
    pub(crate) fn somebody_waits(&self) -> bool {
        self.bytes[WAITING] != 0
    }

    /// Whether the file was never granted from, or has lost its counter.
    pub(crate) fn is_new(&self) -> bool {
        self.newest.is_none()
    }

    /// The tokens of the next grant, made in `boot` when the clock shows `clock_micros`. `None` once they are used up.
    pub(crate) fn next_tokens(&self, boot: BootId, clock_micros: u64) -> Option<TokenBlock> {
        let Some(slot) = self.newest_slot() else { return TokenBlock::without_counter(None, clock_micros) };
        let counter = u64::from_le_bytes(array(slot, 24));
        if BootId::from_bytes(array(slot, 32)).is_same_boot(boot) {
            TokenBlock::after(counter, clock_micros)
        } else {
            // Writes of the last boot may not have reached the disk.
            TokenBlock::without_counter(Some(counter), clock_micros)
        }
    }

    /// Who was granted the lock last, if that can still be so.
    pub(crate) fn holder(&self, boot: BootId) -> Option<Holder> {
        let slot = self.newest_slot()?;
        let since = SystemTime::UNIX_EPOCH + Duration::from_micros(u64::from_le_bytes(array(slot, 56)));
        if BootId::from_bytes(array(slot, 32)) != boot || since > SystemTime::now() {
            return None;
        }
        let end = usize::from(u16::from_le_bytes(array(slot, 14)));
        let host_end = TEXT + usize::from(u16::from_le_bytes(array(slot, 52)));
        let text = |range| {
            Some(std::str::from_utf8(slot.get(range)?).ok()?.to_owned()).filter(|text| !text.is_empty())
        };
        let mut holder = Holder::default().with_since(since);
        holder.pid = Some(u32::from_le_bytes(array(slot, 48))).filter(|&pid| pid != 0);
        holder.host = text(TEXT..host_end);
        holder.label = text(host_end..end);
        Some(holder)
    }

    /// The write that records a grant: where it goes and what it says. It also clears the waiting byte if `clear_waiting`.
    pub(crate) fn next_write(&self, grant: &Granting<'_>, clear_waiting: bool) -> (u64, Write) {
        let sequence =
            self.newest_slot().map_or(0, |slot| u64::from_le_bytes(array(slot, 16))).wrapping_add(1);
        let index = self.newest.map_or(0, |newest| 1 - newest);
        let before = usize::from(clear_waiting && index == 1);
        let after = usize::from(clear_waiting && index == 0);
        let mut write = Write { bytes: [0; SLOT + 1], len: before + SLOT + after };
        encode(&mut write.bytes[before..before + SLOT], sequence, grant);
        ((SLOTS[index] - before) as u64, write)
    }

    fn newest_slot(&self) -> Option<&[u8]> {
        let start = SLOTS[self.newest?];
        Some(&self.bytes[start..start + SLOT])
    }
}

/// What a grant records.
pub(crate) struct Granting<'a> {
    pub(crate) counter: u64,
    pub(crate) boot: BootId,
    pub(crate) since_micros: u64,
    pub(crate) holder: &'a Holder,
}

/// The bytes of one `pwrite`.
pub(crate) struct Write {
    bytes: [u8; SLOT + 1],
    len: usize,
}

impl Write {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn encode(slot: &mut [u8], sequence: u64, grant: &Granting<'_>) {
    let host = prefix(grant.holder.host.as_deref().unwrap_or_default(), MAX_HOST);
    let label = prefix(grant.holder.label.as_deref().unwrap_or_default(), SLOT - TEXT - host.len());
    slot[..8].copy_from_slice(&MAGIC);
    slot[12..14].copy_from_slice(&VERSION.to_le_bytes());
    slot[14..16].copy_from_slice(&((TEXT + host.len() + label.len()) as u16).to_le_bytes());
    slot[16..24].copy_from_slice(&sequence.to_le_bytes());
    slot[24..32].copy_from_slice(&grant.counter.to_le_bytes());
    slot[32..48].copy_from_slice(&grant.boot.to_bytes());
    slot[48..52].copy_from_slice(&grant.holder.pid.unwrap_or_default().to_le_bytes());
    slot[52..54].copy_from_slice(&(host.len() as u16).to_le_bytes());
    slot[56..64].copy_from_slice(&grant.since_micros.to_le_bytes());
    slot[TEXT..TEXT + host.len()].copy_from_slice(host.as_bytes());
    slot[TEXT + host.len()..TEXT + host.len() + label.len()].copy_from_slice(label.as_bytes());
    let checksum = checksum(slot).unwrap_or_default();
    slot[8..12].copy_from_slice(&checksum.to_le_bytes());
}

/// Over the whole record but the checksum itself; `None` if its length can't be.
fn checksum(slot: &[u8]) -> Option<u32> {
    let end = usize::from(u16::from_le_bytes(array(slot, 14)));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot[..8]);
    hasher.update(slot.get(12..end).filter(|rest| rest.len() >= TEXT - 12)?);
    Some(hasher.finalize())
}

/// The longest prefix of whole characters that fits into `max` bytes.
fn prefix(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn array<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[start..start + N]);
    array
}

/// Where the full name lies in a file whose own name is a hash.
pub(crate) const NAME: u64 = 1024;
const NAME_MAGIC: [u8; 8] = *b"locksnam";
const NAME_HEADER: usize = 16;
/// The most bytes that the name takes in the file.
pub(crate) const NAME_LEN: usize = NAME_HEADER + LockName::MAX_BYTES;

/// The bytes that store `name`: magic, crc32 of the name, its length, zero, the name.
pub(crate) fn encode_name(name: &LockName) -> Vec<u8> {
    let name = name.as_str().as_bytes();
    let mut bytes = NAME_MAGIC.to_vec();
    bytes.extend(crc32fast::hash(name).to_le_bytes());
    bytes.extend((name.len() as u32).to_le_bytes());
    bytes.extend(name);
    bytes
}

/// The name in these bytes, if it was written whole.
pub(crate) fn decode_name(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_at_checked(NAME_HEADER)?;
    let len = u32::from_le_bytes(array(header, 12));
    let name = rest.get(..usize::try_from(len).ok()?)?;
    (header[..8] == NAME_MAGIC && u32::from_le_bytes(array(header, 8)) == crc32fast::hash(name))
        .then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId::from_bytes([7; 16]);
    const OTHER_BOOT: BootId = BootId::from_bytes([8; 16]);

    fn holder() -> Holder {
        let mut holder = Holder::default().with_label("backup");
        holder.pid = Some(4711);
        holder.host = Some("db1".to_owned());
        holder
    }

    /// A file to which grants are written as the backend writes them.
    struct Disk([u8; LEN]);

    impl Disk {
        fn contents(&self) -> Contents {
            Contents::check(self.0).unwrap()
        }

        fn grant(&mut self, counter: u64, boot: BootId, clear_waiting: bool) -> (usize, usize) {
            let granting = Granting { counter, boot, since_micros: 1_000, holder: &holder() };
            let (offset, write) = self.contents().next_write(&granting, clear_waiting);
            let start = usize::try_from(offset).unwrap();
            let end = start + write.as_bytes().len();
            self.0[start..end].copy_from_slice(write.as_bytes());
            (start, end)
        }

        fn first_token(&self, clock: u64) -> u64 {
            self.contents().next_tokens(BOOT, clock).unwrap().first().get()
        }
    }

    #[test]
    fn a_new_file_starts_at_the_clock_and_goes_on_from_its_counter() {
        let mut disk = Disk([0; LEN]);
        assert!(disk.contents().is_new());
        assert_eq!(disk.first_token(5_000), 5_000);
        disk.grant(5_000, BOOT, false);
        assert!(!disk.contents().is_new());
        assert_eq!(disk.first_token(9_000), 5_001);
        assert_eq!(disk.contents().next_tokens(BOOT, 9_000).unwrap().len(), 64);
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let mut disk = Disk([0; LEN]);
        for counter in [10, 20, 30] {
            disk.grant(counter, BOOT, false);
        }
        assert_eq!(disk.first_token(1), 31);
        // The write of 40 is cut at every possible place: either it counts, or 30 still does.
        for cut in 0..SLOT {
            let mut torn = Disk(disk.0);
            let before = torn.0;
            let (start, end) = torn.grant(40, BOOT, false);
            let whole = torn.0;
            torn.0[start + cut..end].copy_from_slice(&before[start + cut..end]);
            let expected = if torn.0 == whole { 41 } else { 31 };
            assert_eq!(torn.first_token(1), expected, "cut after {cut} bytes");
        }
    }

    #[test]
    fn a_spoilt_file_goes_on_at_the_clock() {
        let mut disk = Disk([0; LEN]);
        disk.grant(10, BOOT, false);
        disk.grant(20, BOOT, false);
        disk.0[30] ^= 1;
        disk.0[540] ^= 1;
        assert!(disk.contents().is_new());
        assert_eq!(disk.first_token(1_000_000), 1_000_000);
        assert_eq!(disk.contents().holder(BOOT), None);
    }

    #[test]
    fn after_a_restart_tokens_go_on_above_both_the_counter_and_the_clock() {
        let mut disk = Disk([0; LEN]);
        disk.grant(500, OTHER_BOOT, false);
        assert_eq!(disk.first_token(9_000), 9_000);
        assert_eq!(disk.first_token(100), 501);
        let unknown = BootId::from_bytes([0; 16]);
        disk.grant(500, unknown, false);
        assert_eq!(disk.contents().next_tokens(unknown, 9_000).unwrap().first().get(), 9_000);
    }

    #[test]
    fn a_later_format_is_refused_and_not_overwritten() {
        let mut disk = Disk([0; LEN]);
        disk.grant(10, BOOT, false);
        disk.0[12] = 2;
        let sum = checksum(&disk.0[..SLOT]).unwrap();
        disk.0[8..12].copy_from_slice(&sum.to_le_bytes());
        let error = Contents::check(disk.0).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 2"), "{error}");
    }

    #[test]
    fn only_a_write_that_clears_the_waiting_byte_touches_it() {
        for grants in 0..4 {
            let mut disk = Disk([0; LEN]);
            for counter in 0..grants {
                disk.grant(counter, BOOT, false);
            }
            disk.0[WAITING] = 1;
            disk.grant(100, BOOT, false);
            assert!(disk.contents().somebody_waits());
            disk.grant(101, BOOT, true);
            assert!(!disk.contents().somebody_waits());
            assert_eq!(disk.first_token(1), 102);
        }
    }

    #[test]
    fn the_holder_is_told_only_if_it_can_still_hold() {
        let mut disk = Disk([0; LEN]);
        disk.grant(1, BOOT, false);
        let since = SystemTime::UNIX_EPOCH + Duration::from_micros(1_000);
        assert_eq!(disk.contents().holder(BOOT), Some(holder().with_since(since)));
        assert_eq!(disk.contents().holder(OTHER_BOOT), None);
    }

    #[test]
    fn texts_that_do_not_fit_are_cut_between_characters() {
        let mut long = holder().with_label("é".repeat(400));
        long.host = Some("h".repeat(300));
        let granting = Granting { counter: 1, boot: BOOT, since_micros: 1, holder: &long };
        let mut bytes = [0; LEN];
        encode(&mut bytes[..SLOT], 1, &granting);
        let read = Contents::check(bytes).unwrap().holder(BOOT).unwrap();
        assert_eq!(read.host, Some("h".repeat(MAX_HOST)));
        assert_eq!(read.label, Some("é".repeat((SLOT - TEXT - MAX_HOST) / 2)));
    }

    #[test]
    fn a_stored_name_reads_back_only_if_it_is_whole() {
        let name = LockName::new("n".repeat(1024)).unwrap();
        let bytes = encode_name(&name);
        assert_eq!(bytes.len(), NAME_LEN);
        assert_eq!(decode_name(&bytes), Some(name.as_str().as_bytes()));
        assert_eq!(decode_name(&bytes[..500]), None);
        assert_eq!(decode_name(&[0; NAME_LEN]), None);
        assert_eq!(decode_name(&[]), None);
    }
}
