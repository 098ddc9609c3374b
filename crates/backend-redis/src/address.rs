//! `redis:`, `rediss:` and `redis+unix:` URLs.

use std::time::Duration;

use locks_api::spi::UrlOptions;
use locks_api::{Error, ErrorKind, Result};
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{Client, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};
use url::Url;

use crate::options::{Durability, RedisOptions};

/// After so long without a packet the system asks whether the other side is there.
const ALIVE_AFTER: Duration = Duration::from_secs(15);

/// Takes apart a URL: where the server is, and our options behind the `?`.
///
/// # Errors
///
/// [`ErrorKind::Config`], which names what is wrong and never repeats a password. Does no I/O.
pub(crate) fn parse(text: &str) -> Result<(Client, RedisOptions)> {
    let mut url = Url::parse(text).map_err(|error| wrong(format!("the URL makes no sense: {error}")))?;
    match url.scheme() {
        "redis" | "redis+unix" => {}
        "rediss" if cfg!(feature = "rustls") => {}
        "rediss" => {
            return Err(wrong(
                "rediss: needs TLS, which is off in this build; add the Cargo feature `redis-rustls` of locks \
                 (`rustls` of locks-backend-redis)",
            ));
        }
        other => return Err(wrong(format!("{other}: is no scheme of this backend"))),
    }
    if url.scheme() != "redis+unix" && url.host_str().unwrap_or_default().is_empty() {
        return Err(wrong("the URL names no host; write redis://host:6379"));
    }
    let mut given = UrlOptions::new(url.query_pairs())?;
    let options = options(&mut given)?;
    // A URL of a socket has no other place for them.
    let theirs: &[&str] = if url.scheme() == "redis+unix" { &["db", "user", "pass"] } else { &[] };
    let theirs: Vec<_> = theirs.iter().filter_map(|name| Some((name, given.text(name)?))).collect();
    given.finish()?;
    url.set_query(None);
    if !theirs.is_empty() {
        url.query_pairs_mut().extend_pairs(theirs);
    }
    options.check()?;
    // What its client says of a bad URL names the part and repeats none of it.
    let info =
        url.into_connection_info().map_err(|error| wrong(format!("the URL makes no sense: {error}")))?;
    Ok((client(info)?, options))
}

fn options(given: &mut UrlOptions) -> Result<RedisOptions> {
    let default = RedisOptions::default();
    Ok(RedisOptions {
        namespace: given.text("namespace").unwrap_or(default.namespace),
        max_ttl: given.parsed::<humantime::Duration>("max_ttl")?.map_or(default.max_ttl, Into::into),
        restart_grace: given.on_or_off("restart_grace")?.unwrap_or(default.restart_grace),
        allow_eviction: given.on_or_off("allow_eviction")?.unwrap_or(default.allow_eviction),
        durability: given.text("durability").map_or(Ok(default.durability), |value| durability(&value))?,
    })
}

/// A client that speaks RESP3, over which the server can say something on its own.
pub(crate) fn client(info: ConnectionInfo) -> Result<Client> {
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        // One right less that our user needs, and one command less for each connection.
        .set_skip_set_lib_name();
    let mut tcp = info.tcp_settings().clone();
    if tcp.keepalive().is_none() {
        // Whoever only watches asks for nothing, and would not notice that nobody is there any more.
        tcp = tcp.set_keepalive(TcpKeepalive::new().with_time(ALIVE_AFTER).with_interval(ALIVE_AFTER / 3));
    }
    Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp))
        .map_err(|error| wrong("the connection settings make no sense").with_source(error))
}

fn durability(value: &str) -> Result<Durability> {
    if value == "local" {
        return Ok(Durability::Local);
    }
    value
        .strip_prefix("replicated(")
        .and_then(|rest| rest.strip_suffix(')'))
        .and_then(|count| count.parse().ok())
        .map(Durability::Replicated)
        .ok_or_else(|| wrong(format!("durability is local or replicated(n), not {value:?}")))
}

fn wrong(complaint: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, complaint)
}

#[cfg(test)]
mod tests {
    use redis::ConnectionAddr;

    use super::*;

    fn complaint(url: &str) -> String {
        let error = parse(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn a_url_says_where_and_how() {
        let (client, options) = parse(
            "redis://me:s%65cret@[::1]:7000/3?namespace=app&max_ttl=1m&restart_grace=off&durability=replicated(2)",
        )
        .unwrap();
        let info = client.get_connection_info();
        assert_eq!(*info.addr(), ConnectionAddr::Tcp("::1".into(), 7000));
        let settings = info.redis_settings();
        assert_eq!(
            (settings.username(), settings.password(), settings.db()),
            (Some("me"), Some("secret"), 3)
        );
        assert_eq!(settings.protocol(), ProtocolVersion::RESP3);
        let expected = RedisOptions::default()
            .namespace("app")
            .max_ttl(Duration::from_secs(60))
            .restart_grace(false)
            .durability(Durability::Replicated(2));
        assert_eq!(options, expected);
        let (client, options) = parse("redis+unix:/run/redis.sock?db=2&user=me&pass=p").unwrap();
        assert_eq!(*client.get_connection_info().addr(), ConnectionAddr::Unix("/run/redis.sock".into()));
        assert_eq!(client.get_connection_info().redis_settings().db(), 2);
        assert_eq!(options, RedisOptions::default());
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_is() {
        for (url, word) in [
            ("redis://:geheim@h?max_ttl=soon", "max_ttl"),
            ("redis://:geheim@h?max_ttl=10ms", "one second"),
            ("redis://:geheim@h?namespace=%7Ba%7D", "namespace"),
            ("redis://:geheim@h?namespace=", "namespace"),
            ("redis://:geheim@h?restart_grace=maybe", "on or off"),
            ("redis://:geheim@h?durability=replicated(0)", "replicated(0)"),
            ("redis://:geheim@h?durability=most", "durability"),
            ("redis://:geheim@h?ttl=1s", "no option \"ttl\""),
            ("redis://:geheim@h?max_ttl=1m&max_ttl=2m", "twice"),
            ("redis://:geheim@h/x", "database"),
            ("redis:", "no host"),
            ("redis://:geheim@h:99999", "makes no sense"),
        ] {
            let complaint = complaint(url);
            assert!(complaint.contains(word) && !complaint.contains("geheim"), "{url}: {complaint}");
        }
    }

    #[cfg(not(feature = "rustls"))]
    #[test]
    fn tls_is_a_feature() {
        assert!(complaint("rediss://h").contains("redis-rustls"));
    }
}
