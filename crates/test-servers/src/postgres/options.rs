//! How a private PostgreSQL server is to be: its options, and the configuration file that becomes of them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Postgres;
use crate::account::Account;
use crate::error::Error;
use crate::place::Place;
use crate::port;
use crate::process::Process;
use crate::program::Program;
use crate::server::Server;
use crate::technology::Technology;

const SCRIPT: &str = include_str!("start.sh");

/// The name of the file.
const FILE: &str = "postgresql.conf";

/// How templates are made: another number when that changes.
const TEMPLATE: u32 = 2;

/// How a private server is to be.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    port: Option<u16>,
    settings: Vec<(String, String)>,
    files: Vec<(String, String)>,
}

impl PostgresOptions {
    /// A setting of its postgresql.conf, such as `config("fsync", "on")` or `config("max_connections", "20")`. The value is quoted.
    ///
    /// `{directory}` in the value stands for the server's [directory](Server::directory). Later settings win over earlier ones and over the
    /// defaults; where the server listens and logs is not for them to say.
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

    /// A file in the server's directory before it starts, such as a certificate: `config` names it `{directory}/NAME`.
    /// [`wipe`](Server::wipe) leaves it alone.
    #[must_use]
    pub fn file(mut self, name: &str, contents: &str) -> Self {
        self.files.push((name.to_owned(), contents.to_owned()));
        self
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    ///
    /// As [`Postgres::start`].
    pub fn start(self) -> Result<Postgres, Error> {
        self.start_program(Program::of_own(Technology::Postgres)?, port::free)
    }

    pub(super) fn start_program(
        self,
        program: Program,
        free_port: impl FnMut() -> Result<u16, Error>,
    ) -> Result<Postgres, Error> {
        let configuration = Configuration { program: Some(program), settings: self.settings, primary: None };
        configuration.start(self.port, &self.files, free_port)
    }
}

/// What a server is started with.
#[derive(Clone, Debug, Default)]
pub(super) struct Configuration {
    /// `None` for somebody else's server.
    program: Option<Program>,
    settings: Vec<(String, String)>,
    /// The port of the primary from which a standby comes.
    primary: Option<u16>,
}

impl Configuration {
    pub(super) fn start(
        self,
        port: Option<u16>,
        files: &[(String, String)],
        free_port: impl FnMut() -> Result<u16, Error>,
    ) -> Result<Postgres, Error> {
        let account = Account::of_servers()?;
        let template = self.template(account);
        let primary = self.primary.map(|port| port.to_string()).unwrap_or_default();
        let command = |directory: &Path| -> Vec<OsString> {
            vec![
                "/bin/sh".into(),
                "-c".into(),
                SCRIPT.into(),
                "start".into(),
                self.program("").into_os_string(),
                directory.join("data").into(),
                directory.join(FILE).into(),
                template.into(),
                primary.into(),
            ]
        };
        let image = self.program.as_ref().and_then(Program::image);
        let place = Place::of(image, account);
        let process = Process::prepare(Technology::Postgres.name(), place, command)?;
        for (name, contents) in files {
            process.write(name, contents)?;
        }
        let configure = |process: &Process, port: u16| self.write(process, port);
        let server = Server::start(Technology::Postgres, process, port, free_port, configure)?;
        Ok(Postgres { server, configuration: self })
    }

    /// The same for a standby.
    pub(super) fn of_standby(&self, primary: u16) -> Self {
        let mut configuration = Self { primary: Some(primary), ..self.clone() };
        configuration.set("primary_conninfo", &format!("host=127.0.0.1 port={primary} user=postgres"));
        configuration
    }

    pub(super) fn set(&mut self, setting: &str, value: &str) {
        self.settings.push((setting.to_owned(), value.to_owned()));
    }

    /// A program that comes with the server, or with an empty name where it is.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.program.as_ref().map(|program| program.beside(name)).unwrap_or_default()
    }

    pub(super) fn write(&self, process: &Process, port: u16) -> Result<(), Error> {
        process.write(FILE, &self.file(process.directory(), port))
    }

    fn file(&self, directory: &Path, port: u16) -> String {
        let directory = directory.to_string_lossy();
        let defaults = [
            // A power cut is nothing that tests bring about.
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("shared_buffers", "32MB"),
            // A standby may take its time to come.
            ("wal_keep_size", "256MB"),
            // In the server's directory, so that it goes with it.
            ("dynamic_shared_memory_type", "mmap"),
        ];
        let port = port.to_string();
        let fixed = [
            ("listen_addresses", "127.0.0.1"),
            ("port", port.as_str()),
            ("unix_socket_directories", ""),
            ("log_destination", "stderr"),
            ("logging_collector", "off"),
            // What the log says is looked at.
            ("lc_messages", "C"),
        ];
        let mut file = String::new();
        let mut line = |setting: &str, value: &str| {
            file.push_str(&format!("{setting} = '{}'\n", value.replace('\'', "''")));
        };
        for (setting, value) in defaults {
            line(setting, value);
        }
        for (setting, value) in &self.settings {
            line(setting, &value.replace("{directory}", &directory));
        }
        for (setting, value) in fixed {
            line(setting, value);
        }
        file
    }

    /// The archive that new clusters are unpacked from, for this version and this account. The first server makes it.
    fn template(&self, account: Option<Account>) -> PathBuf {
        let version = self.program.as_ref().map(Program::identity).unwrap_or_default();
        let user = Account::user(account);
        env::temp_dir().join(format!("locks-test-postgres-{version}-{TEMPLATE}-{user}.tar"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_and_later_ones_come_later() {
        let mut configuration = Configuration::default();
        configuration.set("fsync", "on");
        configuration.set("ssl_cert_file", "{directory}/it's.pem");
        let file = configuration.file(Path::new("/d"), 7);
        let at = |line: &str| file.find(line).unwrap_or_else(|| panic!("{line} in {file}"));
        assert!(at("fsync = 'off'\n") < at("fsync = 'on'\n"));
        assert!(at("ssl_cert_file = '/d/it''s.pem'\n") < at("port = '7'\n"));
    }

    #[test]
    fn each_version_and_account_has_a_template_of_its_own() {
        let template = |version: &str| {
            let program = Some(Program::of_version(version));
            Configuration { program, ..Configuration::default() }.template(None)
        };
        assert_ne!(template("15.1"), template("15.2"));
        assert_eq!(template("15.1").parent(), Some(&*env::temp_dir()));
    }
}
