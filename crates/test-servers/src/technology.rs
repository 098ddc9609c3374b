//! What kinds of server there are, and how people get them.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// A kind of server that tests can have. The others get their place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Technology {
    /// Redis, or Valkey.
    Redis,
}

impl Technology {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Redis];

    /// As it is called in the names of backends.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
        }
    }

    /// The environment variable that names a server to be used by its URL.
    #[must_use]
    pub fn url_variable(self) -> &'static str {
        match self {
            Self::Redis => "LOCKS_TEST_REDIS_URL",
        }
    }

    /// The package of Debian and Ubuntu that has the program.
    #[must_use]
    pub fn debian_package(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
        }
    }

    /// What the program is called, the preferred one first.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &["redis-server", "valkey-server"],
        }
    }

    /// What its URLs begin with.
    pub(crate) fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &["redis://", "rediss://"],
        }
    }

    /// How to get one, in one sentence.
    pub(crate) fn remedy(self) -> String {
        format!(
            "no {} was found: run `cargo xtask test --install`, or `apt-get install {}`, or set {} to the URL of a server",
            self.programs().join(" or "),
            self.debian_package(),
            self.url_variable(),
        )
    }

    /// The program, if it is installed: in the search path, or where systems put servers.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let places: Vec<PathBuf> =
            env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from)).collect();
        let found = self.programs().iter().flat_map(|name| places.iter().map(move |place| place.join(name)));
        found.into_iter().find(|program| program.is_absolute() && version(program).is_some())
    }
}

/// What the program says of its version, if it runs and says so.
pub(crate) fn version(program: &std::path::Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    // "Redis server v=7.0.15 sha=..", "Valkey server v=8.0.1 sha=.."
    let word = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
    word.filter(|_| output.status.success()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_says_how_to_get_it() {
        assert_eq!(
            Technology::Redis.remedy(),
            "no redis-server or valkey-server was found: run `cargo xtask test --install`, or `apt-get install redis-server`, \
             or set LOCKS_TEST_REDIS_URL to the URL of a server"
        );
    }

    #[test]
    fn what_is_no_server_has_no_version() {
        assert_eq!(version("/bin/false".as_ref()), None);
        assert_eq!(version("/bin/true".as_ref()), None);
        assert_eq!(version("/no/such/program".as_ref()), None);
    }
}
