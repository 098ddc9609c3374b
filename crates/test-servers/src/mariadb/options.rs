//! How a private MariaDB server is to be: its options, and the option file that becomes of them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::MariaDb;
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
const FILE: &str = "my.cnf";

/// How templates are made: another number when that changes.
const TEMPLATE: u32 = 1;

/// What data directories are made with, and what a server must be told of its own. Most of the time of a start is that of large files.
const OF_DATA: [(&str, &str); 5] = [
    // A power cut is nothing that tests bring about.
    ("innodb-flush-method", "nosync"),
    ("innodb-data-file-path", "ibdata1:5M:autoextend"),
    ("innodb-autoextend-increment", "1"),
    // Of newer ones of MySQL it is not known.
    ("loose-innodb-log-file-size", "8M"),
    ("character-set-server", "utf8mb4"),
];

/// How a private server is to be.
#[derive(Clone, Debug, Default)]
pub struct MariaDbOptions {
    port: Option<u16>,
    settings: Vec<(String, String)>,
    files: Vec<(String, String)>,
}

impl MariaDbOptions {
    /// A line of its my.cnf, such as `config("max-connections", "20")` or `config("skip-name-resolve", "ON")`. The value is quoted.
    ///
    /// `{directory}` in the value stands for the server's [directory](Server::directory). Later lines win over earlier ones and over the
    /// defaults; where the server runs, listens and logs is not for them to say, nor what a data directory is made with, such as the size of
    /// its pages.
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
    /// As [`MariaDb::start`].
    pub fn start(self) -> Result<MariaDb, Error> {
        self.start_program(&Program::of_own(Technology::MariaDb)?, port::free)
    }

    pub(super) fn start_program(
        self,
        program: &Program,
        free_port: impl FnMut() -> Result<u16, Error>,
    ) -> Result<MariaDb, Error> {
        let account = Account::of_servers()?;
        let command = |directory: &Path| -> Vec<OsString> {
            let mut command: Vec<OsString> = vec![
                "/bin/sh".into(),
                "-c".into(),
                SCRIPT.into(),
                "start".into(),
                program.command(),
                directory.join("data").into(),
                directory.join(FILE).into(),
                template(program, account).into(),
            ];
            command.extend(OF_DATA.map(|(setting, value)| format!("--{setting}={value}").into()));
            command
        };
        let place = Place::of(program.image(), account);
        let process = Process::prepare(Technology::MariaDb.name(), place, command)?;
        for (name, contents) in &self.files {
            process.write(name, contents)?;
        }
        let configure = |process: &Process, port: u16| {
            process.write(FILE, &self.my_cnf(process.directory(), &process.data(), port))
        };
        let server = Server::start(Technology::MariaDb, process, self.port, free_port, configure)?;
        Ok(MariaDb { server })
    }

    fn my_cnf(&self, directory: &Path, data: &Path, port: u16) -> String {
        let (directory, data, port) = (directory.to_string_lossy(), data.to_string_lossy(), port.to_string());
        let defaults = [
            // What is committed is in the system's hands, where no death of the server reaches it.
            ("innodb-flush-log-at-trx-commit", "2"),
            ("sync-binlog", "0"),
            ("innodb-buffer-pool-size", "32M"),
            ("innodb-buffer-pool-load-at-startup", "OFF"),
            // MySQL has it on, and takes its time for it.
            ("performance-schema", "OFF"),
            // MySQL insists on a directory that may not be there.
            ("secure-file-priv", ""),
        ];
        let pid_file = format!("{directory}/pid");
        let fixed = [
            ("datadir", &*data),
            // Of its own: whoever starts removes the temporary tables that it finds, be they those of another server.
            ("tmpdir", &*directory),
            ("pid-file", &pid_file),
            ("bind-address", "127.0.0.1"),
            ("port", &port),
            ("socket", ""),
            // A second port of MySQL.
            ("loose-mysqlx", "OFF"),
            // What the log says is looked at.
            ("lc-messages", "en_US"),
        ];
        let mut file = String::from("[mysqld]\n");
        let mut line = |setting: &str, value: &str| {
            file.push_str(&format!("{setting} = \"{}\"\n", value.replace('\\', r"\\")));
        };
        for (setting, value) in OF_DATA.into_iter().chain(defaults) {
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
}

/// The archive that new data directories are unpacked from, for this version and this account. The first server makes it.
fn template(program: &Program, account: Option<Account>) -> PathBuf {
    let (version, user) = (program.identity(), Account::user(account));
    env::temp_dir().join(format!("locks-test-mariadb-{version}-{TEMPLATE}-{user}.tar"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_and_later_ones_come_later() {
        let options = MariaDbOptions::default()
            .config("sync-binlog", "1")
            .config("init-file", r"{directory}/a # \b")
            .config("port", "1");
        let file = options.my_cnf(Path::new("/d"), Path::new("/d/data"), 7);
        let at = |line: &str| file.find(line).unwrap_or_else(|| panic!("{line} in {file}"));
        assert!(at("sync-binlog = \"0\"\n") < at("sync-binlog = \"1\"\n"));
        assert!(at("init-file = \"/d/a # \\\\b\"\n") < at("port = \"7\"\n"));
        assert!(at("port = \"1\"\n") < at("port = \"7\"\n"));
    }

    #[test]
    fn each_version_and_account_has_a_template_of_its_own() {
        let template = |version: &str| template(&Program::of_version(version), None);
        assert_ne!(template("10.11.1"), template("10.11.2"));
        assert_eq!(template("10.11.1").parent(), Some(&*env::temp_dir()));
    }
}
