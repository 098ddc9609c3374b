//! The servers that tests need: where they will come from, and how they get onto this machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use locks_test_servers::{Mode, SERVERS_VARIABLE, Source, Technology};

use crate::containers;
use crate::process::run;
use crate::report;
use crate::workspace::backends;

/// The package whose own tests start programs, and nothing else.
const TEST_SERVERS: &str = "locks-test-servers";

/// Where servers come from.
#[derive(clap::Args, Default)]
#[group(skip)]
pub(crate) struct Args {
    /// Where servers come from: `auto` (from the URL if the environment has one, else containers if there are a Docker engine and an image, else
    /// installed programs), `docker`, `native` or `url`
    #[arg(long, value_name = "MODE")]
    servers: Option<Mode>,
    /// Install the server programs that are missing, without starting their services, and make the images that can't be pulled
    #[arg(long)]
    install: bool,
}

impl Args {
    /// Finds what all tests need, and says where it is.
    ///
    /// # Errors
    ///
    /// If a server is missing; the message says how to get it.
    pub(crate) fn prepare_all(&self) -> Result<Servers> {
        report::prepare_browser(self.install)?;
        if self.mode()? == Mode::Url {
            eprintln!("{TEST_SERVERS}: not tested, since no program may be started");
            return self.prepare(&backends()?);
        }
        self.find(&Technology::ALL)
    }

    /// Finds what the tests of these backends need, and says where it is.
    ///
    /// # Errors
    ///
    /// As [`prepare_all`](Self::prepare_all).
    pub(crate) fn prepare(&self, backends: &[String]) -> Result<Servers> {
        let technologies: Vec<Technology> =
            backends.iter().flat_map(|backend| technologies(backend)).copied().collect();
        self.find(&technologies)
    }

    /// Where the servers of this backend come from, if it needs any: each with its version or address.
    ///
    /// # Errors
    ///
    /// As [`prepare_all`](Self::prepare_all).
    pub(crate) fn sources(&self, backend: &str) -> Result<Vec<(&'static str, String)>> {
        let mode = self.mode()?;
        let source = |technology: &Technology| Ok((technology.name(), describe(*technology, mode)?));
        technologies(backend).iter().map(source).collect()
    }

    fn mode(&self) -> Result<Mode> {
        Ok(self.servers.map_or_else(Mode::from_env, Ok)?)
    }

    fn find(&self, technologies: &[Technology]) -> Result<Servers> {
        let mode = self.mode()?;
        let in_containers = containers::prepare(technologies, mode, self.install)?;
        if self.install && !matches!(mode, Mode::Docker | Mode::Url) {
            let is_missing = |technology: &Technology| Source::of_own(*technology, mode).is_err();
            let missing: Vec<Technology> = technologies.iter().copied().filter(is_missing).collect();
            if !missing.is_empty() {
                install(&missing)?;
            }
        }
        // What has no URL is not asked for where nothing else counts: the tests that need it say so themselves.
        let has_source = |technology: &&Technology| mode != Mode::Url || technology.url_variable().is_some();
        for technology in technologies.iter().filter(has_source) {
            eprintln!("{}: {}", technology.name(), describe(*technology, mode)?);
        }
        // An image that is made later does not change where the servers of this run are.
        let has_url = technologies
            .iter()
            .filter_map(|technology| technology.url_variable())
            .any(|variable| std::env::var_os(variable).is_some());
        let settled = (mode == Mode::Auto && !in_containers && !has_url).then_some(Mode::Native);
        Ok(Servers { told: settled.or(self.servers), mode, install: self.install, in_containers })
    }
}

/// What the tests of this backend need.
fn technologies(backend: &str) -> &'static [Technology] {
    match backend {
        "redis" => &[Technology::Redis],
        "postgres" => &[Technology::Postgres, Technology::PgBouncer],
        "etcd" => &[Technology::Etcd],
        _ => &[],
    }
}

