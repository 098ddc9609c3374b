//! What all servers have in common, whatever they serve.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::probe;
use crate::process::{Process, Start, quoting};
use crate::source::redacted;
use crate::technology::Technology;

/// How often another port is tried when somebody else was quicker.
pub(crate) const PORTS: usize = 20;

/// How long a server that comes back waits for its port.
const PORT_FREE: Duration = Duration::from_secs(20);

/// A server: a private child process, or somebody else's that a URL names. What is particular to Redis, PostgreSQL and so on dereferences
/// to this.
///
/// Dropping it ends the private process and removes its directory; if the test process dies, the same happens without it.
///
/// # Panics
///
/// When dropped, if the server can't be ended, unless the thread is panicking already.
#[derive(Debug)]
pub struct Server {
    technology: Technology,
    url: String,
    address: SocketAddr,
    /// `None` if it is somebody else's.
    own: Option<Own>,
}

/// What is known of a private server.
#[derive(Debug)]
struct Own {
    directory: PathBuf,
    process: Mutex<Process>,
}

impl Server {
    /// Where it is, such as `redis://127.0.0.1:PORT`, or the URL that the environment names.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Whether it is a private server, which can be killed.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.own.is_some()
    }

    /// Whether it is a private server in a container.
    #[must_use]
    pub fn is_in_container(&self) -> bool {
        self.process().is_ok_and(|process| process.is_in_container())
    }

    /// Its directory, in which it and its files are. Goes when it goes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs).
    pub fn directory(&self) -> Result<&Path, Error> {
        self.own().map(|own| own.directory.as_path())
    }

    /// The part of its directory for what it stores.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs).
    pub fn data_directory(&self) -> Result<PathBuf, Error> {
        Ok(self.process()?.data())
    }

    /// Its process id.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it does not run.
    pub fn pid(&self) -> Result<u32, Error> {
        self.process()?.pid()
    }

    /// What it has said since it was last started.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it can't be read.
    pub fn log(&self) -> Result<String, Error> {
        self.process()?.log()
    }

    /// Kills it with SIGKILL, also while it is paused, and its children with it. Returns when they are gone; does nothing if they are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it does not die.
    pub fn kill(&self) -> Result<(), Error> {
        self.process()?.kill()
    }

    /// Starts it again after its death, on the same port with the same settings and files, and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it runs or does not come up.
    pub fn start_again(&self) -> Result<(), Error> {
        let mut process = self.process()?;
        let deadline = Instant::now() + PORT_FREE;
        loop {
            match process.start(|log| probe::is_ready(self.technology, self.address, log))? {
                Start::Ready => return Ok(()),
                Start::Ended(log) if probe::is_port_taken(&log) && Instant::now() < deadline => {}
                Start::Ended(log) => return Err(ended(&log)),
            }
        }
    }

    /// Removes what it has stored. It must be down.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it runs or a file can't be removed.
    pub fn wipe(&self) -> Result<(), Error> {
        self.process()?.wipe()
    }

    /// Stops it with SIGSTOP, and its children: it takes connections, in the kernel, and answers nothing. Returns when they stand still.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it does not run.
    pub fn pause(&self) -> Result<(), Error> {
        self.process()?.pause()
    }

    /// Lets it go on with SIGCONT.
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause).
    pub fn resume(&self) -> Result<(), Error> {
        self.process()?.resume()
    }

    /// The one that the environment names.
    pub(crate) fn of_somebody_else(technology: Technology, url: String) -> Result<Self, Error> {
        let address = probe::address(&url, technology.default_port())?;
        Ok(Self { technology, url, address, own: None })
    }

    /// Starts one on this port, or on a free one that nobody else takes meanwhile, and waits until it answers. `configure` is called with each
    /// port before it is tried.
    pub(crate) fn start(
        technology: Technology,
        mut process: Process,
        wanted_port: Option<u16>,
        mut free_port: impl FnMut() -> Result<u16, Error>,
        mut configure: impl FnMut(&Process, u16) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut tries = 0..PORTS;
        loop {
            let address = local(match wanted_port {
                Some(port) => port,
                None => free_port()?,
            });
            configure(&process, address.port())?;
            match process.start(|log| probe::is_ready(technology, address, log))? {
                Start::Ready => return Ok(Self::ready(technology, address, process)),
                Start::Ended(log)
                    if wanted_port.is_none() && probe::is_port_taken(&log) && tries.next().is_some() => {}
                Start::Ended(log) => return Err(ended(&log)),
            }
        }
    }

    /// One that has been started and answers.
    pub(crate) fn ready(technology: Technology, address: SocketAddr, process: Process) -> Self {
        let own = Own { directory: process.directory().to_owned(), process: Mutex::new(process) };
        Self { technology, url: technology.url(address), address, own: Some(own) }
    }

    /// Where it will be when it is started again.
    pub(crate) fn move_to(&mut self, port: u16) {
        self.address = local(port);
        self.url = self.technology.url(self.address);
    }

    /// Its process, for as long as nobody else needs it.
    pub(crate) fn process(&self) -> Result<MutexGuard<'_, Process>, Error> {
        // What a panicking test leaves is still a process to be ended.
        self.own().map(|own| own.process.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn own(&self) -> Result<&Own, Error> {
        self.own.as_ref().ok_or_else(|| Error::not_ours(&redacted(&self.url)))
    }
}

/// An address of this machine that no other reaches.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

pub(crate) fn ended(log: &str) -> Error {
    Error::failed(quoting("the server ended instead of coming up", log))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Redis};

    #[test]
    fn the_server_of_somebody_else_is_left_alone() {
        let ours = Redis::start().unwrap();
        let url = format!("redis://u:p@{}", ours.address());
        let shared = Server::of_somebody_else(Technology::Redis, url).unwrap();
        let expected = format!(
            "redis://***@{} is not a server of this process: it can be used, and nothing else",
            ours.address()
        );
        let not_ours = |error: Error| {
            assert_eq!(error.kind(), ErrorKind::NotOurs);
            assert_eq!(error.to_string(), expected);
        };
        not_ours(shared.kill().unwrap_err());
        not_ours(shared.start_again().unwrap_err());
        not_ours(shared.wipe().unwrap_err());
        not_ours(shared.pause().unwrap_err());
        not_ours(shared.resume().unwrap_err());
        not_ours(shared.pid().unwrap_err());
        not_ours(shared.directory().unwrap_err());
        not_ours(shared.data_directory().unwrap_err());
        not_ours(shared.log().unwrap_err());
        drop(shared);
        assert!(probe::is_up(Technology::Redis, ours.address(), Duration::from_secs(10)));
    }
}
