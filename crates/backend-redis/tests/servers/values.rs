//! Elections.

use std::time::Duration;

use locks_api::Locks;
use locks_api::spi::{Backend as _, Released, Values as _};
use locks_backend_redis::redis::{Value, cmd};

use super::{PROMPT, Process, ask, connect, pause, ready};

async fn next(observer: &mut locks_api::Observer) -> Option<String> {
    let next = tokio::time::timeout(PROMPT, observer.next()).await.unwrap().unwrap();
    next.map(|leader| leader.value.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_lives_and_dies_with_its_grant() {
    let (_server, url) = ready().await;
    let one = Process::new(&url);
    let leader = async || one.backend.leader(&one.claim("a").name).await.unwrap();
    assert_eq!(leader().await, None);
    let first = one.granted(&one.claim("a").with_value("")).await;
    let told = leader().await.unwrap();
    assert_eq!((&*told.value, told.token), ("", first.tokens.first()));
    assert!(told.holder.unwrap().pid == Some(std::process::id()) && told.remaining.is_some());
    for value in ["longer\n\0 with all that there is: ü{}~ 1 2 3", "x"] {
        assert_eq!(one.backend.publish(&first, value).await.unwrap(), Released::Done);
        assert_eq!(&*leader().await.unwrap().value, value);
        let renewed = one.backend.renew(std::slice::from_ref(&first)).await.unwrap();
        assert!(matches!(renewed[..], [locks_api::spi::Renewed::Extended(_)]));
        assert_eq!(&*leader().await.unwrap().value, value);
    }
    let second = one.claim("a").with_value("second").waiting();
    one.waits_behind(&second).await;
    one.release(&first).await;
    assert_eq!(&*leader().await.unwrap().value, "second");
    // Nobody else publishes.
    assert_eq!(one.backend.publish(&first, "late").await.unwrap(), Released::NotHeld);
    let second = one.granted(&second).await;
    one.release(&second).await;
    assert_eq!(leader().await, None);
    // Without a value there is nobody to tell of, until there is one.
    let plain = one.granted(&one.claim("a").with_ttl(Duration::from_secs(1))).await;
    assert_eq!(leader().await, None);
    one.backend.publish(&plain, "now").await.unwrap();
    assert_eq!(&*leader().await.unwrap().value, "now");
    pause(Duration::from_millis(1_100)).await;
    assert_eq!(leader().await, None, "a value outlived its grant");
    assert_eq!(one.backend.publish(&plain, "dead").await.unwrap(), Released::NotHeld);
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_hear_of_every_change_over_the_one_connection() {
    let (server, url) = ready().await;
    let (leader, follower, observing) = (connect(&url), connect(&url), connect(&url));
    // It observes before it has ever asked for a lock, and is pushed its grant later all the same.
    let mut observer = observing.election("e").observe();
    assert_eq!(next(&mut observer).await, None);
    let leadership = leader.election("e").campaign("one").await.unwrap();
    assert_eq!(next(&mut observer).await.as_deref(), Some("one"));
    leadership.publish("two").await.unwrap();
    assert_eq!(next(&mut observer).await.as_deref(), Some("two"));
    let campaign = follower.election("e");
    let follower = tokio::spawn(async move { campaign.campaign("three").await });
    super::eventually_wait(&leader, "e", 1).await;
    let waiting = observing.lock("e");
    let waiting = tokio::spawn(async move { waiting.acquire_timeout(PROMPT).await });
    super::eventually_wait(&leader, "e", 2).await;
    let Value::BulkString(clients) = ask(&server, cmd("CLIENT").arg("LIST")) else { panic!("no list") };
    assert_eq!(String::from_utf8(clients).unwrap().lines().count(), 4);
    leadership.resign().await.unwrap();
    assert_eq!(next(&mut observer).await.as_deref(), Some("three"));
    // A connection that breaks loses nothing.
    ask(&server, cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub"));
    ask(&server, cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal"));
    let leadership = follower.await.unwrap().unwrap();
    leadership.publish("four").await.unwrap();
    assert_eq!(next(&mut observer).await.as_deref(), Some("four"));
    observing.break_lock("e").await.unwrap();
    assert_eq!(leadership.lost().await, locks_api::LossReason::Revoked);
    assert_eq!(next(&mut observer).await, None);
    waiting.await.unwrap().unwrap().release().await.unwrap();
    drop(observer);
    super::eventually("leaving the channel", || {
        let channels = ask(&server, cmd("PUBSUB").arg("CHANNELS").arg("{locks}:1:c:*"));
        channels == Value::Array(Vec::new())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_come_and_go_hear_all_the_same() {
    let (_server, url) = ready().await;
    let (leader, observing) = (connect(&url), connect(&url));
    let leadership = leader.election("e").campaign("0").await.unwrap();
    for round in 1..=50 {
        let election = observing.election("e");
        let mut observer = election.observe();
        let before = next(&mut observer).await;
        assert_eq!(before, Some((round - 1).to_string()));
        leadership.publish(&round.to_string()).await.unwrap();
        assert_eq!(next(&mut observer).await, Some(round.to_string()));
    }
    drop::<Locks>(observing);
}
