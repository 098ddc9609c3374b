//! Ways to a cluster: several members, logins, channels, namespaces.

use std::net::TcpListener;
use std::time::Duration;

use locks_api::{ErrorKind, Locks};
use locks_backend_etcd::tonic::transport::Endpoint;
use locks_backend_etcd::{EtcdBackend, EtcdOptions, set_up};
use locks_test_servers::{Etcd, Redis, gateway};

use super::{connect, pause, wait_for, within};

async fn lock_and_hand_over(one: &Locks, two: &Locks) {
    let guard = one.lock("a").acquire().await.unwrap();
    assert!(two.lock("a").try_acquire().await.unwrap().is_none());
    let waiter = wait_for(two, "a").await;
    guard.release().await.unwrap();
    within("the turn", waiter).await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_not_there_are_passed_over() {
    let server = Etcd::start().unwrap();
    let url = format!("etcd://127.0.0.1:1,{},127.0.0.1:2", server.address());
    for _ in 0..4 {
        lock_and_hand_over(&connect(&url), &connect(&url)).await;
    }
    let nobody = connect("etcd://127.0.0.1:1,127.0.0.1:2");
    let error = within("a try", nobody.lock("a").try_acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = set_up("etcd://127.0.0.1:1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    set_up(server.url()).await.unwrap();
}

/// Nine that accept and never answer, as machines do whose cable was pulled: one after the other they would take longer than a connection may.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_never_answer_are_passed_over() {
    let server = Etcd::start().unwrap();
    let mute: Vec<TcpListener> = (0..9).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut members: Vec<String> =
        mute.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
    members.push(server.address().to_string());
    let url = format!("etcd://{}", members.join(","));
    // Which is the first is left to chance.
    for _ in 0..4 {
        set_up(&url).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_etcd_is_told() {
    let server = Redis::start().unwrap();
    let locks = connect(&format!("etcd://{}", server.address()));
    let error = within("a try", locks.lock("a").try_acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_does_as_well() {
    let server = Etcd::start().unwrap();
    let channel = Endpoint::from_shared(format!("http://{}", server.address())).unwrap().connect_lazy();
    let from_channel = || {
        let options = EtcdOptions::default();
        Locks::new(EtcdBackend::from_channel(channel.clone(), &options).unwrap())
    };
    let (one, two) = (from_channel(), connect(server.url()));
    lock_and_hand_over(&one, &two).await;
    lock_and_hand_over(&two, &one).await;
    let bad = EtcdOptions::default().namespace("");
    assert_eq!(EtcdBackend::from_channel(channel, &bad).unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_do_not_know_of_each_other() {
    let server = Etcd::start().unwrap();
    let (one, two) = (connect(&format!("{}/one", server.url())), connect(&format!("{}/two", server.url())));
    let guards = [one.lock("a").acquire().await.unwrap(), two.lock("a").acquire().await.unwrap()];
    assert_eq!(one.list("").await.unwrap().len(), 1);
    assert_eq!(gateway::keys(server.address(), "one/1/lock/a@").unwrap().len(), 1);
    drop(guards);
}

fn call(server: &Etcd, method: &str, message: &str) {
    gateway::call(server.address(), method, message).unwrap();
}

/// The role of docs/backends/etcd.md, with its user.
fn with_users(server: &Etcd) {
    let page = include_str!("../../../../docs/backends/etcd.md");
    assert!(
        page.contains("role grant-permission locks readwrite --prefix=true locks/"),
        "the page shows the role"
    );
    call(server, "auth/user/add", r#"{"name":"root","password":"wurzel"}"#);
    call(server, "auth/role/add", r#"{"name":"root"}"#);
    call(server, "auth/user/grant", r#"{"user":"root","role":"root"}"#);
    call(server, "auth/role/add", r#"{"name":"locks"}"#);
    let (key, end) = (gateway::encode(b"locks/"), gateway::encode(b"locks0"));
    let grant =
        format!(r#"{{"name":"locks","perm":{{"permType":"READWRITE","key":"{key}","range_end":"{end}"}}}}"#);
    call(server, "auth/role/grant", &grant);
    call(server, "auth/user/add", r#"{"name":"app","password":"geheim@/"}"#);
    call(server, "auth/user/grant", r#"{"user":"app","role":"locks"}"#);
    call(server, "auth/enable", "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_user_can_do_all_that_is_needed() {
    let server = Etcd::start().unwrap();
    let url = |login: &str| format!("etcd://{login}{}", server.address());
    // Before there are users a login is not asked for, and does no harm.
    lock_and_hand_over(&connect(&url("app:x@")), &connect(&url(""))).await;
    with_users(&server);
    let good = url("app:geheim%40%2F@");
    let (one, two) = (connect(&good), connect(&good));
    lock_and_hand_over(&one, &two).await;
    let leadership = one.election("e").campaign("one").await.unwrap();
    assert!(two.election("e").leader().await.unwrap().is_some());
    assert_eq!(two.list("").await.unwrap().len(), 1);
    leadership.resign().await.unwrap();
    let once = one.lock("o").once_per(Duration::from_secs(60)).min_hold(Duration::from_millis(10));
    once.acquire().await.unwrap().complete().await.unwrap();
    let guard = one.lock("kept").ttl(Duration::from_secs(5)).acquire().await.unwrap();
    // A member that was started again knows none of the tokens that it gave out.
    server.kill().unwrap();
    server.start_again().unwrap();
    pause(Duration::from_secs(4)).await;
    assert!(guard.is_held());
    lock_and_hand_over(&one, &two).await;
    guard.release().await.unwrap();

    for (login, word) in [("app:falsch@", "login"), ("nobody:x@", "login"), ("", "etcd://user:password@host")]
    {
        let error = connect(&url(login)).lock("a").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{login}: {error:?}");
        assert!(error.to_string().contains(word) && !format!("{error:?}").contains("falsch"), "{error:?}");
    }
    let elsewhere = connect(&format!("{good}/elsewhere"));
    let error = elsewhere.lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
}
