//! One server as a private child process, whatever it serves: its directory, its log, its life and its deaths.

use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::Error;
use crate::keeper::{Age, Keeper};

/// How long a server may take to come up on a busy machine.
const STARTING: Duration = Duration::from_secs(60);

/// How often a server is asked whether it is ready, and a process whether it is stopped.
const POLL: Duration = Duration::from_millis(2);

/// As much of a log as an error quotes.
const QUOTED_LINES: usize = 12;

/// A server's process and directory. Both are gone when it is dropped, or when this process is gone.
#[derive(Debug)]
pub(crate) struct Process {
    directory: PathBuf,
    command: Vec<OsString>,
    keeper: Keeper,
    /// Where in the log the present run begins.
    log_start: u64,
    /// The process that owns it: to a forked child it means nothing.
    owner: u32,
}

/// What came of a start.
#[derive(Debug)]
#[must_use]
pub(crate) enum Start {
    Ready,
    /// The server ended, and this is its log.
    Ended(String),
}

impl Process {
    /// Makes a directory, which `command` may name, and starts nothing yet.
    pub(crate) fn prepare(
        technology: &str,
        command: impl FnOnce(&Path) -> Vec<OsString>,
    ) -> Result<Self, Error> {
        let owner = std::process::id();
        let chance = RandomState::new().hash_one(owner);
        let directory = std::env::temp_dir().join(format!("locks-test-{technology}-{owner}-{chance:016x}"));
        let command = command(&directory);
        let keeper = Keeper::of(&directory, Age::New, &command)?;
        Ok(Self { directory, command, keeper, log_start: 0, owner })
    }

    /// Starts the server and waits until `is_ready` says so; it is handed what the log of this run says.
    pub(crate) fn start(
        &mut self,
        mut is_ready: impl FnMut(&str) -> Result<bool, Error>,
    ) -> Result<Start, Error> {
        if self.server()?.is_some() {
            return Err(Error::failed("the server runs already"));
        }
        self.log_start = fs::metadata(self.log_path()).map_or(0, |metadata| metadata.len());
        self.keeper.start()?;
        let deadline = Instant::now() + STARTING;
        loop {
            if is_ready(&self.log()?)? {
                return Ok(Start::Ready);
            }
            if self.keeper.ended_within(POLL)?.is_some() {
                return Ok(Start::Ended(self.log()?));
            }
            if Instant::now() > deadline {
                let why = format!("not ready within {STARTING:?}");
                return Err(Error::failed(quoting(&why, &self.log()?)));
            }
        }
    }

    /// Kills the server and its children, and waits until they are gone. No error if it has ended already.
    pub(crate) fn kill(&mut self) -> Result<(), Error> {
        // The next keeper is there before the last one goes, so that there is never none.
        let next = Keeper::of(&self.directory, Age::Old, &self.command)?;
        std::mem::replace(&mut self.keeper, next).hand_over()
    }

    /// Stops the server as SIGSTOP does, and waits until it stands still.
    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        let server = self.signal(Signal::STOP)?;
        let deadline = Instant::now() + STARTING;
        while is_running(server) {
            if Instant::now() > deadline {
                return Err(Error::failed(format!("the server does not stop within {STARTING:?}")));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Lets a stopped server go on.
    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        self.signal(Signal::CONT).map(|_| ())
    }

    /// Removes what the server has stored.
    pub(crate) fn wipe(&mut self) -> Result<(), Error> {
        if self.server()?.is_some() {
            return Err(Error::failed("kill the server before its data are removed"));
        }
        fs::remove_dir_all(self.data())?;
        fs::create_dir(self.data())?;
        Ok(())
    }

    /// What the server has said since it was last started.
    pub(crate) fn log(&self) -> Result<String, Error> {
        let read = || -> io::Result<Vec<u8>> {
            let mut log = fs::File::open(self.log_path())?;
            log.seek(SeekFrom::Start(self.log_start))?;
            let mut said = Vec::new();
            log.read_to_end(&mut said)?;
            Ok(said)
        };
        match read() {
            Ok(said) => Ok(String::from_utf8_lossy(&said).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The part of the directory for what the server stores.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(crate) fn pid(&mut self) -> Result<u32, Error> {
        Ok(self.running_server()?.as_raw_nonzero().get().unsigned_abs())
    }

    /// The server's process, if it has not ended.
    fn server(&mut self) -> Result<Option<Pid>, Error> {
        if self.keeper.server().is_some() {
            self.keeper.ended_within(Duration::ZERO)?;
        }
        Ok(self.keeper.server())
    }

    fn running_server(&mut self) -> Result<Pid, Error> {
        match self.server()? {
            Some(server) => Ok(server),
            None => Err(Error::failed(quoting("the server does not run", &self.log()?))),
        }
    }

    fn signal(&mut self, signal: Signal) -> Result<Pid, Error> {
        let server = self.running_server()?;
        kill_process(server, signal).map_err(io::Error::from)?;
        Ok(server)
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            return;
        }
        if let Err(error) = self.keeper.clear_away() {
            // A test that fails already has said more; any other must not pass.
            assert!(
                std::thread::panicking(),
                "can't clear away the server in {}: {error}",
                self.directory.display()
            );
        }
    }
}

/// What went wrong, with the end of the log below it.
pub(crate) fn quoting(what: &str, log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.get(lines.len().saturating_sub(QUOTED_LINES)..).unwrap_or_default();
    if last.is_empty() {
        return format!("{what}, and its log is empty");
    }
    format!("{what}; its log ends with:\n{}", last.join("\n"))
}

/// Whether the process is neither stopped nor dead. Elsewhere than on Linux nobody can tell, and signals are trusted.
fn is_running(process: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    // The name is in brackets and may contain anything.
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, Some('T' | 't' | 'Z' | 'X') | None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_quotes_the_end_of_the_log() {
        let log: String = (1..=20).map(|line| format!("line {line}\n")).collect();
        let quoted = quoting("it ended", &log);
        assert!(quoted.starts_with("it ended; its log ends with:\nline 9\n"), "{quoted}");
        assert!(quoted.ends_with("line 20"), "{quoted}");
        assert_eq!(quoting("it ended", ""), "it ended, and its log is empty");
    }
}
