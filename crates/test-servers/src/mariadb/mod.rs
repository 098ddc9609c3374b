//! MariaDB and MySQL.

mod options;
mod wire;

use std::ops::Deref;

pub use options::MariaDbOptions;
pub(crate) use wire::is_reception;

use crate::error::Error;
use crate::port;
use crate::program::Program;
use crate::server::Server;
use crate::source::{Mode, Source};
use crate::technology::Technology;

/// A MariaDB server, or one of MySQL from an image. All else that can be done to it is in [`Server`].
///
/// A private one has the user `root`, who needs no password, and the empty database `test`.
#[derive(Debug)]
pub struct MariaDb {
    server: Server,
}

impl MariaDb {
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
    pub fn options() -> MariaDbOptions {
        MariaDbOptions::default()
    }

    /// The server that the environment names, or else a private one as [`start`](Self::start) makes it.
    ///
    /// What is in a server that the environment names is not ours: use names that nobody else has.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and [`ErrorKind::Missing`](crate::ErrorKind::Missing) if the named server does not answer.
    pub fn shared() -> Result<Self, Error> {
        match Source::of_shared(Technology::MariaDb, Mode::from_env()?)? {
            Source::Url { url } => Ok(Self { server: Server::of_somebody_else(Technology::MariaDb, url)? }),
            source => {
                let program = Program::from(Technology::MariaDb, source)?;
                MariaDbOptions::default().start_program(&program, port::free)
            }
        }
    }

    /// Runs statements over a connection of their own, as `root` in the database `test`, and returns the rows of all as text, with `None` for
    /// null.
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
}

impl Deref for MariaDb {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
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
        let program = Program::of_own(Technology::MariaDb).unwrap();
        let server = MariaDbOptions::default()
            .start_program(&program, || first.take().map_or_else(port::free, Ok))
            .unwrap();
        assert_eq!(first, None);
        assert_ne!(server.port(), taken_port);
    }
}
