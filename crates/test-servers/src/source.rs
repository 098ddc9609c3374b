//! Where servers come from: a URL, a container or an installed program.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::image::Image;
use crate::probe;
use crate::technology::Technology;

/// The environment variable that says where servers come from: a [`Mode`].
pub const SERVERS_VARIABLE: &str = "LOCKS_TEST_SERVERS";

/// How long a server somewhere else may take to answer.
const REMOTE: Duration = Duration::from_secs(10);

/// Where servers may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// From the URL if one is given, else a container if this machine's Docker engine has an image, else an installed program.
    #[default]
    Auto,
    /// Containers, whatever URLs are given.
    Docker,
    /// From installed programs, whatever URLs are given.
    Native,
    /// From URLs only: nothing is started.
    Url,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Docker, Self::Native, Self::Url];

    /// What the environment says; [`Mode::Auto`] if it says nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`](crate::ErrorKind::Missing) if it says what is not a mode.
    pub fn from_env() -> Result<Self, Error> {
        match variable(SERVERS_VARIABLE) {
            None => Ok(Self::default()),
            Some(text) => text
                .parse()
                .map_err(|error: Error| error.while_doing(format_args!("reading {SERVERS_VARIABLE}"))),
        }
    }
}

/// Reads as it is written in the environment: "auto".
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Docker => "docker",
            Self::Native => "native",
            Self::Url => "url",
        })
    }
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|mode| mode.to_string() == text);
        known.ok_or_else(|| {
            let modes = Self::ALL.map(|mode| mode.to_string()).join(", ");
            Error::missing(format!("there is no mode {text:?}; there are: {modes}"))
        })
    }
}

/// Where a server will come from. Displayed in one line, for people: the program or image and its version, or the URL without
/// its password.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A program that is installed here.
    #[non_exhaustive]
    Program {
        /// Where it is.
        path: PathBuf,
        /// What it says of its version.
        version: String,
    },
    /// An image of the Docker engine.
    #[non_exhaustive]
    Image {
        /// Which one.
        image: Image,
    },
    /// A server that runs already.
    #[non_exhaustive]
    Url {
        /// Where it is, with all that is needed to reach it.
        url: String,
    },
}

impl Source {
    /// Where a server that several tests share will come from. Connects to a server that is named by a URL.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`](crate::ErrorKind::Missing) if there is none, if what is said about it makes no sense, or if the server
    /// that is named does not answer.
    pub fn of_shared(technology: Technology, mode: Mode) -> Result<Self, Error> {
        let Some(url_variable) = technology.url_variable() else { return Self::of_own(technology, mode) };
        let source = decide(technology, mode, url_variable, variable(url_variable))?;
        if let Self::Url { url } = &source {
            probe::answers(technology, url, REMOTE).map_err(|error| {
                Error::missing(format!("{} of {url_variable} does not answer: {error}", redacted(url)))
            })?;
        }
        Ok(source)
    }

    /// Where a server that one test has for itself will come from: a container or a program.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`](crate::ErrorKind::Missing) if it is not installed, or nothing may be started.
    pub fn of_own(technology: Technology, mode: Mode) -> Result<Self, Error> {
        if mode == Mode::Url {
            return Err(Error::missing(format!(
                "a {} server of its own is needed, and {SERVERS_VARIABLE}=url forbids to start one",
                technology.name()
            )));
        }
        started(technology, mode)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program { path, version } => write!(f, "{} {version}", path.display()),
            Self::Image { image } => image.fmt(f),
            Self::Url { url } => f.write_str(&redacted(url)),
        }
    }
}

fn decide(
    technology: Technology,
    mode: Mode,
    url_variable: &str,
    url: Option<String>,
) -> Result<Source, Error> {
    match (mode, url) {
        (Mode::Auto | Mode::Url, Some(url)) => {
            let schemes = technology.schemes();
            if !schemes.iter().any(|scheme| url.starts_with(scheme)) {
                let schemes = schemes.join(" or ");
                return Err(Error::missing(format!("{url_variable} must begin with {schemes}")));
            }
            Ok(Source::Url { url })
        }
        (Mode::Url, None) => {
            Err(Error::missing(format!("{SERVERS_VARIABLE}=url needs {url_variable}, the URL of a server")))
        }
        (Mode::Auto | Mode::Docker | Mode::Native, _) => started(technology, mode),
    }
}

/// What a server is started from.
fn started(technology: Technology, mode: Mode) -> Result<Source, Error> {
    if mode == Mode::Native {
        return installed(technology);
    }
    match Image::of(technology) {
        Ok(image) => Ok(Source::Image { image }),
        Err(no_image) if mode == Mode::Auto && no_image.kind() == ErrorKind::Missing => {
            installed(technology).map_err(|error| error.while_doing(no_image))
        }
        Err(error) => Err(error),
    }
}

fn installed(technology: Technology) -> Result<Source, Error> {
    let path = technology.program().ok_or_else(|| Error::missing(technology.remedy()))?;
    let version = technology.version(&path).unwrap_or_default();
    Ok(Source::Program { path, version })
}

/// What the environment says, if it says anything.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The URL without its password and without what is in its query.
pub(crate) fn redacted(url: &str) -> String {
    let url = url.split('?').next().unwrap_or(url);
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn decided(mode: Mode, url: Option<&str>) -> Result<Source, Error> {
        decide(Technology::Redis, mode, "LOCKS_TEST_REDIS_URL", url.map(str::to_owned))
    }

    #[test]
    fn a_url_is_taken_unless_programs_are_wanted() {
        let url = "redis://h/1";
        for mode in [Mode::Auto, Mode::Url] {
            assert_eq!(decided(mode, Some(url)).unwrap(), Source::Url { url: url.to_owned() });
        }
        // Whether they are there is another question.
        for (mode, url) in [(Mode::Native, Some(url)), (Mode::Docker, Some(url)), (Mode::Auto, None)] {
            assert!(!matches!(decided(mode, url), Ok(Source::Url { .. })));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = decided(Mode::Url, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Missing);
        assert_eq!(
            error.to_string(),
            "LOCKS_TEST_SERVERS=url needs LOCKS_TEST_REDIS_URL, the URL of a server"
        );
        let error = decided(Mode::Auto, Some("http://h")).unwrap_err();
        assert_eq!(error.to_string(), "LOCKS_TEST_REDIS_URL must begin with redis:// or rediss://");
        let error = Source::of_own(Technology::Redis, Mode::Url).unwrap_err();
        assert!(error.to_string().contains("LOCKS_TEST_SERVERS=url forbids"), "{error}");
        let error = Source::of_shared(Technology::PgBouncer, Mode::Url).unwrap_err();
        assert!(error.to_string().starts_with("a pgbouncer server of its own is needed"), "{error}");
        let error = "podman".parse::<Mode>().unwrap_err();
        assert!(error.to_string().contains("auto, docker, native, url"), "{error}");
    }

    #[test]
    fn modes_are_read_as_they_are_written() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse::<Mode>().unwrap(), mode);
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(redacted("redis://u:p@h:1/0?x=secret"), "redis://***@h:1/0");
        assert_eq!(redacted("redis://h:1"), "redis://h:1");
    }
}
