//! The keeper of a server: a shell that outlives the test process by the moment it takes to remove what that left.
//!
//! The test process may be killed at any instruction. So the directory is made and the server is started by the keeper,
//! which reads the end of its input when the test process is gone, however it went. There is nothing to be
//! registered and no signal to be caught; the test process has one descriptor more, and no thread.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::error::Error;

const SCRIPT: &str = include_str!("keeper.sh");

/// How long the keeper, or the death of a process, may take on a busy machine.
const PROMPT: Duration = Duration::from_secs(20);

/// A keeper and the server that it started, if it did.
#[derive(Debug)]
pub(crate) struct Keeper {
    shell: Child,
    socket: BufReader<UnixStream>,
    /// The part of a line that has come so far.
    line: Vec<u8>,
    server: Option<Pid>,
}

/// Who makes the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// This keeper does.
    New,
    /// Its predecessor did.
    Old,
}

impl Keeper {
    /// Starts a keeper of this directory, for a server with this command line.
    pub(crate) fn of(directory: &Path, age: Age, command: &[OsString]) -> Result<Self, Error> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "keeper"])
            .arg(directory)
            .arg(if age == Age::New { "new" } else { "old" })
            .args(command)
            .current_dir("/")
            .process_group(0)
            .stdin(theirs.try_clone()?)
            .stdout(theirs)
            .stderr(Stdio::null())
            .spawn()?;
        let mut keeper = Self { shell, socket: BufReader::new(ours), line: Vec::new(), server: None };
        match keeper.line_within(PROMPT)? {
            Line::Said(line) if line == "kept" => Ok(keeper),
            _ => Err(Error::failed(format!("can't make the directory {}", directory.display()))),
        }
    }

    /// Starts the server.
    pub(crate) fn start(&mut self) -> Result<Pid, Error> {
        self.socket.get_mut().write_all(b"start\n")?;
        let line = self.line_within(PROMPT)?;
        let pid = match &line {
            Line::Said(line) => line.strip_prefix("started ").and_then(|pid| pid.parse().ok()),
            Line::Nothing | Line::Closed => None,
        };
        let pid = pid
            .and_then(Pid::from_raw)
            .ok_or_else(|| Error::failed(format!("the server's keeper did not start it: {line:?}")))?;
        self.server = Some(pid);
        Ok(pid)
    }

    /// The server's process, unless it is known to have ended.
    pub(crate) fn server(&self) -> Option<Pid> {
        self.server
    }

    /// Waits so long for the end of the server, and returns what its shell would: its exit code, or 128 and the signal.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> Result<Option<u8>, Error> {
        match self.line_within(limit)? {
            Line::Nothing => Ok(None),
            Line::Said(line) => {
                self.server = None;
                let code = line.strip_prefix("ended ").and_then(|code| code.parse().ok());
                code.map(Some).ok_or_else(|| Error::failed(format!("the server's keeper said {line:?}")))
            }
            Line::Closed => Err(Error::failed("the server's keeper is gone: somebody killed it")),
        }
    }

    /// Kills the server, also if it is stopped, and waits until it is gone. Its children may still be there.
    fn kill_server(&mut self) -> Result<(), Error> {
        // One that is known to have ended gives its number to others; until then the shell is its parent and waits for it.
        let Some(server) = self.server else { return Ok(()) };
        match kill_process(server, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        match self.ended_within(PROMPT)? {
            Some(_) => Ok(()),
            None => Err(Error::failed(format!("the server did not die within {PROMPT:?}"))),
        }
    }

    /// Kills the server and its children, and ends the keeper, who leaves the directory to a successor.
    pub(crate) fn hand_over(mut self) -> Result<(), Error> {
        self.kill_server()?;
        self.kill_group()
    }

    /// Ends everything: the server, its children, its directory, the keeper.
    pub(crate) fn clear_away(&mut self) -> Result<(), Error> {
        // A server that is dead does not write while its directory is being removed. What comes next ends it in any case.
        let killed = self.kill_server();
        self.socket.get_ref().shutdown(Shutdown::Write)?;
        let cleared = self.closed_within(PROMPT);
        self.kill_group()?;
        killed.and(cleared)
    }

    /// Kills everybody in the group and waits until they are gone. As the keeper has not been waited for, no other group can have its number.
    fn kill_group(&mut self) -> Result<(), Error> {
        let group = i32::try_from(self.shell.id()).ok().and_then(Pid::from_raw);
        let group = group.ok_or_else(|| Error::failed("a process without a number"))?;
        match kill_process_group(group, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        self.shell.wait()?;
        self.closed_within(PROMPT)
    }

    /// Waits until nobody has the other end: the keeper, the server and its children are gone.
    fn closed_within(&mut self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            match self.line_within(deadline.saturating_duration_since(Instant::now()))? {
                Line::Closed => return Ok(()),
                Line::Said(_) => {}
                Line::Nothing => {
                    return Err(Error::failed(format!(
                        "something of the server is still there after {limit:?}"
                    )));
                }
            }
        }
    }

    fn line_within(&mut self, limit: Duration) -> Result<Line, Error> {
        // A timeout of zero would mean none.
        self.socket.get_ref().set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        match self.socket.read_until(b'\n', &mut self.line) {
            Ok(0) => Ok(Line::Closed),
            Ok(_) => {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim().to_owned();
                Ok(Line::Said(line))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(Line::Nothing)
            }
            // The keeper was killed with an order unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Line::Closed),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the keeper said.
#[derive(Debug)]
enum Line {
    Said(String),
    /// Nothing in time.
    Nothing,
    /// Nobody is there any more.
    Closed,
}
