//! PostgreSQL.

mod options;
mod standby;
mod wire;

use std::fs;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

pub use options::PostgresOptions;
pub(crate) use wire::STARTUP;

use crate::error::Error;
use crate::port;
use crate::process::{Start, quoting};
use crate::program::Program;
use crate::server::{Server, ended};
use crate::source::{Mode, Source};
use crate::technology::Technology;
use options::Configuration;

/// A PostgreSQL server, a primary or a standby. All else that can be done to it is in [`Server`].
///
/// A private one has a superuser `postgres`, who needs no password, and the database `postgres`. There is no other, and so no template to make
/// one from, which makes starts cheap.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    configuration: Configuration,
}

/// A copy of all that a server stored at some time, for [`Postgres::restore`].
#[derive(Debug)]
pub struct BaseBackup {
    path: PathBuf,
}

impl Postgres {
    /// Starts a private server, on a free port of this machine, and waits until it answers. It keeps its data over its death, but not over
    /// that of the machine.
    ///
    /// Where this process is root's, the server runs as `postgres`, or as `nobody`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`](crate::ErrorKind::Missing) if there is no program for it or none may be started,
    /// [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it did not come up.
    pub fn start() -> Result<Self, Error> {
        Self::options().start()
    }

    /// A private server that is not like all others.
    #[must_use]
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    /// The server that the environment names, or else a private one as [`start`](Self::start) makes it.
    ///
    /// What is in a server that the environment names is not ours: use names that nobody else has.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and [`ErrorKind::Missing`](crate::ErrorKind::Missing) if the named server does not answer.
    pub fn shared() -> Result<Self, Error> {
        match Source::of_shared(Technology::Postgres, Mode::from_env()?)? {
            Source::Url { url } => {
                let server = Server::of_somebody_else(Technology::Postgres, url)?;
                Ok(Self { server, configuration: Configuration::default() })
            }
            source => {
                let program = Program::from(Technology::Postgres, source)?;
                PostgresOptions::default().start_program(program, port::free)
            }
        }
    }

    /// Runs statements over a connection of their own, and returns the rows of all as text, with `None` for null.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`](crate::ErrorKind::Failed) with what the server says if it refuses, or if it does not answer. A server that wants
    /// a password can't be asked.
    pub fn ask(&self, statements: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        wire::ask(self.address(), statements).map_err(|error| {
            Error::failed(error.to_string()).while_doing(format_args!("asking {statements:?}"))
        })
    }

    /// Changes a setting, as its configuration file has it, and tells the server if it runs. A setting that needs a restart has it when it
    /// is started again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it can't be written.
    pub fn configure(&mut self, setting: &str, value: &str) -> Result<(), Error> {
        let port = self.port();
        let mut process = self.server.process()?;
        self.configuration.set(setting, value);
        self.configuration.write(&process, port)?;
        if process.is_running()? { signal(process.pid()?, Signal::HUP) } else { Ok(()) }
    }

    /// Kills one of its processes with SIGKILL, such as that of a session. The server ends all others, starts them again, and forgets what is
    /// in UNLOGGED tables. Returns when it answers again, with the process id of the server unchanged.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it has no such process, or does
    /// not come up.
    pub fn kill_one_backend(&self, pid: u32) -> Result<(), Error> {
        let mut process = self.server.process()?;
        if parent_of(pid)? != process.pid()? {
            return Err(Error::failed(format!("process {pid} is none of the server's")));
        }
        let said_before = process.log()?.len();
        signal(pid, Signal::KILL)?;
        let is_back = |log: &str| {
            let since = log.get(said_before..).unwrap_or_default();
            since
                .split_once("reinitializing")
                .is_some_and(|(_, since)| since.contains("ready to accept connections"))
        };
        match process.wait_until(is_back)? {
            Start::Ready => Ok(()),
            Start::Ended(log) => Err(ended(&log)),
        }
    }

    /// Copies all that it stores. It must run.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if that fails.
    pub fn base_backup(&self) -> Result<BaseBackup, Error> {
        let process = self.server.process()?;
        let names = (0_u64..).map(|number| process.directory().join(format!("backup{number}")));
        let path = names.into_iter().find(|path| !path.exists());
        let path = path.ok_or_else(|| Error::failed("there is no name left"))?;
        let program = self.configuration.program("pg_basebackup");
        let command = format!(
            "{} -D {} -c fast -X stream --no-sync -d 'host=127.0.0.1 port={} user=postgres'",
            shell_word(&program.to_string_lossy()),
            shell_word(&path.to_string_lossy()),
            self.port()
        );
        let said_before = process.log()?.len();
        // The server runs it, and so has the program, wherever the server is.
        self.ask(&format!("COPY (SELECT '') TO PROGRAM '{}'", command.replace('\'', "''"))).map_err(
            |error| {
                let log = process.log().unwrap_or_default();
                Error::failed(quoting(&error.to_string(), log.get(said_before..).unwrap_or_default()))
            },
        )?;
        Ok(BaseBackup { path })
    }

    /// Replaces what it has stored by an earlier state of it. It must be down.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it runs, or the backup is gone
    /// with the server that made it.
    pub fn restore(&self, backup: BaseBackup) -> Result<(), Error> {
        let mut process = self.server.process()?;
        if process.is_running()? {
            return Err(Error::failed("kill the server before its data are replaced"));
        }
        fs::remove_dir_all(process.data())?;
        Ok(fs::rename(backup.path, process.data())?)
    }

    /// Starts it again after its death, as [`start_again`](Server::start_again) does, on another port: a standby that takes the place of its
    /// primary.
    ///
    /// # Errors
    ///
    /// As [`start_again`](Server::start_again).
    pub fn start_again_on(&mut self, port: u16) -> Result<(), Error> {
        self.configuration.write(&*self.server.process()?, port)?;
        self.server.move_to(port);
        self.server.start_again()
    }
}

impl Deref for Postgres {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// As a shell takes it for one word.
fn shell_word(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn signal(pid: u32, signal: Signal) -> Result<(), Error> {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| Error::failed(format!("{pid} is no process")))?;
    Ok(kill_process(process, signal).map_err(io::Error::from)?)
}

fn parent_of(pid: u32) -> Result<u32, Error> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    parent.ok_or_else(|| Error::failed(format!("process {pid} has no parent")))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn when_somebody_else_was_quicker_another_port_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let mut first = Some(taken_port);
        let server = PostgresOptions::default()
            .start_program(Program::of_own(Technology::Postgres).unwrap(), || {
                first.take().map_or_else(port::free, Ok)
            })
            .unwrap();
        assert_eq!(first, None);
        assert_ne!(server.port(), taken_port);
    }
}
