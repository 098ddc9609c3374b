//! The configuration: stores that have names, and where their passwords are.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{User, geteuid};
use toml::{Table, Value};

use crate::trouble::Trouble;

/// Where the environment names the file.
const VARIABLE: &str = "LOCKS_CONFIG";

/// Below the home of the effective user, as the user database has it: a cron job and a terminal are to agree.
const BELOW_HOME: &str = ".config/locks/config.toml";

const OF_THE_HOST: &str = "/etc/locks/config.toml";

/// Which configuration counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The file that the environment names, else the user's if there is one, else the host's if there is one.
    Usual,
    File(PathBuf),
    None,
}

/// A configuration, understood as far as TOML goes.
#[derive(Debug)]
pub(crate) struct Config {
    path: PathBuf,
    table: Table,
}

/// What it says about one store.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) url: String,
    pub(crate) user: Option<String>,
    pub(crate) secret: Option<Secret>,
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    Environment(String),
    File(PathBuf),
    /// A line for /bin/sh that prints it.
    Command(String),
}

impl Source {
    /// The configuration, if there is one.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line.
    pub(crate) fn read(&self) -> Result<Option<Config>, String> {
        match self {
            Self::None => Ok(None),
            Self::File(path) => Config::read(path).map(Some),
            Self::Usual => {
                if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
                    return Config::read(Path::new(&path)).map(Some);
                }
                let home = User::from_uid(geteuid()).ok().flatten().map(|user| user.dir.join(BELOW_HOME));
                for path in home.into_iter().chain([PathBuf::from(OF_THE_HOST)]) {
                    match fs::read_to_string(&path) {
                        Ok(text) => return Config::parse(&path, &text).map(Some),
                        Err(error) if is_absent(&error) => {}
                        Err(error) => return Err(unreadable(&path, &error)),
                    }
                }
                Ok(None)
            }
        }
    }
}

impl Config {
    fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        // The parser's own message shows the line, which may hold a password.
        let wrong = |error: toml::de::Error| {
            let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or(text).lines().count());
            format!("{}: line {}: {}", path.display(), line.max(1), error.message())
        };
        let table = text.parse::<Table>().map_err(wrong)?;
        let config = Self { path: path.to_owned(), table };
        config.only(&config.table, &["default", "stores"], "the configuration")?;
        Ok(config)
    }

    /// The store that is used when nothing names one.
    ///
    /// # Errors
    ///
    /// What is wrong, in one line.
    pub(crate) fn default_store(&self) -> Result<Option<Entry>, String> {
        match self.table.get("default") {
            None => Ok(None),
            Some(Value::String(name)) => self.store(name).map(Some),
            Some(_) => Err(self.wrong("default is no text")),
        }
    }

    /// The store of this name.
    ///
    /// # Errors
    ///
    /// What is wrong, in one line.
    pub(crate) fn store(&self, name: &str) -> Result<Entry, String> {
        let stores = match self.table.get("stores") {
            None => None,
            Some(Value::Table(stores)) => Some(stores),
            Some(_) => return Err(self.wrong("stores is no table")),
        };
        let Some(entry) = stores.and_then(|stores| stores.get(name)) else {
            return Err(self.wrong(&format!("there is no store {name:?}")));
        };
        let Value::Table(entry) = entry else {
            return Err(self.wrong(&format!("stores.{name} is no table")));
        };
        let place = format!("stores.{name}");
        self.only(entry, &["url", "user", "password-env", "password-file", "password-command"], &place)?;
        let text = |key: &str| match entry.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(&format!("{place}.{key} is no text"))),
        };
        let url = text("url")?.ok_or_else(|| self.wrong(&format!("{place} has no url")))?;
        let secrets = [
            text("password-env")?.map(Secret::Environment),
            text("password-file")?.map(|path| Secret::File(PathBuf::from(path))),
            text("password-command")?.map(Secret::Command),
        ];
        let mut secrets = secrets.into_iter().flatten();
        let secret = secrets.next();
        if secrets.next().is_some() {
            return Err(self.wrong(&format!("{place} says in several ways where its password is")));
        }
        Ok(Entry { url, user: text("user")?, secret })
    }

    /// Refuses keys that mean nothing: they are misspelt ones.
    fn only(&self, table: &Table, known: &[&str], place: &str) -> Result<(), String> {
        match table.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                Err(self.wrong(&format!("{place} has no key {key:?}; there are {}", known.join(", "))))
            }
            None => Ok(()),
        }
    }

    fn wrong(&self, complaint: &str) -> String {
        format!("{}: {complaint}", self.path.display())
    }
}

impl Secret {
    /// The password itself.
    ///
    /// # Errors
    ///
    /// Why it can't be had.
    pub(crate) fn reveal(&self) -> Result<String, Trouble> {
        let said = match self {
            Self::Environment(variable) => std::env::var_os(variable)
                .map(OsString::into_encoded_bytes)
                .ok_or_else(|| format!("the environment has no {variable}")),
            Self::File(path) => fs::read(path).map_err(|error| unreadable(path, &error)),
            Self::Command(line) => printed(line),
        };
        let password = said.and_then(|bytes| {
            let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
            Ok(text
                .strip_suffix('\n')
                .map(|text| text.strip_suffix('\r').unwrap_or(text).to_owned())
                .unwrap_or(text))
        });
        match password {
            Ok(password) if password.is_empty() => Err(Trouble::no_password("it is empty")),
            Ok(password) => Ok(password),
            Err(complaint) => Err(Trouble::no_password(&complaint)),
        }
    }
}

/// What the command prints. Its complaints go to our stderr.
fn printed(line: &str) -> Result<Vec<u8>, String> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("can't run password-command: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("password-command failed: {}", output.status))
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("can't read {}: {error}", path.display())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/c.toml"), text)
    }

    #[test]
    fn stores_have_names() {
        let text = "default = 'a'\n[stores.a]\nurl = 'redis://db1'\nuser = 'u'\npassword-file = '/p'\n[stores.b]\nurl = 'file:/d'\n";
        let config = config(text).unwrap();
        let a = Entry {
            url: "redis://db1".to_owned(),
            user: Some("u".to_owned()),
            secret: Some(Secret::File(PathBuf::from("/p"))),
        };
        assert_eq!(config.default_store().unwrap(), Some(a));
        assert_eq!(config.store("b").unwrap().url, "file:/d");
        assert_eq!(config.store("c").unwrap_err(), "/c.toml: there is no store \"c\"");
    }

    #[test]
    fn what_is_wrong_is_named_without_what_may_be_secret() {
        for (text, words) in [
            ("[stores.a]\nurl = 'redis://u:geheim@h", "line 2"),
            ("stores = 1", "stores is no table"),
            ("nonsense = 1", "no key \"nonsense\""),
            ("[stores.a]\npasswort = 'geheim'", "no key \"passwort\""),
            ("[stores.a]\nurl = 'redis://geheim'\npassword-env = 'A'\npassword-file = 'B'", "several ways"),
            ("[stores.a]", "no url"),
            ("[stores.a]\nurl = 1", "stores.a.url is no text"),
            ("stores.a = 'geheim'", "no table"),
            ("default = 1", "default is no text"),
        ] {
            let complaint = config(text).and_then(|config| {
                config.default_store()?;
                config.store("a").map(drop)
            });
            let complaint = complaint.unwrap_err();
            assert!(complaint.contains(words) && !complaint.contains("geheim"), "{text}: {complaint}");
            assert_eq!(complaint.lines().count(), 1);
        }
    }
}
