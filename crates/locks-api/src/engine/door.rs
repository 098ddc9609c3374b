//! The door to one lock: who of this process may ask the store, and when.
//!
//! Those who want the lock exclusively on plain terms stand in one line and share one claim. Everybody else has a claim of
//! its own, which only the store can compare with others. But a thousand tasks that wait for a semaphore are not to be a thousand waiters in the store: while it
//! grants what is asked, claims go to it in growing numbers; once it has nothing to give, one waits there and the others stay parked here, first come first served.

use std::collections::{BTreeMap, hash_map};

use super::core::Core;
use super::entry::{Entry, EntryKey, Kind, Phase};
use super::ticket::TicketKey;
use crate::busy::Busy;
use crate::clock::Boottime;
use crate::error::Error;
use crate::name::LockName;
use crate::spi::ClaimId;

/// How many claims go to the store at first, before it is known whether it has anything to give.
const FIRST: usize = 4;

/// How many claims of one lock go to the store at most that it has not granted yet.
const MOST: usize = 64;

/// All entries of one lock.
#[derive(Debug)]
pub(super) struct Door {
    line: Option<EntryKey>,
    /// How many entries there are beside the line.
    solos: usize,
    /// Those whose claims the store has and has not granted.
    admitted: Vec<EntryKey>,
    /// Those who may not ask yet, in the order in which they came.
    parked: BTreeMap<u64, EntryKey>,
    /// How many may be admitted at once.
    window: usize,
}

impl Door {
    fn new() -> Self {
        Self { line: None, solos: 0, admitted: Vec::new(), parked: BTreeMap::new(), window: FIRST }
    }

    fn is_unused(&self) -> bool {
        self.line.is_none() && self.solos == 0
    }
}

impl Core {
    /// The entry of all who want the lock on plain terms.
    pub(super) fn line(&mut self, name: &LockName) -> EntryKey {
        if let Some(key) = self.line_of(name) {
            return key;
        }
        let key = self.entries.insert(Entry::new(name.clone(), Kind::Line));
        self.doors.entry(name.clone()).or_insert_with(Door::new).line = Some(key);
        key
    }

    /// The entry of all who want the lock on plain terms, if there is one.
    pub(super) fn line_of(&self, name: &LockName) -> Option<EntryKey> {
        self.doors.get(name)?.line
    }

    /// A new entry for one caller.
    pub(super) fn solo(&mut self, name: &LockName) -> EntryKey {
        let claim = ClaimId::from_bits(self.random.u128(1..));
        let key = self.entries.insert(Entry::new(name.clone(), Kind::Solo(claim)));
        self.solos.insert(claim, key);
        self.doors.entry(name.clone()).or_insert_with(Door::new).solos += 1;
        key
    }

    /// The id of the entry's next claim.
    pub(super) fn next_claim(&mut self, key: EntryKey) -> ClaimId {
        let claim = ClaimId::from_bits(self.random.u128(1..));
        if let Kind::Solo(last) = &mut self.entries[key].kind {
            let last = std::mem::replace(last, claim);
            self.solos.remove(&last);
            self.solos.insert(claim, key);
        }
        claim
    }

    /// The entry that has sent this claim, or has a grant of it.
    pub(super) fn find(&self, name: &LockName, claim: ClaimId) -> Option<EntryKey> {
        let line = self.doors.get(name)?.line;
        line.into_iter().chain(self.solos.get(&claim).copied()).find(|key| {
            let entry = &self.entries[*key];
            entry.is_pending(claim) || entry.has_grant_of(claim)
        })
    }

    /// The entries of this lock whose claims the store may have.
    pub(super) fn asking(&self, name: &LockName) -> Vec<EntryKey> {
        let Some(door) = self.doors.get(name) else { return Vec::new() };
        let admitted = door.admitted.iter().copied().filter(|key| Some(*key) != door.line);
        door.line.into_iter().chain(admitted).collect()
    }

    /// Forgets an entry that nobody here wants or has.
    pub(super) fn remove(&mut self, key: EntryKey, now: Boottime) {
        // Only tickets that have gone can be left.
        while let Some(ticket) = self.entries[key].waiting.pop_front() {
            Self::unlink(&mut self.tickets, ticket);
        }
        self.leave_door(key, false, now);
        let entry = self.entries.remove(key);
        if let hash_map::Entry::Occupied(mut door) = self.doors.entry(entry.name) {
            match entry.kind {
                Kind::Line => door.get_mut().line = None,
                Kind::Solo(claim) => {
                    self.solos.remove(&claim);
                    door.get_mut().solos -= 1;
                }
            }
            if door.get().is_unused() {
                door.remove();
            }
        }
        self.check_closed();
    }

