//! The keeper of a server: a shell, or for a container a program that obeys like it, which outlives the test process by the moment it takes to
//! remove what that left.
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

use rustix::process::{Pid, Signal, kill_process_group};

use crate::account::Account;
use crate::error::Error;
use crate::place::{Network, Place};

const SCRIPT: &str = include_str!("keeper.sh");

/// How long the keeper, or the death of a process, may take on a busy machine.
const PROMPT: Duration = Duration::from_secs(20);

/// How long it may take to make a container, on a busy machine and for an image that has never been used.
const STARTING: Duration = Duration::from_secs(120);

/// A keeper and the server that it started, if it did.
#[derive(Debug)]
pub(crate) struct Keeper {
    child: Child,
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
    /// Starts a keeper of this directory, for a server with this command line in this place.
    pub(crate) fn of(directory: &Path, age: Age, place: &Place, command: &[OsString]) -> Result<Self, Error> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        let child = command_line(directory, age, place, command)
            .current_dir("/")
            .process_group(0)
            .stdin(theirs.try_clone()?)
            .stdout(theirs)
            .stderr(Stdio::null())
            .spawn()?;
        let mut keeper = Self { child, socket: BufReader::new(ours), line: Vec::new(), server: None };
        match keeper.line_within(PROMPT)? {
            Line::Said(line) if line == "kept" => Ok(keeper),
            Line::Said(line) => Err(Error::failed(line)),
            Line::Nothing | Line::Closed => {
                let whose = place.account.map_or("", |_| " under the account that the server is to have");
                Err(Error::failed(format!("can't make the directory {}{whose}", directory.display())))
            }
        }
    }

    /// Starts the server.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        self.order("start\n")?;
        let line = self.line_within(STARTING)?;
        let pid = match &line {
            // It was quick.
            Line::Said(line) if line.starts_with("ended ") => return Ok(()),
            Line::Said(line) => line.strip_prefix("started ").and_then(|pid| pid.parse().ok()),
            Line::Nothing | Line::Closed => None,
        };
        let pid = pid
            .and_then(Pid::from_raw)
            .ok_or_else(|| Error::failed(format!("the server's keeper did not start it: {line:?}")))?;
        self.server = Some(pid);
        Ok(())
    }

    /// Stops the server and its children, and waits until they stand still. It must run.
    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        self.treat_running("pause", "paused")
    }

    /// Lets the server and its children go on. It must run.
    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        self.treat_running("resume", "resumed")
    }

    /// Cuts the server off from everybody. It must run, in a network of its own.
    pub(crate) fn disconnect(&mut self) -> Result<(), Error> {
        self.treat_running("disconnect", "disconnected")
    }

    /// Lets the server be reached again. It must run, in a network of its own.
    pub(crate) fn reconnect(&mut self) -> Result<(), Error> {
        self.treat_running("reconnect", "reconnected")
    }

    /// The server's process, unless it is known to have ended.
    pub(crate) fn server(&self) -> Option<Pid> {
        self.server
    }

    /// Waits so long for the end of the server, and says whether it has come.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> Result<bool, Error> {
        match self.line_within(limit)? {
            Line::Nothing => Ok(false),
            Line::Said(line) if line.starts_with("ended ") => {
                self.server = None;
                Ok(true)
            }
            Line::Said(line) => Err(Error::failed(format!("the server's keeper said {line:?}"))),
            Line::Closed => Err(Error::failed("the server's keeper is gone: somebody killed it")),
        }
    }

    /// Kills the server and its children, also if they are stopped, removes what they would leave behind, and waits until the
    /// server is gone. Children may still be dying.
    fn kill_server(&mut self) -> Result<(), Error> {
        let Some(server) = self.server else { return Ok(()) };
        self.treat("end", server, "killed")?;
        // Until it has been waited for, its number looks as if it was there.
        if self.server.is_none() || self.ended_within(PROMPT)? {
            Ok(())
        } else {
            Err(Error::failed(format!("the server did not die within {PROMPT:?}")))
        }
    }

    /// Has something done to the running server.
    fn treat_running(&mut self, order: &str, done: &str) -> Result<(), Error> {
        let not_there = || Error::failed("the server does not run");
        let server = self.server.ok_or_else(not_there)?;
        self.treat(order, server, done)?;
        self.server.map(drop).ok_or_else(not_there)
    }

    fn treat(&mut self, order: &str, server: Pid, done: &str) -> Result<(), Error> {
        self.order(&format!("{order} {server}\n"))?;
        loop {
            match self.line_within(PROMPT)? {
                Line::Said(line) if line == done => return Ok(()),
                Line::Said(line) if line.starts_with("ended ") => self.server = None,
                line => {
                    let what =
                        format!("the server is not {done} within {PROMPT:?}, its keeper said {line:?}");
                    return Err(Error::failed(what));
                }
            }
        }
    }

    fn order(&mut self, order: &str) -> Result<(), Error> {
        Ok(self.socket.get_mut().write_all(order.as_bytes())?)
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
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let group = group.ok_or_else(|| Error::failed("a process without a number"))?;
        match kill_process_group(group, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        self.child.wait()?;
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

/// The shell with its script, or the program that keeps a container; then come the same arguments.
fn command_line(directory: &Path, age: Age, place: &Place, server: &[OsString]) -> Command {
    let age = if age == Age::New { "new" } else { "old" };
    let Some(container) = &place.container else {
        let mut shell = Command::new("/bin/sh");
        if let Some(account) = place.account {
            account.apply_to(&mut shell);
        }
        shell.args(["-c", SCRIPT, "keeper"]).arg(directory).arg(age).args(server);
        return shell;
    };
    let image = &container.image;
    let mut engine = OsString::from("unix://");
    engine.push(image.socket());
    let network = container.network.as_ref().map_or_else(|| "host".to_owned(), Network::argument);
    let mut keeper = Command::new(image.keeper());
    keeper.env("DOCKER_HOST", engine);
    // It does as it was told, and not as other users of the same library are.
    for variable in ["DOCKER_TLS_VERIFY", "DOCKER_DEFAULT_PLATFORM", "TESTCONTAINERS_COMMAND"] {
        keeper.env_remove(variable);
    }
    keeper.arg(directory).args([age, image.name(), &Account::ids(place.account), &network]).args(server);
    keeper
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
