//! What the records look like, and what becomes of those that others wrote.

use locks_api::ErrorKind;
use locks_api::spi::{Attempt, Backend as _, Inspect as _, Mode, Released, Renewed};
use locks_backend_redis::redis::{Value, cmd};
use locks_test_servers::Redis;

use super::{Process, ask, ready};

fn get(server: &Redis, key: &str) -> String {
    match ask(server, cmd("GET").arg(format!("{{locks}}:1:{key}"))) {
        Value::BulkString(record) => String::from_utf8(record).unwrap(),
        other => panic!("{key}: {other:?}"),
    }
}

/// A lock that is only ever held alone looks as it always did, whatever it was used for before.
#[tokio::test(flavor = "multi_thread")]
async fn the_common_record_is_the_first_one() {
    let (server, url) = ready().await;
    let one = Process::new(&url);
    let epoch = get(&server, "epoch")[..16].to_owned();
    let claim = one.claim("a");
    for mode in [Mode::Shared, Mode::Permits { count: 1, limit: 2 }, Mode::Exclusive] {
        let grant = one.granted(&one.claim("a").with_mode(mode)).await;
        let waits = one.claim("a").with_mode(Mode::Shared).waiting();
        if mode != Mode::Shared {
            one.waits_behind(&waits).await;
            assert!(get(&server, "l:a").contains(" ~"));
            one.cancel(&waits).await;
        }
        one.release(&grant).await;
        let expected = format!("{} {epoch} 0", grant.tokens.last());
        assert_eq!(get(&server, "l:a"), expected);
        let Value::Array(keys) = ask(&server, cmd("KEYS").arg("*:a")) else { panic!("no keys") };
        assert_eq!(keys.len(), 1, "{keys:?}");
    }
    let grant = one.granted(&claim).await;
    let record = get(&server, "l:a");
    let words: Vec<&str> = record.split(' ').collect();
    assert_eq!(
        words[..5],
        [
            &*grant.tokens.last().to_string(),
            &*epoch,
            "0",
            &*claim.id.to_string(),
            &*grant.tokens.len().to_string()
        ]
    );
}

/// What the version before wrote: a holder, and a queue of others.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_record_is_understood() {
    let (server, url) = ready().await;
    let one = Process::new(&url);
    let (holds, waits) = (one.claim("a"), one.claim("a").waiting());
    let grant = one.granted(&holds).await;
    assert_eq!(one.waits_behind(&waits).await, 0);
    let record = get(&server, "l:a");
    assert!(record.contains(" 1 ") && !record.contains('~'), "{record}");
    let Value::BulkString(waiter) = ask(&server, cmd("HGET").arg("{locks}:1:w:a").arg(waits.id.to_string()))
    else {
        panic!("nobody waits")
    };
    let waiter = String::from_utf8(waiter).unwrap();
    assert_eq!(waiter.split(' ').nth(2).unwrap(), one.instance.to_string(), "{waiter}");
    assert_eq!(one.backend.state(&holds.name).await.unwrap().waiters.unwrap().len(), 1);
    let renewed = one.backend.renew(std::slice::from_ref(&grant)).await.unwrap();
    assert!(matches!(renewed[..], [Renewed::Extended(_)]));
    assert_eq!(one.release(&grant).await, Released::Done);
    one.granted(&waits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_record_is_an_error_and_stays() {
    let (server, url) = ready().await;
    let one = Process::new(&url);
    let later = format!("1700000000000000 {} !1,what,ever", &get(&server, "epoch")[..16]);
    ask(&server, cmd("SET").arg("{locks}:1:l:a").arg(&later));
    let claim = one.claim("a");
    for claim in [claim.clone(), claim.clone().with_mode(Mode::Shared), claim.waiting()] {
        let error = one.backend.acquire(std::slice::from_ref(&claim)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend);
        assert!(error.to_string().contains("later version"), "{error}");
    }
    assert_eq!(get(&server, "l:a"), later);
}

/// Keys that are deleted by hand cost what was in them and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_keys_hold_up_nobody() {
    let (server, url) = ready().await;
    let one = Process::new(&url);
    for (number, keys) in
        [&["l"][..], &["h"], &["x"], &["h", "x"], &["q"], &["w"], &["q", "w"], &["l", "q"]].iter().enumerate()
    {
        let name = format!("{number}");
        let reader = one.granted(&one.claim(&name).with_mode(Mode::Shared)).await;
        let writer = one.claim(&name).waiting();
        one.waits_behind(&writer).await;
        for key in *keys {
            ask(&server, cmd("DEL").arg(format!("{{locks}}:1:{key}:{name}")));
        }
        one.release(&reader).await;
        let until = std::time::Instant::now() + super::PROMPT;
        while !matches!(one.acquire(&writer).await.unwrap(), Attempt::Granted(_)) {
            assert!(std::time::Instant::now() < until, "stuck without {keys:?}");
            super::pause(std::time::Duration::from_millis(50)).await;
        }
    }
}