/// Where tests will find this server, in one line.
pub(crate) fn describe(technology: Technology, mode: Mode) -> Result<String> {
    let shared = Source::of_shared(technology, mode)?;
    if mode == Mode::Url {
        return Ok(shared.to_string());
    }
    let own = Source::of_own(technology, mode)?;
    Ok(if own == shared { own.to_string() } else { format!("{shared}; {own} where a test kills it") })
}

/// What the commands that run tests are told about servers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Servers {
    /// What tests are told. If nothing was said and nothing is settled, they read the environment themselves.
    told: Option<Mode>,
    mode: Mode,
    install: bool,
    in_containers: bool,
}

impl Servers {
    /// Where servers come from.
    pub(crate) fn mode(self) -> Mode {
        self.mode
    }

    /// Those of another mode, which may be installed if these may.
    pub(crate) fn in_mode(self, mode: Mode) -> Args {
        Args { servers: Some(mode), install: self.install }
    }

    /// Whether some run in containers.
    pub(crate) fn are_in_containers(self) -> bool {
        self.in_containers
    }

    /// What to add to the environment of tests.
    pub(crate) fn environment(self) -> Option<(&'static str, String)> {
        self.told.map(|mode| (SERVERS_VARIABLE, mode.to_string()))
    }

    /// What to add to the arguments of a `cargo test` for the whole workspace.
    pub(crate) fn exclusions(self) -> &'static [&'static str] {
        if self.mode == Mode::Url { &["--exclude", TEST_SERVERS] } else { &[] }
    }
}

const INSTALL: &str = include_str!("install.sh");

/// Installs the packages of the system that have these servers.
fn install(technologies: &[Technology]) -> Result<()> {
    let packages: Vec<&str> =
        technologies.iter().flat_map(|technology| technology.debian_packages()).copied().collect();
    install_packages(&packages)
}

/// Installs these packages of the system.
///
/// # Errors
///
/// If this is no system of the kind, or only others may.
pub(crate) fn install_packages(packages: &[&str]) -> Result<()> {
    if path_of("apt-get").is_none() {
        let names = packages.join(", ");
        bail!("there is no apt-get here: install {names} as this system does it, and leave the service off");
    }
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("sh")
    } else if path_of("sudo").is_some() {
        let mut command = Command::new("sudo");
        command.arg("sh");
        command
    } else {
        bail!("only root can install {}, and there is no sudo", packages.join(", "));
    };
    run(command.args(["-c", INSTALL, "install"]).args(packages))
}

/// Where a program is.
pub(crate) fn path_of(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|place| place.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_is_passed_on() {
        let servers = |told, mode| Servers { told, mode, ..Servers::default() };
        assert_eq!(servers(None, Mode::Url).environment(), None);
        let expected = Some(("LOCKS_TEST_SERVERS", "native".to_owned()));
        assert_eq!(servers(Some(Mode::Native), Mode::Native).environment(), expected);
    }

    #[test]
    fn where_no_program_may_be_started_the_starting_is_not_tested() {
        let servers = |mode| Servers { told: Some(mode), mode, ..Servers::default() };
        assert_eq!(servers(Mode::Url).exclusions(), ["--exclude", "locks-test-servers"]);
        assert!(servers(Mode::Auto).exclusions().is_empty());
    }

    /// What the servers' own tests alone start, until there is a backend for it. `prepare_all` looks for it like for the others.
    const OF_NO_BACKEND: [Technology; 1] = [Technology::MariaDb];

    #[test]
    fn every_technology_is_there_for_a_backend_or_known_to_be_for_none() {
        let backends = backends().unwrap();
        for technology in Technology::ALL {
            let is_needed = backends.iter().any(|backend| technologies(backend).contains(&technology));
            assert_ne!(is_needed, OF_NO_BACKEND.contains(&technology), "{}", technology.name());
        }
        let none: Vec<String> =
            backends.into_iter().filter(|backend| technologies(backend).is_empty()).collect();
        assert_eq!(none, ["file", "memory"]);
    }

    #[test]
    fn backends_without_servers_need_none() {
        let args = Args { servers: Some(Mode::Url), install: true };
        args.prepare(&["file".to_owned(), "memory".to_owned()]).unwrap();
    }
}
