//! The store: where its URL comes from, and what of it may be shown.

use std::ffi::OsString;

use crate::options::text;

/// Where the URL comes from when the command line gives none. Other users can't read it there, as they can a command line.
pub(crate) const URL_VARIABLE: &str = "LOCKS_URL";

/// The store when nothing names one: a directory of the effective user on this machine.
const DEFAULT_URL: &str = "file:";

/// Where locks are kept.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) url: String,
    /// Where the URL comes from, for complaints about it.
    pub(crate) source: &'static str,
}

impl Store {
    /// Of a command under a lock: the flag, else the environment, else the default.
    ///
    /// # Errors
    ///
    /// What is wrong, in one line.
    pub(crate) fn of_command(flag: Option<OsString>) -> Result<Self, String> {
        let given = Self::given("--url", flag)?;
        Ok(given.unwrap_or_else(|| Self { url: DEFAULT_URL.to_owned(), source: "the default URL" }))
    }

    /// The one that the command line gives, in the place called `source`, else the environment. An empty variable counts as none.
    ///
    /// # Errors
    ///
    /// What is wrong, in one line.
    pub(crate) fn given(source: &'static str, url: Option<OsString>) -> Result<Option<Self>, String> {
        let variable = || std::env::var_os(URL_VARIABLE).filter(|url| !url.is_empty());
        let (source, url) = match (url, variable()) {
            (Some(url), _) => (source, url),
            (None, Some(url)) => (URL_VARIABLE, url),
            (None, None) => return Ok(None),
        };
        let url = text(source, url)?;
        if has_scheme(&url, "memory") {
            return Err(format!(
                "{source}: memory: holds inside one process and every command is a process of its own; use file:"
            ));
        }
        Ok(Some(Self { url, source }))
    }

    /// The URL without login and options, either of which may hold a password. Only for a URL that could be opened: in one that makes no
    /// sense a password may stand anywhere.
    pub(crate) fn public_url(&self) -> String {
        let url = self.url.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}{path}")
    }
}

fn has_scheme(url: &str, scheme: &str) -> bool {
    url.split_once(':').is_some_and(|(begin, _)| begin.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("redis://user:geheim@db1:6379/0?namespace=app", "redis://db1:6379/0"),
            ("redis://:geh@eim@db1", "redis://db1"),
            ("rediss://db1#geheim", "rediss://db1"),
            ("redis+unix:/run/redis.sock?db=1&user=u&pass=geheim", "redis+unix:/run/redis.sock"),
            ("redis+unix:///run/redis.sock?pass=geheim", "redis+unix:///run/redis.sock"),
            ("redis://[::1]:7000", "redis://[::1]:7000"),
            ("file:/var/lib/lo@cks", "file:/var/lib/lo@cks"),
        ] {
            assert_eq!(Store { url: url.to_owned(), source: "" }.public_url(), shown);
        }
    }
}
