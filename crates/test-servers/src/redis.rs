//! Redis and Valkey.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::Path;

use crate::error::Error;
use crate::place::Place;
use crate::port;
use crate::process::Process;
use crate::program::Program;
use crate::server::Server;
use crate::source::{Mode, Source};
use crate::technology::Technology;

/// A Redis or Valkey server. All else that can be done to it is in [`Server`].
#[derive(Debug)]
pub struct Redis {
    server: Server,
    further_ports: Vec<(String, u16)>,
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
                let server = Server::of_somebody_else(Technology::Redis, url)?;
                Ok(Self { server, further_ports: Vec::new() })
            }
            source => {
                Options::default().start_program(&Program::from(Technology::Redis, source)?, port::free)
            }
        }
    }

    /// The port that it was given for this setting, if it was: see [`Options::further_port`].
    #[must_use]
    pub fn further_port(&self, setting: &str) -> Option<u16> {
        self.further_ports.iter().find(|(name, _)| name == setting).map(|(_, port)| *port)
    }
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
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
    /// `{directory}` in the value stands for the server's [directory](Server::directory). Later lines win over earlier ones and over the
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
    /// `{directory}/NAME`. [`wipe`](Server::wipe) leaves it alone.
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
        self.start_program(&Program::of_own(Technology::Redis)?, port::free)
    }

    fn start_program(
        self,
        program: &Program,
        free_port: impl FnMut() -> Result<u16, Error>,
    ) -> Result<Redis, Error> {
        let command = |directory: &Path| -> Vec<OsString> {
            vec![program.command(), directory.join("redis.conf").into_os_string()]
        };
        let process = Process::prepare(Technology::Redis.name(), Place::of(program.image(), None), command)?;
        for (name, contents) in &self.files {
            process.write(name, contents)?;
        }
        let mut further_ports = Vec::new();
        let configure = |process: &Process, port: u16| {
            further_ports.clear();
            for setting in &self.further_ports {
                further_ports.push((setting.clone(), port::free()?));
            }
            let config = self.redis_conf(process.directory(), &process.data(), port, &further_ports);
            process.write("redis.conf", &config)
        };
        let server = Server::start(Technology::Redis, process, self.port, free_port, configure)?;
        Ok(Redis { server, further_ports })
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn program() -> Program {
        Program::of_own(Technology::Redis).unwrap()
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
        assert!(error.to_string().contains("Address already in use"), "{error}");
    }
}
