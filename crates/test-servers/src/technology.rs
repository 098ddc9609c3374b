//! What kinds of server there are, and how people get them.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kind of server that tests can have. The others get their place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Technology {
    /// Redis, or Valkey.
    Redis,
    /// PostgreSQL.
    Postgres,
    /// PgBouncer, which stands before a PostgreSQL server of the same test.
    PgBouncer,
    /// etcd.
    Etcd,
    /// MariaDB, or MySQL from an image.
    MariaDb,
}

impl Technology {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Redis, Self::Postgres, Self::PgBouncer, Self::Etcd, Self::MariaDb];

    /// As it is called in the names of backends.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::PgBouncer => "pgbouncer",
            Self::Etcd => "etcd",
            Self::MariaDb => "mariadb",
        }
    }

    /// The environment variable that names a server to be used by its URL. `None` if each test needs one of its own: a pooler is
    /// nothing without the server behind it.
    #[must_use]
    pub fn url_variable(self) -> Option<&'static str> {
        match self {
            Self::Redis => Some("LOCKS_TEST_REDIS_URL"),
            Self::Postgres => Some("LOCKS_TEST_POSTGRES_URL"),
            Self::PgBouncer => None,
            Self::Etcd => Some("LOCKS_TEST_ETCD_URL"),
            Self::MariaDb => Some("LOCKS_TEST_MARIADB_URL"),
        }
    }

    /// The image that its makers publish, if they do. Without a registry there is [`LOCAL_IMAGE`](crate::LOCAL_IMAGE).
    #[must_use]
    pub fn official_image(self) -> Option<&'static str> {
        match self {
            Self::Redis => Some("redis:7"),
            Self::Postgres => Some("postgres:15"),
            Self::PgBouncer => None,
            Self::Etcd => Some("quay.io/coreos/etcd:v3.4.33"),
            Self::MariaDb => Some("mariadb:10.11"),
        }
    }

    /// The environment variable that names another image.
    #[must_use]
    pub fn image_variable(self) -> &'static str {
        match self {
            Self::Redis => "LOCKS_TEST_REDIS_IMAGE",
            Self::Postgres => "LOCKS_TEST_POSTGRES_IMAGE",
            Self::PgBouncer => "LOCKS_TEST_PGBOUNCER_IMAGE",
            Self::Etcd => "LOCKS_TEST_ETCD_IMAGE",
            Self::MariaDb => "LOCKS_TEST_MARIADB_IMAGE",
        }
    }

    /// What an image may set to the server's version.
    pub(crate) fn version_variable(self) -> &'static str {
        match self {
            Self::Redis => "REDIS_VERSION",
            Self::Postgres => "PG_VERSION",
            Self::PgBouncer => "PGBOUNCER_VERSION",
            Self::Etcd => "ETCD_VERSION",
            Self::MariaDb => "MARIADB_VERSION",
        }
    }

    /// The package of Debian and Ubuntu that has the program.
    #[must_use]
    pub fn debian_packages(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &["redis-server"],
            Self::Postgres => &["postgresql"],
            Self::PgBouncer => &["pgbouncer"],
            Self::Etcd => &["etcd-server", "etcd-client"],
            Self::MariaDb => &["mariadb-server"],
        }
    }

    /// What the program is called, the preferred one first.
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &["redis-server", "valkey-server"],
            Self::Postgres => &["postgres"],
            Self::PgBouncer => &["pgbouncer"],
            Self::Etcd => &["etcd"],
            Self::MariaDb => &["mariadbd"],
        }
    }

    /// What must be in the same directory for the program to be of use.
    fn companions(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["initdb", "pg_basebackup"],
            Self::Etcd => &["etcdctl"],
            Self::Redis | Self::PgBouncer | Self::MariaDb => &[],
        }
    }

    /// Where systems put the program, beside the search path.
    fn further_places(self) -> Vec<PathBuf> {
        let mut places = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from).to_vec();
        if self == Self::Postgres {
            places.extend(postgres_places(Path::new("/usr/lib/postgresql")));
        }
        places
    }

    /// What stands before the version in what the program says of it.
    fn before_version(self) -> &'static str {
        match self {
            // "Redis server v=7.0.15 sha=..", "Valkey server v=8.0.1 sha=.."
            Self::Redis => " v=",
            // "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"
            Self::Postgres => "(PostgreSQL) ",
            // "PgBouncer 1.18.0"
            Self::PgBouncer => "PgBouncer ",
            // "etcd Version: 3.4.23"
            Self::Etcd => "etcd Version: ",
            // "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)"
            Self::MariaDb => " Ver ",
        }
    }

    /// What its URLs begin with.
    pub(crate) fn schemes(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &["redis://", "rediss://"],
            Self::Postgres | Self::PgBouncer => &["postgres://", "postgresql://"],
            Self::Etcd => &["etcd://", "etcds://"],
            Self::MariaDb => &["mysql://", "mariadb://"],
        }
    }

    /// The URL of a private server.
    pub(crate) fn url(self, address: SocketAddr) -> String {
        match self {
            Self::Redis => format!("redis://{address}"),
            Self::Postgres | Self::PgBouncer => format!("postgres://postgres@{address}/postgres"),
            Self::Etcd => format!("etcd://{address}"),
            Self::MariaDb => format!("mysql://root@{address}/test"),
        }
    }

    /// The port of a URL that has none.
    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Redis => 6379,
            Self::Postgres => 5432,
            Self::PgBouncer => 6432,
            Self::Etcd => 2379,
            Self::MariaDb => 3306,
        }
    }

    /// How to get one, in one sentence.
    pub(crate) fn remedy(self) -> String {
        let programs = self.programs().join(" or ");
        let packages = self.debian_packages().join(" ");
        let install = format!("run `cargo xtask test --install`, or `apt-get install {packages}`");
        match self.url_variable() {
            Some(variable) => {
                format!("no {programs} was found: {install}, or set {variable} to the URL of a server")
            }
            None => format!("no {programs} was found: {install}"),
        }
    }

    /// The program, if it is installed: in the search path, or where systems put servers.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let places: Vec<PathBuf> = env::split_paths(&path).chain(self.further_places()).collect();
        let mut found =
            self.programs().iter().flat_map(|name| places.iter().map(move |place| place.join(name)));
        found.find(|program| {
            program.is_absolute()
                && self.companions().iter().all(|name| program.with_file_name(name).is_file())
                && self.version(program).is_some()
        })
    }

    /// What the program says of its version, if it runs and says so.
    pub(crate) fn version(self, program: &Path) -> Option<String> {
        let output = Command::new(program).arg("--version").output().ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        let (_, rest) = said.split_once(self.before_version())?;
        let version = rest.split_whitespace().next()?;
        output.status.success().then(|| version.to_owned())
    }
}

