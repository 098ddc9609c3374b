//! URLs and features. Every case holds for every subset of features: run with `--no-default-features` and `--all-features` too.

use locks::{ErrorKind, Result};

/// The message of the complaint about `url`.
#[track_caller]
fn refused(outcome: Result<locks::Locks>) -> String {
    let Err(error) = outcome else { panic!("it connected") };
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
        assert!(message.contains(&format!("{scheme:?}")) && message.contains("file:, memory:"), "{message}");
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
    assert!(refused(locks::connect("nonsense").await).contains("file:, memory:"));
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
