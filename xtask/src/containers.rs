//! Servers in containers: their images, and the program that keeps them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use locks_test_servers::{Availability, LOCAL_IMAGE, Mode, Technology, availability, pull};

use crate::process::{cargo, run, run_tests};
use crate::servers;
use crate::totals::Totals;
use crate::workspace::{TEST_CONTAINERS, root};

/// What makes the image that has all servers.
const BUILD: &str = "xtask/images/build.sh";

/// What `cargo xtask images` can be told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install what it takes to make an image from Debian's packages, if that is needed
    #[arg(long)]
    install: bool,
}

/// Lets the Docker engine have an image for every server.
///
/// # Errors
///
/// If there is no engine, or an image can neither be pulled nor made.
pub(crate) fn make_images(args: &Args) -> Result<()> {
    let mut registry = Registry::default();
    for technology in Technology::ALL {
        let image = match registry.get(technology)? {
            Some(image) => image,
            None => make(args.install).map(|()| LOCAL_IMAGE.to_owned())?,
        };
        eprintln!("{}: image {image}", technology.name());
    }
    Ok(())
}

/// Sees to it that servers can run in containers, where this mode wants it: gets their images, and builds the program that keeps them.
///
/// # Errors
///
/// If containers are wanted and can't be had, or what is there can't be built.
pub(crate) fn prepare(technologies: &[Technology], mode: Mode, install: bool) -> Result<bool> {
    if !matches!(mode, Mode::Auto | Mode::Docker) {
        return Ok(false);
    }
    let mut registry = Registry::default();
    let mut some = false;
    for technology in technologies {
        let name = technology.name();
        match registry.get(*technology) {
            Ok(Some(_)) => some = true,
            Ok(None) if mode == Mode::Auto => eprintln!("{name}: the Docker engine has no image"),
            Ok(None) if install => {
                make(install)?;
                some = true;
            }
            Ok(None) => bail!("the Docker engine has no image for {name}: run `cargo xtask images`"),
            Err(error) if mode == Mode::Auto => {
                eprintln!("no containers: {error:#}");
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    if some {
        build_keeper()?;
    }
    Ok(some)
}

/// The tests of the program that keeps containers. They need none.
///
/// # Errors
///
/// If it can't be started.
pub(crate) fn test_keeper() -> Result<Totals> {
    // Where it is built, so that what it depends on is built once.
    let mut tests = cargo(["test", "--locked", "--no-fail-fast", "--target-dir"]);
    run_tests(tests.arg(target()?).current_dir(root().join(TEST_CONTAINERS)))
}

/// Where images are pulled from.
#[derive(Default)]
struct Registry {
    /// It has failed. Trying again would only take as long again.
    failed: bool,
}

impl Registry {
    /// The name of the image, if it is there or can be pulled; `None` if it is to be made. One that somebody asked for by its name is had
    /// or an error.
    fn get(&mut self, technology: Technology) -> Result<Option<String>> {
        let images = match availability(technology)? {
            Availability::Present { image, .. } => return Ok(Some(image)),
            Availability::Absent { images, .. } => images,
            other => bail!("an engine that says {other:?}"),
        };
        for image in images.iter().filter(|image| *image != LOCAL_IMAGE) {
            if self.failed {
                break;
            }
            eprintln!("{}: pulling {image}", technology.name());
            match pull(image) {
                Ok(()) => return Ok(Some(image.clone())),
                Err(error) => {
                    eprintln!("{}: {error}", technology.name());
                    self.failed = true;
                }
            }
        }
        if !images.iter().any(|image| image == LOCAL_IMAGE) {
            bail!("{} names {}, which can't be had", technology.image_variable(), images.join(", "));
        }
        Ok(None)
    }
}

/// Makes the image that has all servers.
fn make(install: bool) -> Result<()> {
    if servers::path_of("docker").is_none() {
        bail!("the command `docker` is needed to make an image");
    }
    if servers::path_of("mmdebstrap").is_none() {
        if !install {
            bail!(
                "mmdebstrap is needed to make an image: `cargo xtask images --install`, or `apt-get install mmdebstrap`"
            );
        }
        servers::install_packages(&["mmdebstrap"])?;
    }
    run(Command::new("sh").args([BUILD, LOCAL_IMAGE]).current_dir(root()))
}

/// Whether the engine is there and has no image for this server.
pub(crate) fn is_without_image(technology: Technology) -> bool {
    matches!(availability(technology), Ok(Availability::Absent { .. }))
}

/// Removes the image that was made here, if there is one.
///
/// # Errors
///
/// If the engine can't be asked, or refuses.
pub(crate) fn remove_made() -> Result<()> {
    match availability(Technology::Redis)? {
        Availability::Present { image, .. } if image == LOCAL_IMAGE => {
            run(Command::new("docker").args(["image", "rm", "--force", LOCAL_IMAGE]))
        }
        _ => Ok(()),
    }
}

/// Builds it to where the tests look for it.
fn build_keeper() -> Result<()> {
    let target = target()?;
    let mut build = cargo(["build", "--locked", "--quiet", "--target-dir"]);
    run(build.arg(target).current_dir(root().join(TEST_CONTAINERS)))
}

/// The directory that we were built to: `TARGET/debug/xtask`.
fn target() -> Result<PathBuf> {
    let ours = std::env::current_exe()?;
    Ok(ours.parent().and_then(|place| place.parent()).context("a program that is nowhere")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_has_every_program() {
        let build = std::fs::read_to_string(root().join(BUILD)).unwrap();
        for technology in Technology::ALL {
            let name =
                technology.image_variable().trim_start_matches("LOCKS_TEST_").trim_end_matches("_IMAGE");
            let name = if name == "POSTGRES" { "PG" } else { name };
            assert!(build.contains(&format!("ENV {name}_VERSION=")), "{name}");
        }
    }
}
