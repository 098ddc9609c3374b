//! The functions of django-locks in two processes, each with tasks and threads: nobody counts at the same time as somebody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use locks::{Outcome, customfilelock, customlock, filelock, lock, tryfilelock, trylock};

const ROUNDS: u32 = 25;

/// The three functions and their twins; each counts in a file of its own, and would lose some if it were not alone.
macro_rules! counting {
    ($module:ident $($async:ident)?: $lock:ident $trylock:ident $customlock:ident) => {
        mod $module {
            use super::*;

            #[$lock]
            pub(super) $($async)? fn myfunc(x: u32, y: u32, z: &Path) -> u32 {
                count(&z.join(stringify!($module)), x, y)
            }

            #[$trylock]
            pub(super) $($async)? fn tryfunc(x: u32, y: u32, z: &Path) -> u32 {
                count(&z.join(concat!("try", stringify!($module))), x, y)
            }

            #[$customlock(|x, _y, z| format!("locks-test/{}/fancylock{x}", z.display()))]
            pub(super) $($async)? fn customfunc(x: u32, y: u32, z: &Path) -> u32 {
                count(&z.join(concat!("custom", stringify!($module))), x, y)
            }
        }
    };
}

counting!(later async: lock trylock customlock);
counting!(now: lock trylock customlock);
counting!(files_later async: filelock tryfilelock customfilelock);
counting!(files_now: filelock tryfilelock customfilelock);

/// Reads, adds and writes.
fn count(path: &Path, x: u32, y: u32) -> u32 {
    let before: u32 = fs::read_to_string(path).map_or(0, |text| text.parse().unwrap());
    thread::yield_now();
    fs::write(path, (before + x * y).to_string()).unwrap();
    x * y
}

/// What a worker has counted in each file.
#[derive(Default)]
struct Counted(Vec<(&'static str, u32)>);

impl Counted {
    fn add(&mut self, file: &'static str, count: locks::Result<u32>) {
        let count = count.unwrap();
        match self.0.iter_mut().find(|(known, _)| *known == file) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((file, count)),
        }
    }

    fn add_outcome(&mut self, file: &'static str, outcome: locks::Result<Outcome<u32>>) {
        self.add(file, outcome.map(|outcome| outcome.ran().unwrap_or(0)));
    }
}

async fn count_later(dir: &Path) -> Counted {
    let mut counted = Counted::default();
    for _ in 0..ROUNDS {
        counted.add("later", later::myfunc(1, 1, dir).await);
        counted.add_outcome("trylater", later::tryfunc(1, 2, dir).await);
        counted.add("customlater", later::customfunc(1, 3, dir).await);
        counted.add("files_later", files_later::myfunc(1, 1, dir).await);
        counted.add_outcome("tryfiles_later", files_later::tryfunc(1, 2, dir).await);
        counted.add("customfiles_later", files_later::customfunc(1, 3, dir).await);
    }
    counted
}

fn count_now(dir: &Path) -> Counted {
    let mut counted = Counted::default();
    for _ in 0..ROUNDS {
        counted.add("now", now::myfunc(1, 1, dir));
        counted.add_outcome("trynow", now::tryfunc(1, 2, dir));
        counted.add("customnow", now::customfunc(1, 3, dir));
        counted.add("files_now", files_now::myfunc(1, 1, dir));
        counted.add_outcome("tryfiles_now", files_now::tryfunc(1, 2, dir));
        counted.add("customfiles_now", files_now::customfunc(1, 3, dir));
    }
    counted
}

const DIRECTORY: &str = "LOCKS_TEST_DIRECTORY";

#[test]
#[ignore = "a worker of the tests below"]
fn worker() {
    let dir = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let threads: Vec<_> = (0..2)
        .flat_map(|_| {
            let (first, second) = (dir.clone(), dir.clone());
            let tasks = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let (one, other) =
                    runtime.block_on(async { tokio::join!(count_later(&first), count_later(&first)) });
                Counted([one.0, other.0].concat())
            };
            [thread::spawn(tasks), thread::spawn(move || count_now(&second))]
        })
        .collect();
    let mut report = String::new();
    for thread in threads {
        for (file, count) in thread.join().unwrap().0 {
            report += &format!("{file} {count}\n");
        }
    }
    fs::write(dir.join(format!("report-{}", std::process::id())), report).unwrap();
}

/// What two processes have counted in each of their directories, and what they say.
fn two_processes(url: &str, directories: [&Path; 2]) {
    let start = |dir: &Path| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["processes::worker", "--exact", "--ignored"]).env("LOCKS_URL", url).env(DIRECTORY, dir);
        command.spawn().unwrap()
    };
    for mut worker in directories.map(start) {
        assert!(worker.wait().unwrap().success());
    }
    for dir in directories {
        let reports = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let reports =
            reports.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("report-"));
        let reports: String = reports.map(|path| fs::read_to_string(path).unwrap()).collect();
        let mut files: Vec<&str> = reports.lines().map(|line| line.split_once(' ').unwrap().0).collect();
        files.sort_unstable();
        files.dedup();
        assert_eq!(files.len(), 12);
        for file in files {
            let said = reports
                .lines()
                .filter_map(|line| line.strip_prefix(file)?.strip_prefix(' ')?.parse::<u32>().ok());
            let counted: u32 = fs::read_to_string(dir.join(file)).unwrap().parse().unwrap();
            assert_eq!(counted, said.sum::<u32>(), "{file}");
            assert!(counted > 0, "{file}");
        }
    }
}

#[test]
fn files_hold_between_two_processes() {
    let dir = tempfile::tempdir().unwrap();
    two_processes(&format!("file:{}", dir.path().join("locks").display()), [dir.path(), dir.path()]);
}

/// Memory holds within each process, so each counts for itself.
#[test]
fn memory_holds_within_each_of_two_processes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    two_processes("memory:", [one.path(), other.path()]);
}