/// The directories of programs that Debian's packages have, one for each major version, the newest first.
fn postgres_places(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let version = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let mut versions: Vec<u32> = entries.filter_map(|entry| version(entry.ok()?)).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|version| parent.join(version.to_string()).join("bin")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Mode, Source};

    #[test]
    fn a_missing_program_says_how_to_get_it() {
        assert_eq!(
            Technology::Redis.remedy(),
            "no redis-server or valkey-server was found: run `cargo xtask test --install`, or `apt-get install redis-server`, \
             or set LOCKS_TEST_REDIS_URL to the URL of a server"
        );
        assert_eq!(
            Technology::PgBouncer.remedy(),
            "no pgbouncer was found: run `cargo xtask test --install`, or `apt-get install pgbouncer`"
        );
    }

    #[test]
    fn what_is_no_server_has_no_version() {
        for technology in Technology::ALL {
            assert_eq!(technology.version("/bin/false".as_ref()), None);
            assert_eq!(technology.version("/bin/true".as_ref()), None);
            assert_eq!(technology.version("/bin/echo".as_ref()), None);
            assert_eq!(technology.version("/no/such/program".as_ref()), None);
        }
    }

    #[test]
    fn every_server_is_found_and_a_program_has_a_version() {
        for technology in Technology::ALL {
            let source = Source::of_own(technology, Mode::from_env().unwrap()).unwrap();
            let Source::Program { path, version } = source else { continue };
            assert_eq!(technology.version(&path).as_ref(), Some(&version));
            assert!(version.starts_with(|first: char| first.is_ascii_digit()), "{version}");
            assert!(version.contains('.') && !version.ends_with('.'), "{version}");
        }
    }

    #[test]
    fn the_newest_version_comes_first() {
        let parent = env::temp_dir().join(format!("locks-test-places-{}", std::process::id()));
        for name in ["9", "15", "100", "old", "16.bak"] {
            fs::create_dir_all(parent.join(name)).unwrap();
        }
        let places = postgres_places(&parent);
        fs::remove_dir_all(&parent).unwrap();
        assert_eq!(places, ["100/bin", "15/bin", "9/bin"].map(|place| parent.join(place)));
        assert_eq!(postgres_places(&parent), [""; 0].map(PathBuf::from));
    }
}
