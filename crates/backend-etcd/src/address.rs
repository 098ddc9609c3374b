//! `etcd:` and `etcds:` URLs.

use std::fmt;
use std::time::Duration;

use locks_api::spi::UrlOptions;
use locks_api::{Error, ErrorKind, Result};
use percent_encoding::percent_decode_str;
use tonic::transport::{Channel, Endpoint};
use url::{Host, form_urlencoded};

use crate::options::EtcdOptions;

/// After so long without a packet the member is asked whether it is there, and given up after so long without an answer. Members close connections that
/// ask more often than every five seconds.
const ALIVE_AFTER: Duration = Duration::from_secs(10);
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Where the members of a cluster listen.
const PORT: u16 = 2379;

/// A way to the cluster.
#[derive(Debug)]
pub(crate) enum Way {
    /// Any of these members, one at a time.
    Members { endpoints: Vec<Endpoint>, login: Option<Login>, secure: bool },
    /// A connection that somebody else has made, and makes again.
    Given(Channel),
}

/// A user and its password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Never shows the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Takes apart a URL: where the cluster is, and our options behind the `?`.
///
/// # Errors
///
/// [`ErrorKind::Config`], which names what is wrong and never repeats a password. Does no I/O.
pub(crate) fn parse(text: &str) -> Result<(Way, EtcdOptions)> {
    let (scheme, rest) =
        text.split_once("://").ok_or_else(|| wrong("the URL names no host; write etcd://host:2379"))?;
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "etcd" => false,
        "etcds" if cfg!(feature = "rustls") => true,
        "etcds" => {
            return Err(wrong(
                "etcds: needs TLS, which is off in this build; add the Cargo feature `etcd-rustls` of locks (`rustls` of \
                 locks-backend-etcd)",
            ));
        }
        other => return Err(wrong(format!("{other}: is no scheme of this backend"))),
    };
    if rest.contains('#') {
        return Err(wrong("the URL has a fragment; a # in a password is written %23"));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (rest, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match rest.rsplit_once('@') {
        Some((login, hosts)) => (Some(parse_login(login)?), hosts),
        None => (None, rest),
    };
    let options = parse_options(path, query)?;
    let endpoints = hosts.split(',').map(|host| endpoint(host, secure)).collect::<Result<Vec<_>>>()?;
    Ok((Way::Members { endpoints, login, secure }, options))
}

fn parse_options(path: &str, query: &str) -> Result<EtcdOptions> {
    let path = decoded(path).ok_or_else(|| wrong("the path is no UTF-8"))?;
    let mut given = UrlOptions::new(form_urlencoded::parse(query.as_bytes()))?;
    let default = EtcdOptions::default();
    let options = match (path.is_empty(), given.text("namespace")) {
        (true, None) => default,
        (true, Some(namespace)) => default.namespace(namespace),
        (false, None) => default.namespace(path),
        (false, Some(_)) => {
            return Err(wrong("the namespace is given twice; it is the URL's path or the option"));
        }
    };
    given.finish()?;
    options.check()?;
    Ok(options)
}

fn parse_login(text: &str) -> Result<Login> {
    let (user, password) =
        text.split_once(':').ok_or_else(|| wrong("the URL has a user without a password"))?;
    match (decoded(user), decoded(password)) {
        (Some(user), Some(password)) if !user.is_empty() => Ok(Login { user, password }),
        _ => Err(wrong("the user is empty, or the login is no UTF-8")),
    }
}

fn endpoint(text: &str, secure: bool) -> Result<Endpoint> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if host.is_empty() {
        return Err(wrong("the URL names no host; write etcd://host:2379"));
    }
    let host = Host::parse(host).map_err(|error| wrong(format!("a host makes no sense: {error}")))?;
    let port = match port {
        None => PORT,
        Some(port) => {
            port.parse().map_err(|_| wrong(format!("the port {port:?} of {host} makes no sense")))?
        }
    };
    let scheme = if secure { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{host}:{port}"))
        .map_err(|error| wrong(format!("the host {host} makes no sense: {error}")))?;
    Ok(endpoint
        .tcp_nodelay(true)
        .tcp_keepalive(Some(ALIVE_AFTER))
        .http2_keep_alive_interval(ALIVE_AFTER)
        .keep_alive_timeout(ANSWERED_WITHIN)
        .keep_alive_while_idle(true))
}

fn decoded(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

fn wrong(complaint: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, complaint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(url: &str) -> (Vec<String>, Option<Login>, EtcdOptions) {
        match parse(url).unwrap() {
            (Way::Members { endpoints, login, .. }, options) => {
                (endpoints.iter().map(|endpoint| endpoint.uri().to_string()).collect(), login, options)
            }
            (Way::Given(_), _) => panic!("a channel out of a URL"),
        }
    }

    #[test]
    fn a_url_says_where_and_how() {
        let (endpoints, login, options) = members("etcd://me:s%65cr%40et@a:1,[::1]:2,10.0.0.1/billing");
        assert_eq!(endpoints, ["http://a:1/", "http://[::1]:2/", "http://10.0.0.1:2379/"]);
        assert_eq!(login, Some(Login { user: "me".into(), password: "secr@et".into() }));
        assert_eq!(options, EtcdOptions::default().namespace("billing"));
        let (endpoints, login, options) = members("etcd://[::1]?namespace=a/b");
        assert_eq!((endpoints, login), (vec!["http://[::1]:2379/".to_owned()], None));
        assert_eq!(options, EtcdOptions::default().namespace("a/b"));
        assert_eq!(members("etcd://a/").2, EtcdOptions::default());
        assert_eq!(members("ETCD://a").0, members("etcd://a").0);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_is() {
        for (url, word) in [
            ("etcd:", "no host"),
            ("etcd://", "no host"),
            ("etcd://u:geheim@", "no host"),
            ("etcd://u:geheim@h,,i", "no host"),
            ("etcd://geheim@h", "without a password"),
            ("etcd://:geheim@h", "user is empty"),
            ("etcd://u:geheim@h:99999", "99999"),
            ("etcd://u:geheim@h:x", "port"),
            ("etcd://u:geheim@h h", "host"),
            ("etcd://u:geheim@h?ttl=1s", "no option \"ttl\""),
            ("etcd://u:geheim@h/a?namespace=b", "twice"),
            ("etcd://u:geheim@h?namespace=a&namespace=b", "twice"),
            ("etcd://u:geheim@h?namespace=", "namespace"),
            ("etcd://u:geheim@h?namespace=%7Ba%7D", "namespace"),
            ("etcd://u:ge#heim@h", "%23"),
            ("http://u:geheim@h", "no scheme"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(
                error.to_string().contains(word) && !format!("{error:?}").contains("heim"),
                "{url}: {error:?}"
            );
        }
        assert!(!format!("{:?}", parse("etcd://u:geheim@h").unwrap().0).contains("geheim"));
    }

    #[cfg(not(feature = "rustls"))]
    #[test]
    fn tls_is_a_feature() {
        assert!(parse("etcds://h").unwrap_err().to_string().contains("etcd-rustls"));
    }
}
