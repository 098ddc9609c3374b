//! From a URL to a [`Locks`]: a match over the schemes, nothing registers itself.

use locks_api::{Error, ErrorKind, Locks, Result};

/// A URL scheme of this version, whether or not its feature is on.
struct Scheme {
    /// Its name, which is also the name of its feature.
    name: &'static str,
    /// Whether `lock-abort` and `lock-block` know it too.
    in_commands: bool,
}

const SCHEMES: [Scheme; 2] =
    [Scheme { name: "file", in_commands: true }, Scheme { name: "memory", in_commands: false }];

/// Opens the store that `url` names.
///
/// | URL | feature | where the locks live |
/// |---|---|---|
/// | `file:` | `file` | a directory of the effective user on this machine |
/// | `file:/a/directory` | `file` | that directory |
/// | `memory:` | `memory` | this `Locks` alone |
///
/// A store that is reached over a network is contacted when the first lock is asked for, not here.
///
/// # Errors
///
/// [`ErrorKind::Config`] if the URL has no scheme or one that does not exist, if the scheme's feature is off (the message
/// names the feature and the command that adds it) or if the rest of the URL makes no sense. Whatever the backend
/// says about its store, such as [`ErrorKind::PermissionDenied`] for a directory that can't be used.
///
/// # Cancel safety
///
/// Nothing is left behind if the future is dropped.
///
/// # Examples
///
/// ```
/// # #[tokio::main] async fn main() -> locks::Result<()> {
/// # #[cfg(feature = "memory")] {
/// let locks = locks::connect("memory:").await?;
/// let guard = locks.lock("reports/nightly").acquire().await?;
/// assert!(locks.lock("reports/nightly").try_acquire().await?.is_none());
/// guard.release().await?;
/// # }
/// # Ok(())
/// # }
/// ```
pub async fn connect(url: &str) -> Result<Locks> {
    let Some((scheme, _)) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        return Err(no_scheme(url));
    };
    match scheme.to_ascii_lowercase().as_str() {
        #[cfg(feature = "file")]
        "file" => Ok(Locks::new(locks_backend_file::FileBackend::from_url(url)?)),
        #[cfg(feature = "memory")]
        "memory" => Ok(Locks::new(locks_backend_memory::MemoryBackend::from_url(url)?)),
        other => Err(match SCHEMES.iter().find(|scheme| scheme.name == other) {
            Some(known) => feature_is_off(known),
            None => unknown_scheme(other),
        }),
    }
}

/// Whether this can be what stands before the colon of a URL, so that the rest of a wrong one, which may hold a password,
/// need not be repeated in a message.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn no_scheme(url: &str) -> Error {
    let hint = if url.starts_with(['/', '.', '~']) {
        "; a directory is written file:/a/directory".to_owned()
    } else {
        format!("; begin it with one of {}", list_of_schemes())
    };
    Error::new(ErrorKind::Config, format!("the URL has no scheme{hint}"))
}

fn unknown_scheme(scheme: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("there is no URL scheme {scheme:?}; the schemes are {}", list_of_schemes()),
    )
}

fn feature_is_off(scheme: &Scheme) -> Error {
    let name = scheme.name;
    let mut message = format!(
        "the URL scheme {name:?} needs the Cargo feature {name:?}, which is off in this build; \
         a program adds it with `cargo add locks --features {name}`"
    );
    if scheme.in_commands {
        message += &format!(", the commands with `cargo install locks-cli --features {name}`");
    }
    Error::new(ErrorKind::Config, message)
}

fn list_of_schemes() -> String {
    SCHEMES.map(|scheme| format!("{}:", scheme.name)).join(", ")
}
