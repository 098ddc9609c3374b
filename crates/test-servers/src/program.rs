//! Server programs: installed ones, and those in images.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::Error;
use crate::image::Image;
use crate::source::{Mode, Source, redacted};
use crate::technology::Technology;

/// A server program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// Of an installed one.
    version: String,
    image: Option<Image>,
}

impl Program {
    /// The one for servers that a test has for itself.
    pub(crate) fn of_own(technology: Technology) -> Result<Self, Error> {
        Self::from(technology, Source::of_own(technology, Mode::from_env()?)?)
    }

    /// The one of a source that is no URL.
    pub(crate) fn from(technology: Technology, source: Source) -> Result<Self, Error> {
        match source {
            Source::Program { path, version } => Ok(Self { path, version, image: None }),
            Source::Image { image } => {
                // Found by the search path of the image.
                let path = PathBuf::from(technology.programs().first().copied().unwrap_or_default());
                Ok(Self { path, version: String::new(), image: Some(image) })
            }
            Source::Url { url } => Err(Error::not_ours(&redacted(&url))),
        }
    }

    /// What a command line begins with.
    pub(crate) fn command(&self) -> OsString {
        self.path.clone().into_os_string()
    }

    /// Another program of the same package; without a name, where they all are.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// What tells it from others that make other files.
    pub(crate) fn identity(&self) -> String {
        self.image.as_ref().map_or_else(|| self.version.clone(), |image| format!("image-{}", image.id()))
    }

    /// The image that it is in, if it is not installed.
    pub(crate) fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    /// One that is nowhere.
    #[cfg(test)]
    pub(crate) fn of_version(version: &str) -> Self {
        Self { path: PathBuf::from("/bin/x"), version: version.to_owned(), image: None }
    }
}
