//! Transactions that rely on a lock.

use locks_api::ErrorKind;
use locks_backend_etcd::{OwnedInEtcd as _, OwnerCheck};
use locks_test_servers::{Etcd, gateway};

use super::connect;

/// Puts x, if this is true.
fn put(server: &Etcd, check: &OwnerCheck) -> bool {
    let message = format!(
        "{{\"compare\":[{{\"key\":\"{}\",\"target\":\"CREATE\",\"result\":\"EQUAL\",\"createRevision\":\"{}\"}}],\
         \"success\":[{{\"requestPut\":{{\"key\":\"eA==\",\"value\":\"MQ==\"}}}}]}}",
        gateway::encode(&check.key),
        check.create_revision
    );
    gateway::call(server.address(), "kv/txn", &message).unwrap().contains("\"succeeded\":true")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_holds_for_one_holder_and_never_again() {
    let server = Etcd::start().unwrap();
    let locks = connect(server.url());
    let mut earlier: Vec<OwnerCheck> = Vec::new();
    for _ in 0..3 {
        let guard = locks.lock("a").acquire().await.unwrap();
        let check = guard.owner_check().unwrap();
        assert!(put(&server, &check) && put(&server, &check));
        assert!(earlier.iter().all(|check| !put(&server, check)));
        guard.release().await.unwrap();
        assert!(!put(&server, &check));
        earlier.push(check);
    }
    let permits = locks.semaphore("s", 3).acquire_many(2).await.unwrap();
    assert!(put(&server, &permits.owner_check().unwrap()));
    let writer = locks.rw_lock("r").write().await.unwrap();
    let check = writer.owner_check().unwrap();
    let reader = writer.downgrade().await.unwrap();
    assert_eq!(reader.owner_check().unwrap(), check);
    assert!(put(&server, &check));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lock_has_no_check() {
    let server = Etcd::start().unwrap();
    let locks = connect(server.url());
    let guard = locks.lock("a").acquire().await.unwrap();
    let check = guard.owner_check().unwrap();
    assert_eq!(locks.break_lock("a").await.unwrap(), 1);
    assert!(!put(&server, &check), "a transaction succeeded after the lock was taken away");
    super::within("the loss", guard.lost()).await;
    assert_eq!(guard.owner_check().unwrap_err().kind(), ErrorKind::Lost);
}
