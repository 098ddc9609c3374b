//! The store: where its URL comes from, and what of it may be shown.

use std::ffi::OsString;

use crate::config::{Config, Entry, Secret, Source};
use crate::duration::text;
use crate::trouble::Trouble;

/// Where the URL comes from when the command line gives none. Other users can't read it there, as they can a command line.
pub(crate) const URL_VARIABLE: &str = "LOCKS_URL";

/// The store when nothing names one: a directory of the effective user on this machine.
const DEFAULT_URL: &str = "file:";

/// Where locks are kept.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) url: String,
    /// Where the URL comes from, for complaints about it.
    pub(crate) source: String,
    user: Option<String>,
    secret: Option<Secret>,
}

impl Store {
    /// Of a command under a lock: the flag, else the environment, else the configuration's default, else a directory of the user.
    ///
    /// # Errors
    ///
    /// What is wrong, in one line.
    pub(crate) fn of_command(flag: Option<OsString>, config: &Source) -> Result<Self, String> {
        let given = Self::given("--url", flag, config)?;
        Ok(given.unwrap_or_else(|| Self::plain("the default URL", DEFAULT_URL.to_owned())))
    }

    /// The one that the command line gives, in the place called `source`, else the environment, else the configuration's default. An empty variable
    /// counts as none.
    ///
    /// # Errors
    ///
    /// What is wrong, in one line.
    pub(crate) fn given(
        source: &str,
        url: Option<OsString>,
        config: &Source,
    ) -> Result<Option<Self>, String> {
        let variable = || std::env::var_os(URL_VARIABLE).filter(|url| !url.is_empty());
        let (source, url) = match (url, variable()) {
            (Some(url), _) => (source, url),
            (None, Some(url)) => (URL_VARIABLE, url),
            (None, None) => {
                let Some(config) = config.read()? else { return Ok(None) };
                let Some(entry) = config.default_store()? else { return Ok(None) };
                return Self::configured("the configuration", entry).map(Some);
            }
        };
        let url = text(source, url)?;
        if !is_name(&url) {
            return Self::checked(Self::plain(source, url)).map(Some);
        }
        let entry = match config.read()?.as_ref().map(|config: &Config| config.store(&url)) {
            Some(entry) => entry.map_err(|complaint| format!("{source}: {complaint}"))?,
            None => {
                return Err(format!(
                    "{source}: {url:?} has no scheme, and no configuration has a store of this name; a URL begins with one such as file:"
                ));
            }
        };
        Self::configured(&format!("{source}: {url}"), entry).map(Some)
    }

    fn plain(source: &str, url: String) -> Self {
        Self { url, source: source.to_owned(), user: None, secret: None }
    }

    fn configured(source: &str, entry: Entry) -> Result<Self, String> {
        let Entry { url, user, secret } = entry;
        Self::checked(Self { url, source: source.to_owned(), user, secret })
    }

    fn checked(self) -> Result<Self, String> {
        if has_scheme(&self.url, "memory") {
            return Err(format!(
                "{}: memory: holds inside one process and every command is a process of its own; use file:",
                self.source
            ));
        }
        if (self.user.is_some() || self.secret.is_some()) && has_scheme(&self.url, "file") {
            return Err(format!("{}: a directory has neither user nor password", self.source));
        }
        Ok(self)
    }

