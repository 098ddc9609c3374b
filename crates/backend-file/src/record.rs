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
//!  48 pid               52 length of host   54 mode (1 exclusive, 2 shared, 3 permits)   55 zero
//!  56 since             64 limit            68 count of permits    72 first token
//!  80 claim (16)        96 not before      104 the claim that says so (16)
//! 120 last completed   128 longest once-per interval              136 host, then label
//! ```
//!
//! Instants and intervals are in µs, instants since 1970. Version 1 had no more than the exclusive lock: zero at 54, and host and label from 64 on. It is
//! read as that; whatever is written is version 2.
//!
//! Those who share a lock, and those who wait, each have a record of the same form elsewhere, see [`seats`](crate::seats) and [`line`](crate::line).

use std::time::{Duration, SystemTime};

use locks_api::spi::{Claim, ClaimId, Mode, TokenBlock};
use locks_api::{Error, ErrorKind, FencingToken, Holder};

use crate::boot::BootId;
use crate::schedule::Schedule;

/// The length of a record.
pub(crate) const SLOT: usize = 511;
const SLOTS: [usize; 2] = [0, 512];
/// Where the waiting byte lies.
pub(crate) const WAITING: usize = 511;
/// What one read fetches: both slots and the byte between them.
pub(crate) const LEN: usize = 1023;

const MAGIC: [u8; 8] = *b"locksrec";
const VERSION: u16 = 2;
const TEXT: usize = 136;
const TEXT_IN_VERSION_1: usize = 64;
const MAX_HOST: usize = 128;

/// Where the schedule lies in a slot.
const SCHEDULE: usize = 96;

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
            let Some(version) = version(slot) else { continue };
            if !(1..=VERSION).contains(&version) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the lock file has format {version} and this program knows format {VERSION}; update the program"
                    ),
                ));
            }
            let sequence = u64_at(slot, 16);
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

    /// The last token that was handed out.
    pub(crate) fn counter(&self) -> Option<u64> {
        self.newest_slot().map(|slot| u64_at(slot, 24))
    }

    /// The tokens of the next grant, made in `boot` when the clock shows `clock_micros`. `None` once they are used up.
    pub(crate) fn next_tokens(&self, boot: BootId, clock_micros: u64) -> Option<TokenBlock> {
        let Some(slot) = self.newest_slot() else { return TokenBlock::without_counter(None, clock_micros) };
        let counter = u64_at(slot, 24);
        if boot_of(slot).is_same_boot(boot) {
            TokenBlock::after(counter, clock_micros)
        } else {
            // Writes of the last boot may not have reached the disk.
            TokenBlock::without_counter(Some(counter), clock_micros)
        }
    }

    /// The latest grant, if it can still hold.
    pub(crate) fn latest(&self, boot: BootId) -> Option<Latest> {
        self.newest_slot().and_then(|slot| decode(slot, boot))
    }

    /// How the lock was granted last.
    pub(crate) fn mode(&self) -> Mode {
        self.newest_slot().and_then(mode_of).unwrap_or(Mode::Exclusive)
    }

    /// When the lock is due.
    pub(crate) fn schedule(&self) -> Schedule {
        match self.newest_slot() {
            Some(slot) if version(slot) != Some(1) => Schedule {
                not_before: u64_at(slot, SCHEDULE),
                by: u128_at(slot, SCHEDULE + 8),
                last_completed: u64_at(slot, SCHEDULE + 24),
                longest_interval: u64_at(slot, SCHEDULE + 32),
            },
            _ => Schedule::default(),
        }
    }

    /// The write that records a grant: where it goes and what it says. It also clears the waiting byte if `clear_waiting`.
    pub(crate) fn next_write(&self, entry: &Entry<'_>, clear_waiting: bool) -> (u64, Write) {
        self.write_next(clear_waiting, |slot, sequence| encode(slot, sequence, entry))
    }

    /// The write that keeps the latest grant as it is but for the schedule, and for its mode if it turns into a shared one.
    pub(crate) fn next_change(&self, schedule: &Schedule, shared: bool) -> (u64, Write) {
        self.write_next(false, |slot, sequence| {
            if let Some(newest) = self.newest_slot() {
                slot.copy_from_slice(newest);
                slot[16..24].copy_from_slice(&sequence.to_le_bytes());
                encode_schedule(slot, schedule);
                if shared {
                    encode_mode(slot, Mode::Shared);
                }
                seal(slot);
            }
        })
    }

    fn write_next(&self, clear_waiting: bool, fill: impl FnOnce(&mut [u8], u64)) -> (u64, Write) {
        let sequence = self.newest_slot().map_or(0, |slot| u64_at(slot, 16)).wrapping_add(1);
        let index = self.newest.map_or(0, |newest| 1 - newest);
        let before = usize::from(clear_waiting && index == 1);
        let after = usize::from(clear_waiting && index == 0);
        let mut write = Write { bytes: [0; SLOT + 1], len: before + SLOT + after };
        fill(&mut write.bytes[before..before + SLOT], sequence);
        ((SLOTS[index] - before) as u64, write)
    }

    fn newest_slot(&self) -> Option<&[u8]> {
        let start = SLOTS[self.newest?];
        Some(&self.bytes[start..start + SLOT])
    }
}

