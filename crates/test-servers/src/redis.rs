//! Redis and Valkey.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::port;
use crate::process::{Process, Start, quoting};
use crate::source::{Mode, Source, address, ping, redacted};
use crate::technology::Technology;

/// How long one PING may take while the server comes up.
const PONG: Duration = Duration::from_secs(2);

/// How often another port is tried when somebody else was quicker.
const PORTS: usize = 20;

/// How long a server that comes back waits for its port.
const PORT_FREE: Duration = Duration::from_secs(20);

/// Said by the server when it has its port. An answer alone might come from somebody else's server on it.
const READY: &str = "Ready to accept connections";

/// Said by the server when somebody else has its port.
const PORT_TAKEN: &str = "Address already in use";

/// A Redis or Valkey server: a private child process, or somebody else's that a URL names.
///
/// Dropping it ends the private process and removes its directory; if the test process dies, the same happens without it.
///
/// # Panics
///
/// When dropped, if the server can't be ended, unless the thread is panicking already.
#[derive(Debug)]
pub struct Redis {
    url: String,
    address: SocketAddr,
    /// `None` if it is somebody else's.
    own: Option<Own>,
}

/// What is known of a private server.
#[derive(Debug)]
struct Own {
    directory: PathBuf,
    further_ports: Vec<(String, u16)>,
    process: Mutex<Process>,
}

impl Redis {
    /// Starts a private server that keeps nothing on disk, on a free port of this machine, and waits until it answers.
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
    pub fn options() -> Options {
        Options::default()
    }

    /// The server that the environment names, or else a private one as [`start`](Self::start) makes it.
    ///
    /// What is in a server that the environment names is not ours: use names that nobody else has.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and [`ErrorKind::Missing`](crate::ErrorKind::Missing) if the named server does not answer.
    pub fn shared() -> Result<Self, Error> {
        match Source::of_shared(Technology::Redis, Mode::from_env()?)? {
            Source::Url { url } => {
                let address = address(&url)?;
                Ok(Self { url, address, own: None })
            }
            Source::Program { path, .. } => Options::default().start_program(&path, port::free),
        }
    }

    /// Where it is: `redis://127.0.0.1:PORT`, or the URL that the environment names.
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

    /// The port that it was given for this setting, if it was: see [`Options::further_port`].
    #[must_use]
    pub fn further_port(&self, setting: &str) -> Option<u16> {
        let ports = &self.own.as_ref()?.further_ports;
        ports.iter().find(|(name, _)| name == setting).map(|(_, port)| *port)
    }

    /// Its directory, in which it and its files are. Goes when it goes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs).
    pub fn directory(&self) -> Result<&Path, Error> {
        self.own().map(|own| own.directory.as_path())
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
            match process.start(|log| answers(self.address, log))? {
                Start::Ready => return Ok(()),
                Start::Ended(log) if log.contains(PORT_TAKEN) && Instant::now() < deadline => {}
                Start::Ended(log) => return Err(ended(&log)),
            }
        }
    }

    /// Removes what it has stored on disk. It must be down.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotOurs`](crate::ErrorKind::NotOurs), [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it runs or a file can't be removed.
    pub fn wipe(&self) -> Result<(), Error> {
        self.process()?.wipe()
    }

    /// Stops its main process with SIGSTOP: it takes connections, in the kernel, and answers nothing. Returns when it stands still.
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

    fn own(&self) -> Result<&Own, Error> {
        self.own.as_ref().ok_or_else(|| Error::not_ours(&redacted(&self.url)))
    }

    fn process(&self) -> Result<MutexGuard<'_, Process>, Error> {
        // What a panicking test leaves is still a process to be ended.
        self.own().map(|own| own.process.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a private server is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    port: Option<u16>,
    further_ports: Vec<String>,
    settings: Vec<(String, String)>,
    files: Vec<(String, String)>,
}

impl Options {
    /// A line of its redis.conf, such as `config("appendonly", "yes")` or `config("replicaof", "127.0.0.1 6379")`.
    ///
    /// `{directory}` in the value stands for the server's [directory](Redis::directory). Later lines win over earlier ones and over the
    /// defaults; where the server runs, listens and logs (`port`, `dir`, `daemonize`, `loglevel`, `logfile`) is not for them to say.
    #[must_use]
    pub fn config(mut self, setting: &str, value: &str) -> Self {
        self.settings.push((setting.to_owned(), value.to_owned()));
        self
    }

    /// This port instead of a free one. Taken by somebody else, it is an error.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// One more free port, under this setting: `further_port("tls-port")`.
    #[must_use]
    pub fn further_port(mut self, setting: &str) -> Self {
        self.further_ports.push(setting.to_owned());
        self
    }

