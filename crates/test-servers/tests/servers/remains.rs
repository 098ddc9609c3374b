//! What is left of a server: processes and directories.

use std::fs;
use std::path::{Path, PathBuf};

/// The processes that run in directories that begin so: servers and their children.
pub(crate) fn processes_of(prefix: &Path) -> Vec<u32> {
    of_all_processes(|process| {
        fs::read_link(process.join("cwd"))
            .is_ok_and(|cwd| cwd.to_string_lossy().starts_with(&*prefix.to_string_lossy()))
    })
}

/// The processes whose command lines name directories that begin so: keepers, and servers that have just been started.
pub(crate) fn keepers_of(prefix: &Path) -> Vec<u32> {
    of_all_processes(|process| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&*prefix.to_string_lossy())
    })
}

/// The directories that begin so.
pub(crate) fn directories_of(prefix: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(prefix.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_string_lossy().starts_with(&*prefix.to_string_lossy())).collect()
}

fn of_all_processes(mut belongs: impl FnMut(&Path) -> bool) -> Vec<u32> {
    let numbers =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|pid: &u32| belongs(&Path::new("/proc").join(pid.to_string()))).collect()
}

/// The children of a process.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    of_all_processes(|process| {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        status
            .lines()
            .any(|line| line.strip_prefix("PPid:").is_some_and(|pid| pid.trim() == parent.to_string()))
    })
}

/// How many segments of System V shared memory a process has left behind, or has.
pub(crate) fn shared_memory_of(creator: u32) -> usize {
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let creators = segments.lines().filter_map(|line| line.split_whitespace().nth(4));
    creators.filter(|other| **other == creator.to_string()).count()
}