/// What a grant records.
pub(crate) struct Entry<'a> {
    pub(crate) counter: u64,
    pub(crate) first_token: u64,
    pub(crate) boot: BootId,
    pub(crate) since_micros: u64,
    pub(crate) claim: &'a Claim,
    pub(crate) schedule: Schedule,
}

/// A recorded grant, or a claim that waits.
#[derive(Debug)]
pub(crate) struct Latest {
    pub(crate) mode: Mode,
    pub(crate) holder: Holder,
    /// Not in version 1.
    pub(crate) claim: Option<ClaimId>,
    pub(crate) token: Option<FencingToken>,
    pub(crate) sequence: u64,
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

/// A record by itself.
pub(crate) fn encode_alone(sequence: u64, entry: &Entry<'_>) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    encode(&mut slot, sequence, entry);
    slot
}

/// What a record of this boot says, if it is whole.
pub(crate) fn decode(slot: &[u8], boot: BootId) -> Option<Latest> {
    let version = version(slot).filter(|version| (1..=VERSION).contains(version))?;
    let since = SystemTime::UNIX_EPOCH + Duration::from_micros(u64_at(slot, 56));
    if boot_of(slot) != boot || since > SystemTime::now() {
        return None;
    }
    let text = if version == 1 { TEXT_IN_VERSION_1 } else { TEXT };
    let end = usize::from(u16::from_le_bytes(array(slot, 14)));
    let host_end = text + usize::from(u16::from_le_bytes(array(slot, 52)));
    let read =
        |range| Some(std::str::from_utf8(slot.get(range)?).ok()?.to_owned()).filter(|text| !text.is_empty());
    let mut holder = Holder::default().with_since(since);
    holder.pid = Some(u32_at(slot, 48)).filter(|&pid| pid != 0);
    holder.host = read(text..host_end);
    holder.label = read(host_end..end);
    let sequence = u64_at(slot, 16);
    if version == 1 {
        return Some(Latest { mode: Mode::Exclusive, holder, claim: None, token: None, sequence });
    }
    let mode = mode_of(slot)?;
    let claim = Some(ClaimId::from_bits(u128_at(slot, 80)));
    Some(Latest { mode, holder, claim, token: FencingToken::new(u64_at(slot, 72)), sequence })
}

fn mode_of(slot: &[u8]) -> Option<Mode> {
    match slot[54] {
        0 | 1 => Some(Mode::Exclusive),
        2 => Some(Mode::Shared),
        3 => Some(Mode::Permits { count: u32_at(slot, 68), limit: u32_at(slot, 64) }),
        _ => None,
    }
}

fn encode(slot: &mut [u8], sequence: u64, entry: &Entry<'_>) {
    let holder = &entry.claim.holder;
    let host = prefix(holder.host.as_deref().unwrap_or_default(), MAX_HOST);
    let label = prefix(holder.label.as_deref().unwrap_or_default(), SLOT - TEXT - host.len());
    slot[..8].copy_from_slice(&MAGIC);
    slot[12..14].copy_from_slice(&VERSION.to_le_bytes());
    slot[14..16].copy_from_slice(&((TEXT + host.len() + label.len()) as u16).to_le_bytes());
    slot[16..24].copy_from_slice(&sequence.to_le_bytes());
    slot[24..32].copy_from_slice(&entry.counter.to_le_bytes());
    slot[32..48].copy_from_slice(&entry.boot.to_bytes());
    slot[48..52].copy_from_slice(&holder.pid.unwrap_or_default().to_le_bytes());
    slot[52..54].copy_from_slice(&(host.len() as u16).to_le_bytes());
    slot[56..64].copy_from_slice(&entry.since_micros.to_le_bytes());
    encode_mode(slot, entry.claim.mode);
    slot[72..80].copy_from_slice(&entry.first_token.to_le_bytes());
    slot[80..96].copy_from_slice(&entry.claim.id.to_bits().to_le_bytes());
    encode_schedule(slot, &entry.schedule);
    slot[TEXT..TEXT + host.len()].copy_from_slice(host.as_bytes());
    slot[TEXT + host.len()..TEXT + host.len() + label.len()].copy_from_slice(label.as_bytes());
    seal(slot);
}

fn encode_mode(slot: &mut [u8], mode: Mode) {
    slot[54] = match mode {
        Mode::Shared => 2,
        Mode::Permits { .. } => 3,
        _ => 1,
    };
    slot[64..68].copy_from_slice(&mode.limit().unwrap_or_default().to_le_bytes());
    slot[68..72].copy_from_slice(&mode.permits().to_le_bytes());
}

fn encode_schedule(slot: &mut [u8], schedule: &Schedule) {
    slot[SCHEDULE..SCHEDULE + 8].copy_from_slice(&schedule.not_before.to_le_bytes());
    slot[SCHEDULE + 8..SCHEDULE + 24].copy_from_slice(&schedule.by.to_le_bytes());
    slot[SCHEDULE + 24..SCHEDULE + 32].copy_from_slice(&schedule.last_completed.to_le_bytes());
    slot[SCHEDULE + 32..SCHEDULE + 40].copy_from_slice(&schedule.longest_interval.to_le_bytes());
}

fn seal(slot: &mut [u8]) {
    let checksum = checksum(slot).unwrap_or_default();
    slot[8..12].copy_from_slice(&checksum.to_le_bytes());
}

/// The version of a whole record.
fn version(slot: &[u8]) -> Option<u16> {
    let whole = slot.len() == SLOT && slot[..8] == MAGIC && checksum(slot) == Some(u32_at(slot, 8));
    whole.then(|| u16::from_le_bytes(array(slot, 12)))
}

/// Over the whole record but the checksum itself; `None` if its length can't be.
fn checksum(slot: &[u8]) -> Option<u32> {
    let end = usize::from(u16::from_le_bytes(array(slot, 14)));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot[..8]);
    hasher.update(slot.get(12..end).filter(|rest| rest.len() >= TEXT_IN_VERSION_1 - 12)?);
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

fn boot_of(slot: &[u8]) -> BootId {
    BootId::from_bytes(array(slot, 32))
}

fn u32_at(bytes: &[u8], start: usize) -> u32 {
    u32::from_le_bytes(array(bytes, start))
}

fn u64_at(bytes: &[u8], start: usize) -> u64 {
    u64::from_le_bytes(array(bytes, start))
}

fn u128_at(bytes: &[u8], start: usize) -> u128 {
    u128::from_le_bytes(array(bytes, start))
}

fn array<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[start..start + N]);
    array
}

