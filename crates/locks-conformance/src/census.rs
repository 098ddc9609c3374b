//! What a process has: threads, open descriptors, and tasks on the runtime of the case. What a case leaves behind is a leak.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::recording::{self, What};
use crate::verdict::{Failure, Verdict, eventually};

/// The threads and descriptors of this process, and the tasks of the present runtime, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Census {
    threads: BTreeMap<u32, String>,
    descriptors: BTreeMap<u32, String>,
    tasks: usize,
}

impl Census {
    pub(crate) fn take() -> io::Result<Self> {
        // Reading a directory opens a descriptor of its own, which is gone when its link is read.
        Ok(Self {
            threads: entries("/proc/self/task", |path| fs::read_to_string(path.join("comm")))?,
            descriptors: entries("/proc/self/fd", |path| Ok(fs::read_link(path)?.display().to_string()))?,
            tasks: Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks()),
        })
    }

    /// Waits until there is no more than `self`, as long as threads may take to end, and notes in the record of the case what there was.
    pub(crate) async fn settles(&self, limit: Duration) -> Verdict {
        let mut latest = self.clone();
        let settled = eventually(limit, "settling", || match Self::take() {
            Ok(now) => {
                latest = now;
                self.leaks(&latest).is_empty()
            }
            Err(_) => false,
        });
        let settled = settled.await.is_ok();
        let leaks = if settled { Vec::new() } else { self.leaks(&latest) };
        let (before, after) = (self.to_string(), latest.to_string());
        recording::note(|| What::Census { before, after, leaks: leaks.clone() });
        if settled {
            return Ok(());
        }
        Err(Failure::new(format!("left behind after {limit:?}: {}", leaks.join(", "))))
    }

    /// What `later` has too much: numbers decide, names explain.
    fn leaks(&self, later: &Self) -> Vec<String> {
        let mut leaks = Vec::new();
        if later.tasks > self.tasks {
            leaks.push(format!("{} tasks", later.tasks - self.tasks));
        }
        for (what, before, after) in
            [("thread", &self.threads, &later.threads), ("descriptor", &self.descriptors, &later.descriptors)]
        {
            if after.len() > before.len() {
                let new = after.iter().filter(|(id, name)| before.get(id) != Some(name));
                leaks.extend(new.map(|(id, name)| format!("{what} {id} ({})", name.trim())));
            }
        }
        leaks
    }
}

/// Reads as "threads: 3, descriptors: 9, tasks: 0".
impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { threads, descriptors, tasks } = self;
        write!(f, "threads: {}, descriptors: {}, tasks: {tasks}", threads.len(), descriptors.len())
    }
}

fn entries(
    directory: &str,
    name: impl Fn(&std::path::Path) -> io::Result<String>,
) -> io::Result<BTreeMap<u32, String>> {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let (Some(id), Ok(name)) =
            (entry.file_name().to_str().and_then(|id| id.parse().ok()), name(&entry.path()))
        {
            // The descriptor with which this very directory is read.
            if !name.starts_with("/proc/") {
                entries.insert(id, name);
            }
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;

    #[tokio::test]
    async fn a_task_that_lives_on_is_a_leak() {
        let before = Census::take().unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        // Other tests run beside this one, and have threads and descriptors of their own.
        assert!(before.leaks(&Census::take().unwrap()).contains(&"1 tasks".to_owned()));
        task.abort();
        before.settles(Duration::from_secs(10)).await.unwrap();
    }

    /// More of each than other tests, which run beside this one, can end meanwhile.
    const MANY: usize = 64;

    #[test]
    fn new_descriptors_and_new_threads_are_leaks() {
        let before = Census::take().unwrap();
        let files: Vec<fs::File> = (0..MANY).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let barrier = Arc::new(Barrier::new(MANY + 1));
        let threads: Vec<_> = (0..MANY)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                let body = move || {
                    // A thread names itself after it has begun.
                    barrier.wait();
                    barrier.wait();
                };
                std::thread::Builder::new().name("stray".into()).spawn(body).unwrap()
            })
            .collect();
        barrier.wait();
        let leaks = before.leaks(&Census::take().unwrap());
        assert!(leaks.iter().any(|leak| leak.contains("/dev/null")), "{leaks:?}");
        assert!(leaks.iter().any(|leak| leak.contains("stray")), "{leaks:?}");
        barrier.wait();
        drop(files);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
