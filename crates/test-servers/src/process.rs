//! One server as a private child process, whatever it serves: its directory, its log, its life and its deaths.

use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::keeper::{Age, Keeper};
use crate::place::Place;

/// How long a server may take to come up on a busy machine.
const STARTING: Duration = Duration::from_secs(60);

/// How often a server is asked whether it is ready.
const POLL: Duration = Duration::from_millis(2);

/// As much of a log as an error quotes.
const QUOTED_LINES: usize = 12;

/// A server's process and directory. Both are gone when it is dropped, or when this process is gone.
#[derive(Debug)]
pub(crate) struct Process {
    directory: PathBuf,
    command: Vec<OsString>,
    place: Place,
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
        place: Place,
        command: impl FnOnce(&Path) -> Vec<OsString>,
    ) -> Result<Self, Error> {
        let owner = std::process::id();
        let chance = RandomState::new().hash_one(owner);
        let directory = std::env::temp_dir().join(format!("locks-test-{technology}-{owner}-{chance:016x}"));
        let command = command(&directory);
        let keeper = Keeper::of(&directory, Age::New, &place, &command)?;
        Ok(Self { directory, command, place, keeper, log_start: 0, owner })
    }

    /// Starts the server and waits until `is_ready` says so; it is handed what the log of this run says.
    pub(crate) fn start(&mut self, is_ready: impl FnMut(&str) -> bool) -> Result<Start, Error> {
        self.launch()?;
        self.wait_until(is_ready)
    }

    /// Starts the server, which will not be ready yet.
    pub(crate) fn launch(&mut self) -> Result<(), Error> {
        if self.is_running()? {
            return Err(Error::failed("the server runs already"));
        }
        self.log_start = fs::metadata(self.log_path()).map_or(0, |metadata| metadata.len());
        self.keeper.start()
    }

    /// Waits until this can be said of the log of this run, or the server has ended.
    pub(crate) fn wait_until(&mut self, mut is_so: impl FnMut(&str) -> bool) -> Result<Start, Error> {
        let deadline = Instant::now() + STARTING;
        loop {
            if is_so(&self.log()?) {
                return Ok(Start::Ready);
            }
            if self.keeper.server().is_none() || self.keeper.ended_within(POLL)? {
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
        let next = Keeper::of(&self.directory, Age::Old, &self.place, &self.command)?;
        std::mem::replace(&mut self.keeper, next).hand_over()
    }

    /// Stops the server and its children as SIGSTOP does, and waits until they stand still.
    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        self.running_server()?;
        self.keeper.pause()
    }

    /// Lets a stopped server and its children go on.
    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        self.running_server()?;
        self.keeper.resume()
    }

    /// Cuts the server off from everybody.
    pub(crate) fn disconnect(&mut self) -> Result<(), Error> {
        self.can_be_cut_off()?;
        self.keeper.disconnect()
    }

    /// Lets the server be reached again.
    pub(crate) fn reconnect(&mut self) -> Result<(), Error> {
        self.can_be_cut_off()?;
        self.keeper.reconnect()
    }

    fn can_be_cut_off(&mut self) -> Result<(), Error> {
        if !self.place.is_in_a_network_of_its_own() {
            let what = "only the nodes of a cluster in containers can be cut off: LOCKS_TEST_SERVERS=docker";
            return Err(Error::unsupported(what));
        }
        self.running_server().map(drop)
    }

    /// Removes what the server has stored.
    pub(crate) fn wipe(&mut self) -> Result<(), Error> {
        if self.is_running()? {
            return Err(Error::failed("kill the server before its data are removed"));
        }
        fs::remove_dir_all(self.data())?;
        fs::DirBuilder::new().mode(0o700).create(self.data())?;
        self.give(&self.data())
    }

    /// Writes a file that the server can read and nobody else, in place of one that may be there.
    pub(crate) fn write(&self, name: &str, contents: &str) -> Result<(), Error> {
        let path = self.directory.join(name);
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(contents.as_bytes())?;
        self.give(&path)
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

    pub(crate) fn is_in_container(&self) -> bool {
        self.place.container.is_some()
    }

    pub(crate) fn pid(&mut self) -> Result<u32, Error> {
        self.running_server()
    }

    /// Whether the server has been started and has not ended.
    pub(crate) fn is_running(&mut self) -> Result<bool, Error> {
        if self.keeper.server().is_some() {
            self.keeper.ended_within(Duration::ZERO)?;
        }
        Ok(self.keeper.server().is_some())
    }

    fn running_server(&mut self) -> Result<u32, Error> {
        if !self.is_running()? {
            return Err(Error::failed(quoting("the server does not run", &self.log()?)));
        }
        let server = self.keeper.server().map(|server| server.as_raw_nonzero().get().unsigned_abs());
        server.ok_or_else(|| Error::failed("the server does not run"))
    }

    fn give(&self, path: &Path) -> Result<(), Error> {
        match self.place.account {
            Some(account) => Ok(account.give(path)?),
            None => Ok(()),
        }
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