    /// Sends the entry's claim to the store, or parks it.
    pub(super) fn claim_or_park(&mut self, key: EntryKey, now: Boottime) {
        if !self.may_pass(key) {
            self.serial += 1;
            self.parked += 1;
            let entry = &mut self.entries[key];
            entry.phase = Phase::Parked(self.serial);
            if let Some(door) = self.doors.get_mut(&entry.name) {
                door.parked.insert(self.serial, key);
            }
            return;
        }
        self.claim(key, now);
    }

    /// Whether the entry's claim may go to the store. If so, and unless it is a line that is in nobody's way, it is admitted.
    fn may_pass(&mut self, key: EntryKey) -> bool {
        let entry = &mut self.entries[key];
        let is_line = entry.kind == Kind::Line;
        if entry.admitted || (is_line && self.parked == 0) {
            return true;
        }
        let Some(door) = self.doors.get_mut(&entry.name) else { return true };
        if is_line && door.parked.is_empty() {
            return true;
        }
        if !door.parked.is_empty() || door.admitted.len() >= door.window {
            return false;
        }
        door.admitted.push(key);
        entry.admitted = true;
        true
    }

    /// The entry's claim is at the store no more, or holds there. With `granted`, the store has something to give.
    pub(super) fn leave_door(&mut self, key: EntryKey, granted: bool, now: Boottime) {
        let entry = &mut self.entries[key];
        let was_parked = match entry.phase {
            Phase::Parked(serial) => Some(serial),
            _ => None,
        };
        if !entry.admitted && was_parked.is_none() {
            return;
        }
        entry.admitted = false;
        let name = entry.name.clone();
        let Some(door) = self.doors.get_mut(&name) else { return };
        match was_parked {
            Some(serial) => {
                door.parked.remove(&serial);
                self.parked -= 1;
            }
            None => door.admitted.retain(|admitted| *admitted != key),
        }
        if granted {
            door.window = (door.window * 2).min(MOST);
        }
        self.open_door(&name, now);
    }

    /// The store has nothing to give to this entry for now: no more than one claim waits there.
    pub(super) fn narrow_door(&mut self, key: EntryKey, busy: &Busy) {
        let entry = &self.entries[key];
        if !entry.admitted {
            return;
        }
        let Some(door) = self.doors.get_mut(&entry.name) else { return };
        door.window = 1;
        let parked: Vec<EntryKey> = door.parked.values().copied().collect();
        for key in parked {
            self.refuse_tries(key, busy);
        }
    }

    /// Lets in who may ask now.
    fn open_door(&mut self, name: &LockName, now: Boottime) {
        while let Some(door) = self.doors.get_mut(name)
            && door.admitted.len() < door.window
            && let Some((_, key)) = door.parked.pop_first()
        {
            self.parked -= 1;
            let entry = &mut self.entries[key];
            entry.phase = Phase::Idle;
            if entry.live == 0 {
                self.remove(key, now);
                continue;
            }
            entry.admitted = true;
            door.admitted.push(key);
            self.claim(key, now);
        }
    }

    /// Why a `try` for a claim of its own has no chance, if so: somebody of this process waits already.
    pub(super) fn busy_at_the_door(&self, name: &LockName) -> Option<Busy> {
        let door = self.doors.get(name)?;
        let held_up = door.admitted.iter().map(|key| &self.entries[*key]).find(|entry| entry.is_held_up())?;
        Some(held_up.seen.clone().unwrap_or(Busy::Held { by: None }))
    }

    /// Tells all who are parked at the entry's door why the lock can't be had.
    pub(super) fn fail_parked(&mut self, key: EntryKey, error: &Error, now: Boottime) {
        let Some(door) = self.doors.get_mut(&self.entries[key].name) else { return };
        let parked: Vec<EntryKey> = door.parked.values().copied().collect();
        for key in &parked {
            self.fail_all(*key, error);
        }
        for key in parked {
            if self.entries.contains(key) {
                self.advance(key, now);
            }
        }
    }

    /// How many of this process and in the store are served before this waiter, as far as is known.
    pub(super) fn ahead_of(&self, ticket: TicketKey) -> Option<u64> {
        let key = self.tickets[ticket].entry?;
        let entry = &self.entries[key];
        let here = entry.waiting.iter().take_while(|other| **other != ticket);
        let here = here.filter(|other| self.tickets[**other].is_waiting()).count() as u64;
        let before = match &entry.phase {
            Phase::Queued(_) => entry.position?,
            Phase::Parked(serial) => {
                let door = self.doors.get(&entry.name)?;
                let parked = door.parked.range(..serial).count() as u64;
                let admitted = door.admitted.iter().map(|key| &self.entries[*key]);
                let last = admitted.filter_map(|entry| entry.position).max();
                parked + last.map_or(door.admitted.len() as u64, |last| last + 1)
            }
            Phase::Held(_) => 0,
            _ => entry.position.filter(|_| here > 0)?,
        };
        Some(before + here)
    }
}
