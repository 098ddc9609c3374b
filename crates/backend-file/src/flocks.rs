//! Who has a flock, as the kernel tells those who may not try.
//!
//! Each descriptor in `/proc/PID/fdinfo` has a line for the flock that is held by way of it. That is exact, but only the same user and root may read it, and one
//! has to know whom to ask. `/proc/locks` lists all flocks for everybody. It is read page by page, though, and while others lock and unlock it may skip or repeat
//! an entry where one page ends and the next begins. So it is read several times where it matters.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;

use locks_api::Result;
use locks_api::spi::Mode;

use crate::error::classify;
use crate::inode::Inode;

/// How often the list is read where nothing else tells.
const READS: usize = 8;

/// The flocks that the kernel knows of.
pub(crate) struct Flocks {
    listed: HashSet<Listed>,
    /// How often the list was read.
    reads: usize,
    /// What each process has, as far as it was asked about and may be.
    of_process: HashMap<u32, Option<Vec<Listed>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Listed {
    device: (u32, u32),
    inode: u64,
    mode: Mode,
    pid: u32,
}

impl Flocks {
    /// Reads the list; thoroughly, if it is to be the only source.
    ///
    /// # Errors
    ///
    /// If there is no `/proc`.
    pub(crate) fn read(thoroughly: bool) -> Result<Self> {
        let mut flocks = Self { listed: HashSet::new(), reads: 0, of_process: HashMap::new() };
        flocks.read_up_to(if thoroughly { READS } else { 1 })?;
        Ok(flocks)
    }

    /// How and by which processes this file is locked, as far as it was seen.
    pub(crate) fn of(&self, inode: Inode) -> impl Iterator<Item = (Mode, u32)> {
        let (device, number) = numbers(inode);
        let listed =
            self.listed.iter().filter(move |listed| (listed.device, listed.inode) == (device, number));
        listed.map(|listed| (listed.mode, listed.pid))
    }

    /// Whether this process has the file for itself alone.
    pub(crate) fn has_alone(&mut self, pid: u32, inode: Inode) -> Result<bool> {
        let is_it = |listed: &Listed| {
            let (device, number) = numbers(inode);
            // Btrfs and overlays tell programs another device than the kernel's own, and neither has a driver.
            let same_device = listed.device == device || (listed.device.0 == 0 && device.0 == 0);
            same_device && listed.inode == number && listed.mode == Mode::Exclusive && listed.pid == pid
        };
        if let Some(held) = self.of_process.entry(pid).or_insert_with(|| of_process(pid)) {
            return Ok(held.iter().any(is_it));
        }
        self.read_up_to(READS)?;
        Ok(self.listed.iter().any(is_it))
    }

    fn read_up_to(&mut self, reads: usize) -> Result<()> {
        while self.reads < reads {
            let list = fs::read_to_string("/proc/locks").map_err(|error| {
                classify(error, "can't read /proc/locks, where the kernel lists who holds")
            })?;
            self.listed.extend(parse(&list));
            self.reads += 1;
        }
        Ok(())
    }
}

fn numbers(inode: Inode) -> ((u32, u32), u64) {
    let (device, number) = inode.numbers();
    ((rustix::fs::major(device), rustix::fs::minor(device)), number)
}

/// What a process has; nothing if there is no such process, `None` if it may not be asked.
fn of_process(pid: u32) -> Option<Vec<Listed>> {
    let descriptors = match fs::read_dir(format!("/proc/{pid}/fdinfo")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(Vec::new()),
        descriptors => descriptors.ok()?,
    };
    let mut held = Vec::new();
    for descriptor in descriptors {
        let info = descriptor.and_then(|descriptor| fs::read_to_string(descriptor.path()));
        match info {
            Ok(info) => {
                let locks: String = info
                    .lines()
                    .filter_map(|line| line.strip_prefix("lock:"))
                    .flat_map(|lock| [lock, "\n"])
                    .collect();
                held.extend(parse(&locks));
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            // Closed meanwhile.
            Err(_) => {}
        }
    }
    Some(held)
}

/// Lines such as `1: FLOCK  ADVISORY  WRITE 1431 fe:00:753923 0 EOF`. Those who wait have an arrow before FLOCK.
fn parse(list: &str) -> impl Iterator<Item = Listed> {
    list.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, access, pid, file, ..] = fields[..] else { return None };
        let mode = if access == "WRITE" { Mode::Exclusive } else { Mode::Shared };
        let mut parts = file.split(':');
        let major = u32::from_str_radix(parts.next()?, 16).ok()?;
        let minor = u32::from_str_radix(parts.next()?, 16).ok()?;
        let inode = parts.next()?.parse().ok()?;
        Some(Listed { device: (major, minor), inode, mode, pid: pid.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_is_read_and_those_who_wait_are_not_holders() {
        let listed: Vec<Listed> = parse(
            "1: POSIX  ADVISORY  WRITE 7 fe:00:42 0 EOF\n\
             2: FLOCK  ADVISORY  WRITE 1431 fe:0a:42 0 EOF\n\
             2: -> FLOCK  ADVISORY  WRITE 1432 fe:0a:42 0 EOF\n\
             3: FLOCK  ADVISORY  READ 1500 00:1f:43 0 EOF\n\
             4: OFDLCK ADVISORY  WRITE -1 fe:0a:42 1 1\n",
        )
        .collect();
        let [one, two] = [
            Listed { device: (0xfe, 0x0a), inode: 42, mode: Mode::Exclusive, pid: 1431 },
            Listed { device: (0, 0x1f), inode: 43, mode: Mode::Shared, pid: 1500 },
        ];
        assert_eq!(listed, [one, two]);
    }

    #[test]
    fn the_flocks_of_a_process_are_read_from_its_descriptors() {
        use locks_api::spi::Mode::Exclusive;

        let temp = tempfile::tempdir().unwrap();
        let file = fs::File::create(temp.path().join("x")).unwrap();
        let inode = Inode::of(&file).unwrap();
        let has = || Flocks::read(false).unwrap().has_alone(std::process::id(), inode).unwrap();
        assert!(!has());
        file.lock_shared().unwrap();
        assert!(!has());
        file.lock().unwrap();
        assert!(has());
        assert!(
            Flocks::read(true).unwrap().of(inode).any(|listed| listed == (Exclusive, std::process::id()))
        );
        assert!(!Flocks::read(false).unwrap().has_alone(u32::MAX, inode).unwrap());
    }
}
