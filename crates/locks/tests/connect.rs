//! URLs and features. Every case holds for every subset of features: run with `--no-default-features` and `--all-features` too.

use std::fmt::Debug;

use locks::{ErrorKind, Result};

/// How the schemes are listed.
const ALL: &str = "file:, etcd:, etcds:, memory:, postgres:, postgresql:, redis:, rediss:, redis+unix:";

/// The message of the complaint about `url`.
#[track_caller]
fn refused<T: Debug>(outcome: Result<T>) -> String {
    let Err(error) = outcome else { panic!("it is accepted: {outcome:?}") };
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let message = error.to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

#[tokio::test]
async fn an_unknown_scheme_is_refused_and_the_known_ones_are_named() {
    for url in ["redish:x", "REDISH://user:secret@host", "foo:", "x+y-z.1:"] {
        let message = refused(locks::connect(url).await);
        let scheme = url.split(':').next().unwrap().to_lowercase();
        assert!(message.contains(&format!("{scheme:?}")) && message.contains(ALL), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[tokio::test]
async fn what_has_no_scheme_is_refused() {
    for url in [
        "",
        ":",
        "/var/lock",
        "./locks",
        "~/locks",
        "host:secret@".trim_start_matches("host"),
        "a b:c",
        "1:2",
    ] {
        let message = refused(locks::connect(url).await);
        assert!(message.contains("no scheme") && !message.contains("secret"), "{message}");
    }
    assert!(refused(locks::connect("/var/lock").await).contains("file:/a/directory"));
    assert!(refused(locks::connect("nonsense").await).contains(ALL));
}

#[cfg(not(feature = "file"))]
#[tokio::test]
async fn file_is_off_and_the_message_says_how_to_add_it() {
    let message = refused(locks::connect("file:").await);
    for part in ["\"file\"", "cargo add locks --features file", "cargo install locks-cli --features file"] {
        assert!(message.contains(part), "{message}");
    }
}

#[cfg(not(feature = "memory"))]
#[tokio::test]
async fn memory_is_off_and_the_message_says_how_to_add_it() {
    let message = refused(locks::connect("memory:x").await);
    assert!(
        message.contains("\"memory\"") && message.contains("cargo add locks --features memory"),
        "{message}"
    );
    assert!(!message.contains("locks-cli"), "the commands have no such feature: {message}");
}

#[cfg(not(feature = "etcd"))]
#[tokio::test]
async fn etcd_is_off_and_the_message_says_how_to_add_it() {
    for (url, feature) in [("etcd://u:secret@h", "etcd"), ("Etcds://u:secret@h", "etcd-rustls")] {
        for message in [refused(locks::connect(url).await), refused(locks::set_up(url).await)] {
            assert!(message.contains(&format!("the Cargo feature \"{feature}\"")), "{message}");
            assert!(message.contains(&format!("cargo install locks-cli --features {feature}`")), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}

/// No server is needed to tell that a URL makes no sense, nor to make a `Locks`.
#[cfg(feature = "etcd")]
#[tokio::test]
async fn etcd_urls_are_checked_before_any_server_is_asked() {
    for url in ["etcd://127.0.0.1:1,127.0.0.1:2/app", "ETCD://h?namespace=app"] {
        let locks = locks::connect(url).await.unwrap();
        assert_eq!(locks.guarantees().backend, "etcd");
        assert!(locks::set_up_script(url).unwrap().is_none());
    }
    for (url, word) in [("etcd://h?ttl=1s", "\"ttl\""), ("etcd://u:secret@h:x", "port")] {
        for message in [refused(locks::connect(url).await), refused(locks::set_up(url).await)] {
            assert!(message.contains(word) && !message.contains("secret"), "{message}");
        }
    }
}

#[cfg(not(feature = "postgres"))]
#[tokio::test]
async fn postgres_is_off_and_the_message_says_how_to_add_it() {
    for (url, feature) in [("postgres://u:secret@h/d", "postgres"), ("PostgreSQL://h", "postgres")] {
        for message in [refused(locks::connect(url).await), refused(locks::set_up(url).await)] {
            assert!(message.contains(&format!("the Cargo feature \"{feature}\"")), "{message}");
            assert!(message.contains(&format!("cargo install locks-cli --features {feature}`")), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}

/// No server is needed to tell that a URL makes no sense, nor to make a `Locks`, nor to show the SQL.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_urls_are_checked_before_any_server_is_asked() {
    for url in ["postgres://127.0.0.1:1/d", "PostgreSQL://h/d?schema=app&max_ttl=1m"] {
        let locks = locks::connect(url).await.unwrap();
        assert_eq!(locks.guarantees().backend, "postgres");
        assert!(locks::set_up_script(url).unwrap().unwrap().contains("CREATE SCHEMA"));
    }
    for (url, word) in [("postgres://h?ttl=1s", "\"ttl\""), ("postgres://u:secret@h?max_ttl=x", "max_ttl")] {
        for message in [refused(locks::connect(url).await), refused(locks::set_up(url).await)] {
            assert!(message.contains(word) && !message.contains("secret"), "{message}");
        }
    }
}

#[cfg(not(feature = "redis"))]
#[tokio::test]
async fn redis_is_off_and_the_message_says_how_to_add_it() {
    for url in ["redis://user:secret@h", "Redis+Unix:/run/redis.sock?pass=secret"] {
        for message in [refused(locks::connect(url).await), refused(locks::set_up(url).await)] {
            assert!(message.contains("the Cargo feature \"redis\""), "{message}");
            assert!(message.contains("cargo add locks --features redis`"), "{message}");
            assert!(message.contains("cargo install locks-cli --features redis`"), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}

#[cfg(not(feature = "redis-rustls"))]
#[tokio::test]
async fn tls_is_off_and_the_message_says_how_to_add_it() {
    let url = "rediss://user:secret@h";
    for message in [refused(locks::connect(url).await), refused(locks::set_up(url).await)] {
        assert!(message.contains("\"rediss\" needs the Cargo feature \"redis-rustls\""), "{message}");
        assert!(message.contains("cargo add locks --features redis-rustls"), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[cfg(feature = "file")]
#[tokio::test]
async fn a_directory_is_shared_by_all_who_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file:{}", dir.path().display());
    let ours = locks::connect(&url).await.unwrap();
    let theirs = locks::connect(&url.replace("file:", "FILE://")).await.unwrap();
    assert_eq!(ours.guarantees().backend, "file");
    let guard = ours.lock("n").acquire().await.unwrap();
    assert!(theirs.lock("n").try_acquire().await.unwrap().is_none());
    let token = guard.fencing_token();
    guard.release().await.unwrap();
    assert!(theirs.lock("n").try_acquire().await.unwrap().unwrap().fencing_token() > token);
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn memory_is_private() {
    let one = locks::connect("memory:").await.unwrap();
    let other = locks::connect("Memory:").await.unwrap();
    assert_eq!(one.guarantees().backend, "memory");
    let guard = one.lock("n").acquire().await.unwrap();
    assert!(one.lock("n").try_acquire().await.unwrap().is_none());
    assert!(other.lock("n").try_acquire().await.unwrap().is_some());
    guard.release().await.unwrap();
    assert!(refused(locks::connect("memory:name").await).contains("no name"));
}

/// No server is needed to tell that a URL makes no sense, nor to make a `Locks`.
#[cfg(feature = "redis")]
#[tokio::test]
async fn redis_urls_are_checked_before_any_server_is_asked() {
    for url in
        ["redis://127.0.0.1:1", "REDIS://h?namespace=app&max_ttl=1m", "redis+unix:/nowhere?pass=secret"]
    {
        let locks = locks::connect(url).await.unwrap();
        assert_eq!(locks.guarantees().backend, "redis");
    }
    let wrong =
        [("redis:", "host"), ("redis://h?ttl=1s", "\"ttl\""), ("redis://:secret@h?max_ttl=x", "max_ttl")];
    for (url, word) in wrong {
        for message in [refused(locks::connect(url).await), refused(locks::set_up(url).await)] {
            assert!(message.contains(word) && !message.contains("secret"), "{message}");
        }
    }
}

#[cfg(feature = "redis-rustls")]
#[tokio::test]
async fn redis_over_tls_is_a_scheme() {
    assert_eq!(locks::connect("rediss://h").await.unwrap().guarantees().backend, "redis");
}

/// On a runtime without I/O and timers: it is done on a thread of the library.
#[cfg(feature = "redis")]
#[test]
fn a_store_that_is_not_there_cant_be_set_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(locks::set_up("redis://:secret@127.0.0.1:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn what_cant_be_opened_cant_be_set_up() {
    assert!(refused(locks::set_up("redish://user:secret@h").await).contains(ALL));
    assert!(refused(locks::set_up("/var/lock").await).contains("file:/a/directory"));
}

#[cfg(feature = "file")]
#[tokio::test]
async fn a_directory_needs_no_set_up() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file:{}", dir.path().display());
    assert_eq!(locks::set_up(&url).await.unwrap(), locks::SetUp::NotNeeded);
    assert!(refused(locks::set_up("file:relative").await).contains("relative"));
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn memory_needs_no_set_up() {
    assert_eq!(locks::set_up("memory:").await.unwrap(), locks::SetUp::NotNeeded);
    assert!(refused(locks::set_up("memory:name").await).contains("no name"));
}

#[test]
fn the_blocking_ways_in_say_the_same() {
    let scheme = refused(locks::blocking::connect("foo:"));
    assert!(scheme.contains(ALL), "{scheme}");
    assert_eq!(refused(locks::blocking::builder("foo:")), scheme);
    assert_eq!(refused(locks::blocking::set_up("foo:")), scheme);
}
