//! The URL schemes of this version, and what is said about a URL that has none of them.

use locks_api::{Error, ErrorKind, Result};

/// A URL scheme, whether or not its feature is on.
struct Scheme {
    name: &'static str,
    /// The feature that adds it.
    feature: &'static str,
    /// Whether `lock-abort` and `lock-block` know it too.
    in_commands: bool,
}

const SCHEMES: [Scheme; 9] = [
    Scheme { name: "file", feature: "file", in_commands: true },
    Scheme { name: "etcd", feature: "etcd", in_commands: true },
    Scheme { name: "etcds", feature: "etcd-rustls", in_commands: true },
    Scheme { name: "memory", feature: "memory", in_commands: false },
    Scheme { name: "postgres", feature: "postgres", in_commands: true },
    Scheme { name: "postgresql", feature: "postgres", in_commands: true },
    Scheme { name: "redis", feature: "redis", in_commands: true },
    Scheme { name: "rediss", feature: "redis-rustls", in_commands: true },
    Scheme { name: "redis+unix", feature: "redis", in_commands: true },
];

/// The scheme of `url`, in lower case.
///
/// # Errors
///
/// [`ErrorKind::Config`] if it has none.
pub(crate) fn of(url: &str) -> Result<String> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme).filter(|scheme| is_scheme(scheme));
    scheme.map(str::to_ascii_lowercase).ok_or_else(|| missing(url))
}

/// What is wrong with a scheme that this build can't open.
pub(crate) fn refused(scheme: &str) -> Error {
    match SCHEMES.iter().find(|known| known.name == scheme) {
        Some(known) => feature_is_off(known),
        None => unknown(scheme),
    }
}

/// Whether this can be what stands before the colon of a URL, so that the rest of a wrong one, which may hold a password,
/// need not be repeated in a message.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn missing(url: &str) -> Error {
    let hint = if url.starts_with(['/', '.', '~']) {
        "; a directory is written file:/a/directory".to_owned()
    } else {
        format!("; begin it with one of {}", list())
    };
    Error::new(ErrorKind::Config, format!("the URL has no scheme{hint}"))
}

fn unknown(scheme: &str) -> Error {
    Error::new(ErrorKind::Config, format!("there is no URL scheme {scheme:?}; the schemes are {}", list()))
}

fn feature_is_off(scheme: &Scheme) -> Error {
    let Scheme { name, feature, in_commands } = scheme;
    let mut message = format!(
        "the URL scheme {name:?} needs the Cargo feature {feature:?}, which is off in this build; \
         a program adds it with `cargo add locks --features {feature}`"
    );
    if *in_commands {
        message += &format!(", the commands with `cargo install locks-cli --features {feature}`");
    }
    Error::new(ErrorKind::Config, message)
}

fn list() -> String {
    SCHEMES.map(|scheme| format!("{}:", scheme.name)).join(", ")
}
