//! Readers, permits, downgrades and several locks at once, step by step.

use std::time::Duration;

use locks_api::spi::{
    Attempt, Backend as _, Claim, Downgrade as _, Grant, Joint, Mode, Released, Renewed, Together as _,
};
use locks_api::{Busy, ErrorKind};
use locks_backend_redis::redis::cmd;

use super::{Process, ask, pause, ready};

fn permits(claim: Claim, count: u32, limit: u32) -> Claim {
    claim.with_mode(Mode::Permits { count, limit })
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_hold_together_and_a_writer_that_waits_stops_the_next() {
    let (_server, url) = ready().await;
    let (one, two) = (Process::new(&url), Process::new(&url));
    let (first, second) = (one.claim("a").with_mode(Mode::Shared), two.claim("a").with_mode(Mode::Shared));
    let (first, second) = (one.granted(&first).await, two.granted(&second).await);
    assert!(second.tokens.first() > first.tokens.last());
    assert!(one.is_held(&one.claim("a")).await);
    let writer = two.claim("a").waiting();
    assert_eq!(two.waits_behind(&writer).await, 0);
    // Neither a try nor a wait passes it, of whatever process.
    for process in [&one, &two] {
        assert!(process.is_held(&process.claim("a").with_mode(Mode::Shared)).await);
    }
    let late =
        [one.claim("a"), two.claim("a"), one.claim("a")].map(|claim| claim.with_mode(Mode::Shared).waiting());
    for (position, claim) in (1..).zip(&late) {
        assert_eq!(one.waits_behind(claim).await, position);
    }
    let last = one.claim("a").waiting();
    assert_eq!(one.waits_behind(&last).await, 4);
    assert_eq!(one.release(&first).await, Released::Done);
    assert_eq!(one.release(&first).await, Released::NotHeld);
    assert_eq!(two.waits_behind(&writer).await, 0);
    assert_eq!(two.release(&second).await, Released::Done);
    let written = two.granted(&writer).await;
    assert!(written.tokens.first() > second.tokens.last());
    assert_eq!(one.waits_behind(&late[0]).await, 0);
    // All readers at the head come in with the one release.
    two.release(&written).await;
    let mut highest = written.tokens.last();
    for claim in &late {
        let reader = one.granted(claim).await;
        assert!(reader.tokens.first() > highest);
        highest = reader.tokens.last();
        assert_eq!(one.granted(claim).await.tokens, reader.tokens, "another grant of the same claim");
    }
    assert_eq!(one.waits_behind(&last).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_come_in_when_the_writer_before_them_gives_up_or_is_gone() {
    let (_server, url) = ready().await;
    let (one, two) = (Process::new(&url), Process::new(&url));
    let reader = one.granted(&one.claim("a").with_mode(Mode::Shared)).await;
    let writer = two.claim("a").waiting();
    assert_eq!(two.waits_behind(&writer).await, 0);
    let waiting = one.claim("a").with_mode(Mode::Shared).waiting();
    assert_eq!(one.waits_behind(&waiting).await, 1);
    two.cancel(&writer).await;
    one.granted(&waiting).await;
    // One whose process is gone holds up nobody.
    assert_eq!(two.waits_behind(&writer).await, 0);
    drop(two);
    pause(Duration::from_millis(200)).await;
    let other = one.granted(&one.claim("a").with_mode(Mode::Shared)).await;
    one.release(&other).await;
    one.release(&reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_reader_frees_the_lock_and_the_living_keep_it() {
    let (_server, url) = ready().await;
    let one = Process::new(&url);
    let second = Duration::from_secs(1);
    let dead = one.granted(&one.claim("a").with_mode(Mode::Shared).with_ttl(second)).await;
    let living = one.granted(&one.claim("a").with_mode(Mode::Shared).with_ttl(2 * second)).await;
    let writer = one.claim("a").waiting();
    one.waits_behind(&writer).await;
    pause(second + second / 10).await;
    let renewed = one.backend.renew(&[dead.clone(), living.clone()]).await.unwrap();
    assert!(matches!(renewed[..], [Renewed::Lost(_), Renewed::Extended(_)]), "{renewed:?}");
    assert_eq!(one.release(&dead).await, Released::NotHeld);
    one.waits_behind(&writer).await;
    // Its end has moved.
    pause(second + second / 5).await;
    one.waits_behind(&writer).await;
    assert_eq!(one.release(&living).await, Released::Done);
    one.granted(&writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permits_are_counted_by_claim_and_come_back_with_their_holders() {
    let (_server, url) = ready().await;
    let one = Process::new(&url);
    let second = Duration::from_secs(1);
    let two_of_five = one.granted(&permits(one.claim("a"), 2, 5).with_ttl(second)).await;
    let again = permits(one.claim("a"), 3, 5);
    let three = one.granted(&again).await;
    assert_eq!(one.granted(&again).await.tokens, three.tokens);
    assert!(one.is_held(&permits(one.claim("a"), 1, 5)).await);
    assert!(one.is_held(&one.claim("a").with_mode(Mode::Shared)).await);
    assert!(one.is_held(&one.claim("a")).await);
    pause(second + second / 10).await;
    // Dead: its two are free, no more and no less.
    assert!(one.is_held(&permits(one.claim("a"), 3, 5)).await);
    let two = one.granted(&permits(one.claim("a"), 2, 5)).await;
    assert!(one.is_held(&permits(one.claim("a"), 1, 5)).await);
    assert_eq!(one.release(&two_of_five).await, Released::NotHeld);
    assert!(one.is_held(&permits(one.claim("a"), 1, 5)).await);
    one.release(&two).await;
    one.cancel(&again).await;
    one.granted(&permits(one.claim("a"), 5, 5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_permits_are_not_starved_by_few() {
    let (_server, url) = ready().await;
    let one = Process::new(&url);
    let held = [
        one.granted(&permits(one.claim("a"), 1, 3)).await,
        one.granted(&permits(one.claim("a"), 1, 3)).await,
    ];
    let all = permits(one.claim("a"), 3, 3).waiting();
    assert_eq!(one.waits_behind(&all).await, 0);
    // One is free and nobody gets it.
    assert!(one.is_held(&permits(one.claim("a"), 1, 3)).await);
    let few = permits(one.claim("a"), 1, 3).waiting();
    assert_eq!(one.waits_behind(&few).await, 1);
    one.release(&held[0]).await;
    assert_eq!(one.waits_behind(&few).await, 1);
    one.release(&held[1]).await;
    let all = one.granted(&all).await;
    assert_eq!(one.waits_behind(&few).await, 0);
    one.release(&all).await;
    one.granted(&few).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_in_force_while_it_is_used() {
    let (_server, url) = ready().await;
    let one = Process::new(&url);
    let refused = async |claim: Claim, used: u32| {
        let error = one.acquire(&claim).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitMismatch, "{error:?}");
        let asked = claim.mode.limit().unwrap();
        let text = error.to_string();
        assert!(text.contains(&used.to_string()) && text.contains(&asked.to_string()), "{text}");
    };
    let held = one.granted(&permits(one.claim("a"), 1, 70)).await;
    refused(permits(one.claim("a"), 1, 80), 70).await;
    refused(permits(one.claim("a"), 1, 60).waiting(), 70).await;
    one.release(&held).await;
    // Idle: the next one says.
    let held = one.granted(&permits(one.claim("a"), 1, 80)).await;
    one.release(&held).await;
    // While one waits, too.
    let alone = one.granted(&one.claim("a")).await;
    let waits = permits(one.claim("a"), 1, 90).waiting();
    one.waits_behind(&waits).await;
    refused(permits(one.claim("a"), 1, 80), 90).await;
    one.waits_behind(&waits).await;
    one.cancel(&waits).await;
    let waits = permits(one.claim("a"), 1, 80).waiting();
    one.waits_behind(&waits).await;
    one.release(&alone).await;
    one.granted(&waits).await;
    // As many as there can be cost nothing.
    let most = permits(one.claim("b"), u32::MAX, u32::MAX);
    let most = one.granted(&most).await;
    assert!(one.is_held(&permits(one.claim("b"), 1, u32::MAX)).await);
    one.release(&most).await;
    one.granted(&permits(one.claim("b"), u32::MAX - 1, u32::MAX)).await;
    one.granted(&permits(one.claim("b"), 1, u32::MAX)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downgrade_keeps_the_grant_and_lets_readers_in() {
    let (_server, url) = ready().await;
    let one = Process::new(&url);
    let claim = one.claim("a");
    let grant = one.granted(&claim).await;
    let readers = [one.claim("a"), one.claim("a")].map(|claim| claim.with_mode(Mode::Shared).waiting());
    for reader in &readers {
        one.waits_behind(reader).await;
    }
    let writer = one.claim("a").waiting();
    one.waits_behind(&writer).await;
    for _ in 0..2 {
        assert_eq!(one.backend.downgrade(&grant).await.unwrap(), Released::Done);
    }
    let readers = [one.granted(&readers[0]).await, one.granted(&readers[1]).await];
    assert_eq!(one.granted(&claim).await.tokens, grant.tokens);
    assert!(readers[0].tokens.first() > grant.tokens.last());
    assert_eq!(one.waits_behind(&writer).await, 0);
    let renewed = one.backend.renew(std::slice::from_ref(&grant)).await.unwrap();
    assert!(matches!(renewed[..], [Renewed::Extended(_)]));
    for grant in [&grant, &readers[0], &readers[1]] {
        assert_eq!(one.release(grant).await, Released::Done);
    }
    one.granted(&writer).await;
    assert_eq!(one.backend.downgrade(&grant).await.unwrap(), Released::NotHeld);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_locks_are_taken_in_one_step_or_none_is() {
    let (server, url) = ready().await;
    let one = Process::new(&url);
    let claims = [one.claim("a"), one.claim("b").with_mode(Mode::Shared), permits(one.claim("c"), 2, 3)];
    let grants = all(one.backend.acquire_together(&claims).await.unwrap());
    let again = all(one.backend.acquire_together(&claims).await.unwrap());
    assert!(grants.iter().zip(&again).all(|(grant, again)| grant.tokens == again.tokens));
    for grant in &grants {
        assert_eq!(one.release(grant).await, Released::Done);
    }
    let none = async |claims: &[Claim]| {
        assert!(matches!(
            one.backend.acquire_together(claims).await.unwrap(),
            Joint::Busy { at: 1, busy: Busy::Held { by: Some(_) } }
        ));
        // Nothing is left behind.
        one.granted(&one.claim("x")).await;
    };
    let held = one.granted(&one.claim("y")).await;
    none(&[one.claim("x"), one.claim("y"), one.claim("z")]).await;
    // Nor are those passed who wait.
    let reader = one.granted(&one.claim("r").with_mode(Mode::Shared)).await;
    let writer = one.claim("r").waiting();
    one.waits_behind(&writer).await;
    let passing = one.backend.acquire_together(&[one.claim("r").with_mode(Mode::Shared)]).await.unwrap();
    assert!(matches!(passing, Joint::Busy { at: 0, busy: Busy::Held { .. } }));
    one.release(&reader).await;
    one.granted(&writer).await;
    one.release(&held).await;
    // What an earlier run took whose answer was lost, and which can't be completed, is given back.
    let claims = [one.claim("p"), one.claim("q").with_min_hold(Duration::from_secs(100))];
    let grants = all(one.backend.acquire_together(&claims).await.unwrap());
    one.release(&grants[0]).await;
    one.granted(&one.claim("p")).await;
    let repeated = one.backend.acquire_together(&claims).await.unwrap();
    assert!(matches!(repeated, Joint::Busy { at: 0, busy: Busy::Held { .. } }));
    one.granted(&one.claim("q")).await;
    // In another epoch, a new one is opened first, and it is in grace.
    ask(&server, cmd("DEL").arg("{locks}:1:epoch"));
    let in_grace = one.backend.acquire_together(&[one.claim("new")]).await.unwrap();
    assert!(matches!(in_grace, Joint::Busy { at: 0, busy: Busy::Grace { .. } }));
}

/// The grants of claims that were granted together.
fn all(joint: Joint) -> Vec<Grant> {
    match joint {
        Joint::Granted(grants) => grants,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_all_kinds_is_one_script_and_each_has_its_answer() {
    let (_server, url) = ready().await;
    let one = Process::new(&url);
    let claims = [
        one.claim("a"),
        one.claim("a").with_mode(Mode::Shared).waiting(),
        one.claim("b").with_mode(Mode::Shared).with_value("a value\0 with a NUL"),
        one.claim("b").with_mode(Mode::Shared),
        permits(one.claim("c"), 1, 2),
        permits(one.claim("c"), 1, 3),
        one.claim("d").with_min_hold(Duration::from_secs(400 * 24 * 3600)),
        one.claim("e"),
    ];
    let answers = one.backend.acquire(&claims).await.unwrap();
    assert!(matches!(
        &answers[..],
        [
            Ok(Attempt::Granted(_)),
            Ok(Attempt::Queued { position: Some(0), .. }),
            Ok(Attempt::Granted(_)),
            Ok(Attempt::Granted(_)),
            Ok(Attempt::Granted(_)),
            Err(_),
            Err(_),
            Ok(Attempt::Granted(_)),
        ]
    ));
    let kinds: Vec<_> =
        answers.iter().filter_map(|answer| answer.as_ref().err()).map(locks_api::Error::kind).collect();
    assert_eq!(kinds, [ErrorKind::LimitMismatch, ErrorKind::Config]);
}

/// What is granted before the grace is renewed in it; nothing is granted beside it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_granted_in_grace_beside_what_is_known() {
    let (server, url) = ready().await;
    let one = Process::new(&url);
    let reader = one.granted(&one.claim("a").with_mode(Mode::Shared)).await;
    let permit = one.granted(&permits(one.claim("b"), 1, 2)).await;
    let alone = one.granted(&one.claim("c")).await;
    let waiting = one.claim("c").with_mode(Mode::Shared).waiting();
    one.waits_behind(&waiting).await;
    ask(&server, cmd("DEL").arg("{locks}:1:epoch"));
    // Not even by a step that does not open the new epoch.
    one.release(&alone).await;
    for claim in [one.claim("a").with_mode(Mode::Shared), permits(one.claim("b"), 1, 2), waiting] {
        let attempt = one.acquire(&claim).await.unwrap();
        assert!(matches!(attempt, Attempt::Busy(Busy::Grace { .. })), "{attempt:?}");
    }
    let renewed = one.backend.renew(&[reader, permit]).await.unwrap();
    assert!(matches!(renewed[..], [Renewed::Extended(_), Renewed::Extended(_)]), "{renewed:?}");
}