    /// A file in the server's directory before it starts, such as a certificate or a list of users: `config` names it
    /// `{directory}/NAME`. [`Redis::wipe`] leaves it alone.
    #[must_use]
    pub fn file(mut self, name: &str, contents: &str) -> Self {
        self.files.push((name.to_owned(), contents.to_owned()));
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    ///
    /// As [`Redis::start`].
    pub fn start(self) -> Result<Redis, Error> {
        match Source::of_own(Technology::Redis, Mode::from_env()?)? {
            Source::Program { path, .. } => self.start_program(&path, port::free),
            Source::Url { url } => Err(Error::not_ours(&redacted(&url))),
        }
    }

    fn start_program(
        self,
        program: &Path,
        mut free_port: impl FnMut() -> Result<u16, Error>,
    ) -> Result<Redis, Error> {
        let command = |directory: &Path| -> Vec<OsString> {
            vec![program.as_os_str().to_owned(), directory.join("redis.conf").into_os_string()]
        };
        let mut process = Process::prepare(Technology::Redis.name(), command)?;
        let directory = process.directory().to_owned();
        for (name, contents) in &self.files {
            fs::write(directory.join(name), contents)?;
        }
        let mut tries = 0..PORTS;
        loop {
            let port = match self.port {
                Some(port) => port,
                None => free_port()?,
            };
            let mut further_ports = Vec::new();
            for setting in &self.further_ports {
                further_ports.push((setting.clone(), port::free()?));
            }
            let config = self.redis_conf(&directory, &process.data(), port, &further_ports);
            fs::write(directory.join("redis.conf"), config)?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            match process.start(|log| answers(address, log))? {
                Start::Ready => {
                    let own = Own { directory, further_ports, process: Mutex::new(process) };
                    return Ok(Redis { url: format!("redis://{address}"), address, own: Some(own) });
                }
                Start::Ended(log)
                    if self.port.is_none() && log.contains(PORT_TAKEN) && tries.next().is_some() => {}
                Start::Ended(log) => return Err(ended(&log)),
            }
        }
    }

    fn redis_conf(
        &self,
        directory: &Path,
        data: &Path,
        port: u16,
        further_ports: &[(String, u16)],
    ) -> String {
        let directory = directory.to_string_lossy();
        let defaults =
            [("save", "\"\""), ("appendonly", "no"), ("bind", "127.0.0.1"), ("protected-mode", "no")];
        let (port, data) = (port.to_string(), format!("\"{}\"", data.display()));
        let fixed = [
            ("port", port.as_str()),
            ("dir", &data),
            ("daemonize", "no"),
            ("loglevel", "notice"),
            ("logfile", "\"\""),
        ];
        let mut config = String::new();
        let mut line = |setting: &str, value: &str| {
            config.push_str(&format!("{setting} {value}\n"));
        };
        for (setting, value) in defaults {
            line(setting, value);
        }
        for (setting, value) in &self.settings {
            line(setting, &value.replace("{directory}", &directory));
        }
        for (setting, port) in further_ports {
            line(setting, &port.to_string());
        }
        for (setting, value) in fixed {
            line(setting, value);
        }
        config
    }
}

/// Whether the server that wrote this log answers at this address.
fn answers(address: SocketAddr, log: &str) -> Result<bool, Error> {
    if !log.contains(READY) {
        return Ok(false);
    }
    // It may die any time, which its keeper reports.
    Ok(TcpStream::connect_timeout(&address, PONG)
        .and_then(|mut stream| ping(&mut stream, PONG))
        .unwrap_or(false))
}

fn ended(log: &str) -> Error {
    Error::failed(quoting("the server ended instead of coming up", log))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn program() -> PathBuf {
        Technology::Redis.program().expect("redis-server is installed")
    }

    #[test]
    fn when_somebody_else_was_quicker_another_port_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let mut first = Some(taken_port);
        let server = Options::default()
            .start_program(&program(), || first.take().map_or_else(port::free, Ok))
            .unwrap();
        assert_eq!(first, None);
        assert_ne!(server.port(), taken_port);
    }

    #[test]
    fn ports_that_are_always_taken_are_an_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let error = Options::default().start_program(&program(), || Ok(taken_port)).unwrap_err();
        assert!(error.to_string().contains(PORT_TAKEN), "{error}");
    }

    #[test]
    fn the_server_of_somebody_else_is_left_alone() {
        let ours = Redis::start().unwrap();
        let shared = Redis { url: "redis://u:p@h".to_owned(), address: ours.address(), own: None };
        let not_ours = |error: Error| {
            assert_eq!(error.kind(), crate::ErrorKind::NotOurs);
            assert_eq!(
                error.to_string(),
                "redis://***@h is not a server of this process: it can be used, and nothing else"
            );
        };
        not_ours(shared.kill().unwrap_err());
        not_ours(shared.start_again().unwrap_err());
        not_ours(shared.wipe().unwrap_err());
        not_ours(shared.pause().unwrap_err());
        not_ours(shared.resume().unwrap_err());
        not_ours(shared.pid().unwrap_err());
        not_ours(shared.directory().unwrap_err());
        not_ours(shared.log().unwrap_err());
        drop(shared);
        assert!(answers(ours.address(), READY).unwrap());
    }
}