    /// The same store, with its password in the URL.
    ///
    /// # Errors
    ///
    /// Why the password can't be had.
    pub(crate) fn with_login(mut self) -> Result<Self, Trouble> {
        let password = self.secret.take().map(|secret| secret.reveal()).transpose()?;
        let user = self.user.take();
        if password.is_none() && user.is_none() {
            return Ok(self);
        }
        self.url = logged_in(&self.url, user.as_deref(), password.as_deref()).ok_or_else(|| {
            Trouble::usage(format!("{}: the URL has a login of its own; write it in one place", self.source))
        })?;
        Ok(self)
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

    /// What tells stores apart: the URL with its options, without login.
    pub(crate) fn identity(&self) -> String {
        let (_, query) = self.url.split_once('?').unwrap_or_default();
        let is_login = |option: &&str| option.starts_with("user=") || option.starts_with("pass=");
        let options: Vec<&str> = query.split('&').filter(|option| !is_login(option)).collect();
        format!("{}?{}", self.public_url(), options.join("&"))
    }

    /// Whether the locks of this store may have an expiry, as far as the URL tells.
    pub(crate) fn may_expire(&self) -> bool {
        self.directory_url().is_none()
    }

    /// The URL, if it is one of a directory of this host.
    pub(crate) fn directory_url(&self) -> Option<&str> {
        has_scheme(&self.url, "file").then_some(self.url.as_str())
    }
}

fn has_scheme(url: &str, scheme: &str) -> bool {
    url.split_once(':').is_some_and(|(begin, _)| begin.eq_ignore_ascii_case(scheme))
}

/// Whether this is what a configuration calls a store, and no URL.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// The URL with this login, unless it has one.
fn logged_in(url: &str, user: Option<&str>, password: Option<&str>) -> Option<String> {
    let (scheme, rest) = url.split_once(':')?;
    if scheme.contains('+') {
        // A socket's path: the login is an option.
        let mut url = url.to_owned();
        for (key, value) in [("user", user), ("pass", password)] {
            if url.contains(&format!("?{key}=")) || url.contains(&format!("&{key}=")) {
                return None;
            }
            if let Some(value) = value {
                let separator = if url.contains('?') { '&' } else { '?' };
                url += &format!("{separator}{key}={}", encoded(value));
            }
        }
        return Some(url);
    }
    let rest = rest.strip_prefix("//")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return None;
    }
    let user = user.map(encoded).unwrap_or_default();
    let password = password.map(|password| format!(":{}", encoded(password))).unwrap_or_default();
    Some(format!("{scheme}://{user}{password}@{authority}{path}"))
}

/// So that nothing in it means anything in a URL.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(url: &str) -> Store {
        Store::plain("", url.to_owned())
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("redis://user:geheim@db1:6379/0?namespace=app", "redis://db1:6379/0"),
            ("redis://:geh@eim@db1", "redis://db1"),
            ("rediss://db1#geheim", "rediss://db1"),
            ("redis+unix:/run/redis.sock?db=1&user=u&pass=geheim", "redis+unix:/run/redis.sock"),
            ("redis+unix:///run/redis.sock?pass=geheim", "redis+unix:///run/redis.sock"),
            ("redis://[::1]:7000", "redis://[::1]:7000"),
            ("etcd://u:geh@eim@h1:1,h2:2/app", "etcd://h1:1,h2:2/app"),
            ("file:/var/lib/lo@cks", "file:/var/lib/lo@cks"),
        ] {
            assert_eq!(store(url).public_url(), shown);
            assert!(!store(url).identity().contains("geheim"), "{url}");
        }
    }

    #[test]
    fn a_login_is_put_where_the_url_has_it() {
        for (url, whole) in [
            ("redis://db1", Some("redis://u:a%40b%2F@db1")),
            ("redis://db1:1/0?namespace=x", Some("redis://u:a%40b%2F@db1:1/0?namespace=x")),
            ("redis+unix:/s", Some("redis+unix:/s?user=u&pass=a%40b%2F")),
            ("redis+unix:/s?db=1", Some("redis+unix:/s?db=1&user=u&pass=a%40b%2F")),
            ("redis://x@db1", None),
            ("redis+unix:/s?pass=x", None),
        ] {
            assert_eq!(logged_in(url, Some("u"), Some("a@b/")).as_deref(), whole, "{url}");
        }
        assert_eq!(logged_in("redis://h", None, Some("p")).as_deref(), Some("redis://:p@h"));
    }
}
