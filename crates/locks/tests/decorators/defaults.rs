//! Which locks a decorated function uses when it names none. Each test is a process of its own, which runs the test's other half.

use std::process::Command;

use locks::{ErrorKind, Locks, customfilelock, customlock, default_locks, install, with_default};

use crate::memory;

/// Runs the ignored test of this name in a process of its own, with this `LOCKS_URL`.
fn in_a_process(test: &str, url: Option<&str>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([&format!("defaults::{test}"), "--exact", "--ignored", "--test-threads=1"])
        .env_remove("LOCKS_URL");
    if let Some(url) = url {
        command.env("LOCKS_URL", url);
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn backend(locks: &Locks) -> &'static str {
    locks.guarantees().backend
}

#[customlock("which")]
async fn which() -> locks::Result<bool> {
    // The same connection or not: the same lock again is known only there.
    let again = default_locks()?.lock("which").try_acquire().await;
    Ok(again.is_err_and(|error| error.kind() == ErrorKind::WouldDeadlock))
}

#[test]
fn an_installed_default_is_used_for_good() {
    in_a_process("installed", Some("nonsense:"));
}

#[tokio::test]
#[ignore = "the other half of a test"]
async fn installed() {
    install(memory().await).unwrap();
    assert_eq!(install(memory().await).unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(backend(&default_locks().unwrap()), "memory");
    assert!(which().await.unwrap());
    assert!(tokio::spawn(async { which().await.unwrap() }).await.unwrap(), "of the whole process");
}

#[test]
fn the_url_is_used_when_none_is_installed() {
    in_a_process("of_the_url", Some("memory:"));
}

#[tokio::test]
#[ignore = "the other half of a test"]
async fn of_the_url() {
    assert!(which().await.unwrap());
    assert_eq!(backend(&default_locks().unwrap()), "memory");
    let late = install(memory().await).unwrap_err();
    assert!(late.to_string().contains("opened by a decorated function"), "{late}");
}

#[test]
fn without_a_url_it_is_the_file_backend_that_the_file_forms_use() {
    in_a_process("of_files", None);
    in_a_process("of_files", Some(""));
}

#[tokio::test]
#[ignore = "the other half of a test"]
async fn of_files() {
    assert_eq!(backend(&default_locks().unwrap()), "file");
    let pid = std::process::id();
    assert_eq!(file_outside(pid).unwrap_err().kind(), ErrorKind::WouldDeadlock);
    assert_eq!(file_inside(pid).unwrap(), 7);
    // Whatever the default is.
    let error = with_default(&memory().await, async { file_outside(pid) }).await;
    assert_eq!(error.unwrap(), 7);
}

#[customfilelock("locks-test/{pid}")]
fn file_outside(pid: u32) -> locks::Result<u32> {
    file_inside(pid)
}

#[customlock("locks-test/{pid}")]
fn file_inside(pid: u32) -> u32 {
    pid.min(7)
}

#[test]
fn a_default_that_can_not_be_had_is_an_error_value() {
    in_a_process("refused", Some("nonsense:"));
    in_a_process("refused", Some("file:/proc/no/such/directory"));
}

#[tokio::test]
#[ignore = "the other half of a test"]
async fn refused() {
    let error = which().await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Config | ErrorKind::PermissionDenied | ErrorKind::Backend),
        "{error:?}"
    );
    assert_eq!(file_inside(7).unwrap_err().kind(), error.kind());
    // Nothing has been decided by it.
    install(memory().await).unwrap();
    assert!(which().await.unwrap());
}

#[tokio::test]
async fn a_scope_has_its_own() {
    let (outer, inner) = (memory().await, memory().await);
    let held = outer.lock("which").acquire().await.unwrap();
    with_default(&outer, async {
        assert!(with_default(&inner, which()).await.unwrap());
        let inside = locks::with_default_blocking(&inner, || default_locks().unwrap().lock("here"));
        tokio::task::yield_now().await;
        let guard = inside.acquire().await.unwrap();
        assert!(
            default_locks().unwrap().lock("here").try_acquire().await.unwrap().is_some(),
            "another store"
        );
        drop(guard);
    })
    .await;
    drop(held);
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn a_store_out_of_reach_is_an_error_value() {
    use std::time::Duration;

    #[customlock("x", locks = locks)]
    async fn later(locks: &Locks) -> u32 {
        7
    }

    #[customlock("x", wait = false, locks = locks)]
    fn now(locks: &Locks) -> u32 {
        7
    }

    // Nothing listens where this listener was.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let builder = locks::builder(&format!("redis://127.0.0.1:{port}")).await.unwrap();
    let locks = builder.store_timeout(Duration::from_millis(300)).build();
    assert_eq!(later(&locks).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let blocked = locks.clone();
    let error = tokio::task::spawn_blocking(move || now(&blocked)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
