//! Fencing tokens through Lua and back.

use locks_api::{ErrorKind, FencingToken};
use locks_backend_redis::redis::{Value, cmd};

use super::{ask, connect, ready};

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_tokens_are_exact_and_then_they_are_used_up() {
    let (server, url) = ready().await;
    let Value::BulkString(record) = ask(&server, cmd("GET").arg("{locks}:1:epoch")) else {
        panic!("no epoch")
    };
    let epoch = String::from_utf8(record).unwrap().split(' ').next().unwrap().to_owned();
    let last = FencingToken::MAX.get() - 3;
    ask(&server, cmd("SET").arg("{locks}:1:l:a").arg(format!("{last} {epoch} 0")));
    let locks = connect(&url);
    for expected in last + 1..=FencingToken::MAX.get() {
        let guard = locks.lock("a").acquire().await.unwrap();
        assert_eq!(guard.fencing_token().get(), expected);
        guard.release().await.unwrap();
    }
    let error = locks.lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreFull);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_counter_goes_on_at_the_clock() {
    let (server, url) = ready().await;
    let locks = connect(&url);
    let mut highest = 0;
    for _ in 0..20 {
        let guard = locks.lock("a").acquire().await.unwrap();
        let token = guard.fencing_token().get();
        assert!(token > highest, "token {token} after {highest}");
        highest = token;
        guard.release().await.unwrap();
        ask(&server, cmd("DEL").arg("{locks}:1:l:a"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_somebody_else_is_an_error_and_stays() {
    let (server, url) = ready().await;
    ask(&server, cmd("SET").arg("{locks}:1:l:a").arg("something else"));
    let error = connect(&url).lock("a").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert!(error.to_string().contains("not written by locks"), "{error}");
    assert_eq!(ask(&server, cmd("GET").arg("{locks}:1:l:a")), Value::BulkString(b"something else".to_vec()));
}