#[cfg(test)]
mod tests {
    use locks_api::LockName;
    use locks_api::spi::InstanceId;

    use super::*;

    const BOOT: BootId = BootId::from_bytes([7; 16]);
    const OTHER_BOOT: BootId = BootId::from_bytes([8; 16]);

    fn holder() -> Holder {
        let mut holder = Holder::default().with_label("backup");
        holder.pid = Some(4711);
        holder.host = Some("db1".to_owned());
        holder
    }

    fn claim(holder: Holder) -> Claim {
        let mut claim = Claim::new(LockName::new("x").unwrap(), InstanceId::random());
        claim.holder = std::sync::Arc::new(holder);
        claim
    }

    fn entry(counter: u64, boot: BootId, claim: &Claim) -> Entry<'_> {
        let schedule = Schedule::default();
        Entry { counter, first_token: counter, boot, since_micros: 1_000, claim, schedule }
    }

    /// A file to which grants are written as the backend writes them.
    struct Disk([u8; LEN]);

    impl Disk {
        fn contents(&self) -> Contents {
            Contents::check(self.0).unwrap()
        }

        fn grant(&mut self, counter: u64, boot: BootId, clear_waiting: bool) -> (usize, usize) {
            let (offset, write) =
                self.contents().next_write(&entry(counter, boot, &claim(holder())), clear_waiting);
            self.put(offset, &write)
        }

        fn put(&mut self, offset: u64, write: &Write) -> (usize, usize) {
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
        assert_eq!(disk.contents().latest(BOOT).map(|latest| latest.holder), None);
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
        disk.0[12] = 3;
        let sum = checksum(&disk.0[..SLOT]).unwrap();
        disk.0[8..12].copy_from_slice(&sum.to_le_bytes());
        let error = Contents::check(disk.0).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 3"), "{error}");
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
        assert_eq!(
            disk.contents().latest(BOOT).map(|latest| latest.holder),
            Some(holder().with_since(since))
        );
        assert_eq!(disk.contents().latest(OTHER_BOOT).map(|latest| latest.holder), None);
    }

    #[test]
    fn texts_that_do_not_fit_are_cut_between_characters() {
        let mut long = holder().with_label("é".repeat(400));
        long.host = Some("h".repeat(300));
        let mut bytes = [0; LEN];
        encode(&mut bytes[..SLOT], 1, &entry(1, BOOT, &claim(long)));
        let read = Contents::check(bytes).unwrap().latest(BOOT).map(|latest| latest.holder).unwrap();
        assert_eq!(read.host, Some("h".repeat(MAX_HOST)));
        assert_eq!(read.label, Some("é".repeat((SLOT - TEXT - MAX_HOST) / 2)));
    }

    /// As the first version wrote it: host and label where now the limit begins.
    #[test]
    fn a_file_of_version_1_is_read_and_goes_on() {
        let mut disk = Disk([0; LEN]);
        let slot = &mut disk.0[..SLOT];
        slot[..8].copy_from_slice(&MAGIC);
        slot[12] = 1;
        slot[14] = 64 + 9;
        slot[16] = 7;
        slot[24] = 200;
        slot[32..48].copy_from_slice(&BOOT.to_bytes());
        slot[48] = 42;
        slot[52] = 3;
        slot[56] = 99;
        slot[64..73].copy_from_slice(b"db1backup");
        seal(slot);
        let latest = disk.contents().latest(BOOT).unwrap();
        assert_eq!((latest.mode, latest.claim, latest.token), (Mode::Exclusive, None, None));
        assert_eq!((latest.holder.pid, latest.holder.host.as_deref()), (Some(42), Some("db1")));
        assert_eq!(latest.holder.label.as_deref(), Some("backup"));
        assert_eq!(disk.contents().schedule(), Schedule::default());
        assert_eq!(disk.first_token(9_000), 201);
        disk.grant(201, BOOT, false);
        assert_eq!(disk.first_token(9_000), 202);
    }

    #[test]
    fn every_mode_and_the_schedule_read_back_and_a_change_keeps_the_rest() {
        let modes = [Mode::Exclusive, Mode::Shared, Mode::Permits { count: 2, limit: u32::MAX }];
        for mode in modes {
            let mut disk = Disk([0; LEN]);
            disk.grant(5, BOOT, false);
            let claim = claim(holder())
                .with_mode(mode)
                .with_min_hold(Duration::from_micros(30))
                .with_once_per(Duration::from_micros(70));
            let mut entry = entry(9, BOOT, &claim);
            entry.first_token = 6;
            entry.schedule = disk.contents().schedule().after_grant(&claim, 100);
            let (offset, write) = disk.contents().next_write(&entry, false);
            disk.put(offset, &write);
            let latest = disk.contents().latest(BOOT).unwrap();
            assert_eq!((latest.mode, latest.claim), (mode, Some(claim.id)));
            assert_eq!(latest.token.unwrap().get(), 6);
            let mut schedule = disk.contents().schedule();
            assert_eq!((schedule.not_before, schedule.by), (130, claim.id.to_bits()));
            assert_eq!(schedule.held_back(129), Some(Duration::from_micros(1)));
            assert_eq!(schedule.held_back(130), None);
            assert_eq!(schedule.interval_left(&claim, 100), None, "nothing was completed yet");
            assert!(!schedule.is_in_force(130));
            schedule.last_completed = 100;
            let (offset, write) = disk.contents().next_change(&schedule, mode == Mode::Exclusive);
            disk.put(offset, &write);
            let latest = disk.contents().latest(BOOT).unwrap();
            assert_eq!(latest.mode, if mode == Mode::Exclusive { Mode::Shared } else { mode });
            assert_eq!((latest.claim, latest.holder.label.as_deref()), (Some(claim.id), Some("backup")));
            let schedule = disk.contents().schedule();
            assert_eq!(schedule.interval_left(&claim, 169), Some(Duration::from_micros(1)));
            assert_eq!(schedule.interval_left(&claim, 170), None);
            assert!(schedule.is_in_force(169) && !schedule.is_in_force(170));
            assert_eq!(disk.contents().counter(), Some(9));
        }
    }
}
