//! Clusters that have forgotten something.

use std::fs;
use std::path::Path;

use locks_api::{ErrorKind, LossReason};
use locks_test_servers::Etcd;

use super::{TTL, connect, within};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_copy_is_a_reset() {
    let server = Etcd::start().unwrap();
    let locks = connect(server.url());
    let older = locks.lock("older").ttl(TTL).acquire().await.unwrap();
    let data = server.data_directory().unwrap();
    let kept = data.with_file_name("copy");
    server.kill().unwrap();
    copy(&data, &kept);
    server.start_again().unwrap();
    let younger = locks.lock("younger").ttl(TTL).acquire().await.unwrap();
    for _ in 0..5 {
        locks.lock("more").acquire().await.unwrap().release().await.unwrap();
    }
    server.kill().unwrap();
    fs::remove_dir_all(&data).unwrap();
    copy(&kept, &data);
    server.start_again().unwrap();
    for guard in [&older, &younger] {
        let reason = within("the loss", guard.lost()).await;
        assert_eq!(reason, LossReason::StoreReset);
        assert!(!guard.is_held());
    }
    let released = older.release().await.unwrap_err();
    assert_eq!(released.kind(), ErrorKind::Lost);
    // The older key came back from the dead, with a lease that nobody keeps alive.
    within("the older lock", locks.lock("older").ttl(TTL).acquire()).await.unwrap().release().await.unwrap();
    within("the younger lock", locks.lock("younger").ttl(TTL).acquire())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_cluster_is_a_reset() {
    let server = Etcd::start().unwrap();
    let locks = connect(server.url());
    let guard = locks.lock("a").ttl(TTL).acquire().await.unwrap();
    for _ in 0..5 {
        locks.lock("more").acquire().await.unwrap().release().await.unwrap();
    }
    server.kill().unwrap();
    server.wipe().unwrap();
    server.start_again().unwrap();
    let reason = within("the loss", guard.lost()).await;
    assert!(matches!(reason, LossReason::StoreReset | LossReason::SessionGone), "{reason:?}");
    within("the lock", locks.lock("a").ttl(TTL).acquire()).await.unwrap().release().await.unwrap();
}
