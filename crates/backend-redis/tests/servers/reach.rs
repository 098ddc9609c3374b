//! Ways to a server: sockets, TLS, logins, clients, namespaces.

use std::time::Duration;

use locks_api::{ErrorKind, Locks};
use locks_backend_redis::redis::{Client, Value, cmd};
use locks_backend_redis::{RedisBackend, RedisOptions, set_up};
use locks_test_servers::Redis;

use super::{PROMPT, ask, connect, eventually_wait, pause, ready};

/// The user of docs/backends/redis.md, its lines joined.
fn documented_user() -> String {
    let page = include_str!("../../../../docs/backends/redis.md");
    let (_, rest) = page.split_once("ACL SETUSER ").expect("the page shows a user");
    let (block, _) = rest.split_once("```").expect("the block ends");
    block.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn lock_and_hand_over(url: &str) {
    let (one, two) = (connect(url), connect(url));
    let guard = one.lock("a").acquire().await.unwrap();
    assert!(two.lock("a").try_acquire().await.unwrap().is_none());
    let lock = two.lock("a").ttl(Duration::from_secs(2));
    let waiter = tokio::spawn(async move { lock.acquire_timeout(PROMPT).await });
    pause(Duration::from_millis(50)).await;
    guard.release().await.unwrap();
    let guard = waiter.await.unwrap().unwrap();
    // Over two renewals.
    pause(Duration::from_millis(1_200)).await;
    assert!(guard.is_held());
    guard.release().await.unwrap();
    let abandoned = connect(url);
    let guard = one.lock("a").acquire().await.unwrap();
    assert!(abandoned.lock("a").acquire_timeout(Duration::from_millis(50)).await.is_err());
    guard.release().await.unwrap();
    for locks in [one, two, abandoned] {
        locks.close().await.unwrap();
    }
}

/// Readers, permits, an election and an operator, each once.
async fn use_all_kinds(url: &str) {
    let (one, two) = (connect(url), connect(url));
    let readers = [one.rw_lock("r").read().await.unwrap(), two.rw_lock("r").read().await.unwrap()];
    let writer = one.rw_lock("r").ttl(Duration::from_secs(2));
    let writer = tokio::spawn(async move { writer.write().await });
    eventually_wait(&two, "r", 1).await;
    assert!(two.rw_lock("r").try_read().await.unwrap().is_none());
    for reader in readers {
        reader.release().await.unwrap();
    }
    writer.await.unwrap().unwrap().downgrade().await.unwrap().release().await.unwrap();
    one.semaphore("p", 3).acquire_many(2).await.unwrap().release().await.unwrap();
    let election = one.election("e");
    let mut observer = two.election("e").observe();
    assert_eq!(observer.next().await.unwrap(), None);
    let leadership = election.campaign("one").await.unwrap();
    leadership.publish("two").await.unwrap();
    assert!(tokio::time::timeout(PROMPT, observer.next()).await.unwrap().unwrap().is_some());
    assert_eq!(two.list("").await.unwrap().len(), 1);
    assert_eq!(two.revoke("e").await.unwrap(), 1);
    assert_eq!(two.break_lock("e").await.unwrap(), 1);
    let once = one.lock("o").once_per(Duration::from_secs(60));
    once.acquire().await.unwrap().complete().await.unwrap();
    assert!(two.lock("o").once_per(Duration::from_secs(60)).try_acquire().await.unwrap().is_none());
    drop(two.lock_all(["x", "y"]).acquire().await.unwrap());
    drop(observer);
    for locks in [one, two] {
        locks.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_user_can_do_all_that_is_needed() {
    let server = Redis::options()
        .file(
            "users.acl",
            &format!(
                "user {}\nuser admin on >admin ~* &* +@all\n",
                documented_user().replacen(">password", ">s%cret", 1)
            ),
        )
        .config("aclfile", "{directory}/users.acl");
    let server = match server.start() {
        Ok(server) => server,
        Err(error) => panic!("{error}"),
    };
    let address = server.address();
    let url = format!("redis://locks:s%25cret@{address}?max_ttl=4s");
    set_up(&url).await.unwrap();
    lock_and_hand_over(&url).await;
    use_all_kinds(&url).await;
    // Neither a wrong password nor a right one is ever repeated.
    for wrong in [format!("redis://locks:geheim@{address}"), format!("redis://nobody:geheim@{address}")] {
        let error = connect(&wrong).lock("a").try_acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
        assert!(!format!("{error:?}").contains("geheim"), "{error:?}");
    }
    // Another namespace is none of its business.
    let error = connect(&format!("{url}&namespace=other")).lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_a_way() {
    let server = Redis::options().config("unixsocket", "{directory}/redis.sock").start().unwrap();
    let socket = server.directory().unwrap().join("redis.sock");
    let url = format!("redis+unix:{}?max_ttl=4s&db=3", socket.display());
    set_up(&url).await.unwrap();
    lock_and_hand_over(&url).await;
    let keys = ask(&server, cmd("INFO").arg("keyspace"));
    let Value::BulkString(keys) = keys else { panic!("{keys:?}") };
    let keys = String::from_utf8(keys).unwrap();
    assert!(keys.contains("db3:") && !keys.contains("db0:"), "{keys}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_there_is_used() {
    let (server, url) = ready().await;
    let client = Client::open(format!("{}/0", server.url())).unwrap();
    let options = RedisOptions::default().max_ttl(Duration::from_secs(4));
    let mine = Locks::new(RedisBackend::from_client(&client, options).unwrap());
    let guard = mine.lock("a").acquire().await.unwrap();
    assert!(connect(&url).lock("a").try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
    let nonsense = RedisOptions::default().namespace("{a}");
    assert_eq!(RedisBackend::from_client(&client, nonsense).unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_do_not_meet() {
    let (server, url) = ready().await;
    let other = format!("{url}&namespace=other/app");
    set_up(&other).await.unwrap();
    let (one, two) = (connect(&url), connect(&other));
    let (first, second) = (one.lock("a").acquire().await.unwrap(), two.lock("a").acquire().await.unwrap());
    let Value::Array(keys) = ask(&server, cmd("KEYS").arg("*")) else { panic!("no keys") };
    assert_eq!(keys.len(), 4, "{keys:?}");
    first.release().await.unwrap();
    second.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_everything() {
    let (server, url) = ready().await;
    let (one, two) = (connect(&url), connect(&url));
    let mut guards = Vec::new();
    for number in 0..100 {
        guards.push(one.lock(format!("l/{number}")).acquire().await.unwrap());
    }
    let waiters: Vec<_> = (0..100)
        .map(|number| {
            let lock = two.lock(format!("l/{number}"));
            tokio::spawn(async move { lock.acquire_timeout(PROMPT).await.map(|guard| guard.fencing_token()) })
        })
        .collect();
    pause(Duration::from_millis(200)).await;
    let Value::BulkString(clients) = ask(&server, cmd("CLIENT").arg("LIST")) else { panic!("no list") };
    // And the one that asks.
    assert_eq!(String::from_utf8(clients).unwrap().lines().count(), 3);
    for guard in guards {
        guard.release().await.unwrap();
    }
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_idle_sessions_costs_no_lock() {
    let server = Redis::options().config("timeout", "1").start().unwrap();
    let url = format!("{}?max_ttl=8s", server.url());
    set_up(&url).await.unwrap();
    let locks = connect(&url);
    let guard = locks.lock("a").ttl(Duration::from_secs(8)).acquire().await.unwrap();
    // The next renewal comes later than the server's patience ends.
    pause(Duration::from_millis(3_500)).await;
    assert!(guard.is_held());
    guard.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_the_server_has_forgotten_are_sent_again() {
    let (server, url) = ready().await;
    let locks = connect(&url);
    for _ in 0..3 {
        ask(&server, cmd("SCRIPT").arg("FLUSH"));
        let guard = locks.lock("a").ttl(Duration::from_secs(1)).acquire().await.unwrap();
        ask(&server, cmd("SCRIPT").arg("FLUSH"));
        pause(Duration::from_millis(1_100)).await;
        assert!(guard.is_held(), "the renewal was not sent again");
        ask(&server, cmd("SCRIPT").arg("FLUSH"));
        guard.release().await.unwrap();
    }
}

/// What the page asks for is no more than what is needed, but for other databases and for replicas.
#[tokio::test(flavor = "multi_thread")]
async fn each_right_of_the_documented_user_is_needed() {
    let user = documented_user();
    let server = Redis::start().unwrap();
    // The last two are for waiters that ask again, and for what is given up when nobody watches any more.
    let rarely = ["+select", "+wait", "+lpos", "+unsubscribe"];
    for right in user.split(' ').filter(|word| word.starts_with('+') && !rarely.contains(word)) {
        let mut set = cmd("ACL");
        set.arg("SETUSER").arg(user.split(' ').filter(|word| *word != right).collect::<Vec<_>>());
        ask(&server, cmd("ACL").arg("DELUSER").arg("locks"));
        ask(&server, &set);
        ask(&server, &cmd("FLUSHALL"));
        ask(&server, cmd("SCRIPT").arg("FLUSH"));
        let url = format!("redis://locks:password@{}?max_ttl=4s&restart_grace=off", server.address());
        let uses = tokio::spawn(async move {
            use_all_kinds(&url).await;
            lock_and_hand_over(&url).await;
        });
        let done = tokio::time::timeout(PROMPT, uses);
        assert!(!matches!(done.await, Ok(Ok(()))), "{right} is not needed");
    }
}
