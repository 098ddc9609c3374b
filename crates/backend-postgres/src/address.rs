//! `postgres:` URLs.

use std::borrow::Cow;

use locks_api::spi::UrlOptions;
use locks_api::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::options::PostgresOptions;

/// Where the database is, and how locks are kept in it.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// For all steps.
    pub(crate) steps: PgConnectOptions,
    /// For what the server says on its own, if that takes another way.
    pub(crate) listen: Option<PgConnectOptions>,
    pub(crate) mode: Mode,
    pub(crate) options: PostgresOptions,
}

/// What a lock is in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A row, with an end.
    Lease,
    /// Advisory locks of a session.
    Session,
}

/// Takes apart a URL: where the database is, and our options behind the `?`.
///
/// # Errors
///
/// [`ErrorKind::Config`], which names what is wrong and never repeats a password. Does no I/O.
pub(crate) fn parse(text: &str) -> Result<Address> {
    let mut url = Url::parse(text).map_err(|error| wrong(format!("the URL makes no sense: {error}")))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(wrong(format!("{}: is no scheme of this backend", url.scheme())));
    }
    let mut given = UrlOptions::new(url.query_pairs())?;
    let mode = given.text("mode").map_or(Ok(Mode::Lease), |mode| which(&mode))?;
    let options = options(&mut given)?;
    let listen = given.text("listen_url").map(|url| direct(&url)).transpose()?;
    let theirs: Vec<_> = THEIRS.into_iter().filter_map(|name| Some((name, given.text(name)?))).collect();
    given.finish()?;
    url.set_query(None);
    if !theirs.is_empty() {
        url.query_pairs_mut().extend_pairs(theirs);
    }
    options.check()?;
    if mode == Mode::Session {
        options.check_session()?;
        if listen.is_some() {
            return Err(wrong("listen_url is for mode=lease; mode=session listens to nothing"));
        }
    }
    Ok(Address { steps: client(&url)?, listen, mode, options })
}

fn options(given: &mut UrlOptions) -> Result<PostgresOptions> {
    let default = PostgresOptions::default();
    Ok(PostgresOptions {
        schema: given.text("schema").unwrap_or(default.schema),
        prefix: given.text("prefix").unwrap_or(default.prefix),
        max_ttl: given.parsed::<humantime::Duration>("max_ttl")?.map_or(default.max_ttl, Into::into),
        restart_grace: given.on_or_off("restart_grace")?.unwrap_or(default.restart_grace),
        durable: given.on_or_off("durable")?.unwrap_or(default.durable),
    })
}

fn which(mode: &str) -> Result<Mode> {
    match mode {
        "lease" => Ok(Mode::Lease),
        "session" => Ok(Mode::Session),
        _ => Err(wrong(format!("there is no mode {mode:?}; there are lease and session"))),
    }
}

/// What the client itself understands.
const THEIRS: [&str; 9] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "user", "password", "dbname"];

fn direct(text: &str) -> Result<PgConnectOptions> {
    let url = Url::parse(text).map_err(|error| wrong(format!("listen_url makes no sense: {error}")))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(wrong("listen_url must begin with postgres://"));
    }
    client(&url)
}

fn client(url: &Url) -> Result<PgConnectOptions> {
    // What its client says of a bad URL may repeat a part of it.
    let client: PgConnectOptions =
        url.as_str().parse().map_err(|_| wrong("the client does not understand the URL"))?;
    secured(client)
}

/// Fails with [`ErrorKind::Config`] if this build has not what the client was told to use.
pub(crate) fn secured(client: PgConnectOptions) -> Result<PgConnectOptions> {
    let encrypts =
        !matches!(client.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer);
    if encrypts && !cfg!(feature = "rustls") {
        return Err(wrong(
            "sslmode=require and stricter need TLS, which is off in this build; add the Cargo feature `postgres-rustls` of locks \
             (`rustls` of locks-backend-postgres)",
        ));
    }
    Ok(client)
}

fn wrong(complaint: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, complaint)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let address = parse(
            "postgres://me:s%65cret@[::1]:7000/app?schema=app&prefix=l_&max_ttl=1m&restart_grace=off&durable=on&mode=lease&sslmode=disable\
             &listen_url=postgres%3A%2F%2Fme%40h2%2Fapp",
        )
        .unwrap();
        let expected = PostgresOptions::default()
            .schema("app")
            .prefix("l_")
            .max_ttl(Duration::from_secs(60))
            .restart_grace(false)
            .durable(true);
        assert_eq!((address.mode, address.options), (Mode::Lease, expected));
        assert_eq!((address.steps.get_port(), address.steps.get_database()), (7000, Some("app")));
        assert_eq!(address.listen.unwrap().get_host(), "h2");
        assert_eq!(parse("postgresql://h").unwrap().options, PostgresOptions::default());
        assert_eq!(parse("postgres://h?mode=session&schema=app").unwrap().mode, Mode::Session);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_is() {
        for (url, word) in [
            ("postgres://u:geheim@h?max_ttl=soon", "max_ttl"),
            ("postgres://u:geheim@h?max_ttl=10ms", "one second"),
            ("postgres://u:geheim@h?schema=A", "schema"),
            ("postgres://u:geheim@h?schema=", "schema"),
            ("postgres://u:geheim@h?prefix=a-b", "prefix"),
            ("postgres://u:geheim@h?restart_grace=maybe", "on or off"),
            ("postgres://u:geheim@h?mode=table", "no mode \"table\""),
            ("postgres://u:geheim@h?mode=session&durable=on", "durable"),
            ("postgres://u:geheim@h?mode=session&max_ttl=2h", "an hour"),
            ("postgres://u:geheim@h?mode=session&listen_url=postgres%3A%2F%2Fx", "listen_url"),
            ("postgres://u:geheim@h?ttl=1s", "no option \"ttl\""),
            ("postgres://u:geheim@h?max_ttl=1m&max_ttl=2m", "twice"),
            ("postgres://u:geheim@h?listen_url=redis://x", "listen_url"),
            ("postgres://u:geheim@h:99999", "makes no sense"),
            ("postgres://u:geheim@h?sslmode=sometimes", "does not understand"),
        ] {
            let error = parse(url).unwrap_err();
            let complaint = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(complaint.contains(word) && !complaint.contains("geheim"), "{url}: {complaint}");
        }
    }

    #[cfg(not(feature = "rustls"))]
    #[test]
    fn tls_is_a_feature() {
        let complaint = parse("postgres://h?sslmode=require").unwrap_err().to_string();
        assert!(complaint.contains("postgres-rustls"), "{complaint}");
    }
}
