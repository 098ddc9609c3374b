//! Images that have servers in them, and the program that keeps their containers.

use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{Engine, Inspected};
use crate::error::Error;
use crate::source::variable;
use crate::technology::Technology;

/// The program that keeps a container: `test-containers` of this repository.
const KEEPER: &str = "locks-test-containers";

/// An image that this machine's Docker engine has. Displayed in one line, for people: its name, the server's version, the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    name: String,
    id: String,
    version: Option<String>,
    engine: &'static Engine,
    keeper: PathBuf,
}

impl Image {
    /// The first of the technology's images that is there, or why none can be used.
    pub(crate) fn of(technology: Technology) -> Result<Self, Error> {
        let engine = Engine::of_this_machine().map_err(Error::missing)?;
        let keeper = keeper()?;
        let names = names(technology);
        for name in &names {
            let found = inspected(engine, technology, name)
                .map_err(|error| Error::missing(format!("the image {name}: {error}")))?;
            if let Some(image) = found {
                let version = image.variable(technology.version_variable()).map(str::to_owned);
                return Ok(Self { name: name.clone(), id: image.id, version, engine, keeper });
            }
        }
        Err(Error::missing(format!(
            "the Docker engine has no image {} with {}: run `cargo xtask images`, or set {} to one that it has",
            names.join(" or "),
            technology.name(),
            technology.image_variable()
        )))
    }

    /// What containers are made from.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What tells it from all other images, and from other ones of the same name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Where the engine is reached.
    pub(crate) fn socket(&self) -> &Path {
        self.engine.socket()
    }

    pub(crate) fn keeper(&self) -> &Path {
        &self.keeper
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, version, engine, .. } = self;
        let version = version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        write!(f, "image {name}{version} ({id}) in Docker {}", engine.version())
    }
}

/// What a Docker engine can do for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Availability {
    /// It has one of the images.
    #[non_exhaustive]
    Present {
        /// Its name.
        image: String,
    },
    /// It has none of them. They are tried in this order.
    #[non_exhaustive]
    Absent {
        /// Their names.
        images: Vec<String>,
    },
}

/// Whether this machine's Docker engine has an image for this server.
///
/// # Errors
///
/// [`ErrorKind::Missing`](crate::ErrorKind::Missing) if there is no engine, or none that shares this machine's files, processes and network.
pub fn availability(technology: Technology) -> Result<Availability, Error> {
    let engine = Engine::of_this_machine().map_err(Error::missing)?;
    let images = names(technology);
    for image in &images {
        if inspected(engine, technology, image)?.is_some() {
            return Ok(Availability::Present { image: image.clone() });
        }
    }
    Ok(Availability::Absent { images })
}

/// Lets this machine's Docker engine pull an image from its registry. Gives up when nothing is heard for 20 s.
///
/// # Errors
///
/// [`ErrorKind::Missing`](crate::ErrorKind::Missing) if there is no engine, or no such image can be had.
pub fn pull(image: &str) -> Result<(), Error> {
    let engine = Engine::of_this_machine().map_err(Error::missing)?;
    engine.pull(image).map_err(|error| Error::missing(format!("{image} can't be pulled: {error}")))
}

/// The image that `cargo xtask images` makes from Debian's packages, which has all servers.
pub const LOCAL_IMAGE: &str = "locks-test/servers:bookworm";

/// The image, if it is there and has the server.
fn inspected(engine: &Engine, technology: Technology, name: &str) -> io::Result<Option<Inspected>> {
    Ok(engine.image(name)?.filter(|image| has_server(image, name, technology)))
}

/// Whether the server may be taken to be in it. A local one may have been made when fewer servers were all.
fn has_server(image: &Inspected, name: &str, technology: Technology) -> bool {
    name != LOCAL_IMAGE || image.variable(technology.version_variable()).is_some()
}

fn names(technology: Technology) -> Vec<String> {
    if let Some(name) = variable(technology.image_variable()) {
        return vec![name];
    }
    technology.official_image().into_iter().chain([LOCAL_IMAGE]).map(str::to_owned).collect()
}

/// Beside the test, or where cargo puts programs that tests are built with: `target/debug/deps/TEST` and `target/debug/KEEPER`.
fn keeper() -> Result<PathBuf, Error> {
    let test = env::current_exe()?;
    let mut places = test.ancestors().skip(1).take(2).map(|place| place.join(KEEPER));
    places.find(|program| program.is_file()).ok_or_else(|| {
        Error::missing(format!(
            "{KEEPER}, which keeps containers, has not been built: run `cargo xtask test`, or \
             `cargo build --manifest-path test-containers/Cargo.toml --target-dir target`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_image_has_the_servers_that_it_was_made_with() {
        let image = serde_json::json!({ "Id": "sha256:1", "Config": { "Env": ["REDIS_VERSION=7.0.15"] } });
        let image = Inspected::read(&image).unwrap();
        assert!(has_server(&image, LOCAL_IMAGE, Technology::Redis));
        assert!(!has_server(&image, LOCAL_IMAGE, Technology::MariaDb));
        // What others made need not say it.
        assert!(has_server(&image, "mariadb", Technology::MariaDb));
    }
}
