//! Runtimes that end or starve, panics, forks, and whatever can run out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::Duration;

use locks_api::{Error, ErrorKind, LockGuard};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Case, fault};
use crate::fork::in_forked_child;
use crate::harness::Fault;
use crate::polling::poll_once;
use crate::space::{PROMPT, Space, becomes_free, is_busy};
use crate::verdict::{Failure, Verdict, check, within};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "resources::a_runtime_that_ends_leaves_nothing",
        "a runtime that ends with waits under way frees those, and a guard outlives it and works without any",
        |space| Box::pin(a_runtime_that_ends_leaves_nothing(space)),
    ),
    Case::new(
        "resources::a_starved_runtime_keeps_its_locks",
        "a runtime whose only thread is blocked past the ttl goes on holding its locks",
        |space| Box::pin(a_starved_runtime_keeps_its_locks(space)),
    ),
    Case::new(
        "resources::a_panic_in_the_body_frees",
        "a panic under the lock, in a task, in run and in a plain thread, frees it",
        |space| Box::pin(a_panic_in_the_body_frees(space)),
    ),
    Case::new(
        "resources::a_forked_child_is_inert",
        "in a forked child guards don't hold, dropping them frees nothing, and using the Locks is a Forked error",
        |space| Box::pin(a_forked_child_is_inert(space)),
    ),
    Case::new(
        "resources::used_up_descriptors_are_told",
        "with no descriptor left operations work or fail as StoreFull or Unavailable, and work again afterwards",
        |space| Box::pin(used_up_descriptors_are_told(space)),
    ),
    Case::new(
        "resources::connections_leave_nothing",
        "thirty connections, used and closed or just dropped, leave no thread and no descriptor",
        |space| Box::pin(connections_leave_nothing(space)),
    ),
    Case::new(
        "resources::a_full_store_is_told",
        "a store without room gives StoreFull or a proper grant, never a half-taken lock, and works again afterwards",
        |space| Box::pin(a_full_store_is_told(space)),
    )
    .needs(&[fault(Fault::StoreFull)]),
    Case::new(
        "resources::a_read_only_store_is_told",
        "a store that can't be written refuses with an error that is not Busy, and works again afterwards",
        |space| Box::pin(a_read_only_store_is_told(space)),
    )
    .needs(&[fault(Fault::ReadOnly)]),
];

async fn a_runtime_that_ends_leaves_nothing(space: Space) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let (held, contended) = (space.name("held"), space.name("contended"));
    let obstacle = other.lock(&contended).acquire().await?;
    let (lock, waiting) = (locks.lock(&held), locks.lock(&contended));
    let ended = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let guard = runtime.block_on(async {
            let guard = lock.acquire().await;
            tokio::spawn(async move { waiting.acquire().await });
            // Lets the wait begin.
            tokio::task::yield_now().await;
            guard
        })?;
        drop(runtime);
        Verdict::Ok(guard)
    });
    let guard = ended.join().map_err(|_| Failure::new("a thread panicked"))??;
    check!(guard.is_held(), "a guard was lost with its runtime");
    is_busy(&other, &held).await?;
    obstacle.release().await?;
    becomes_free(&other, &contended, PROMPT).await?;
    // Dropped where there is no runtime at all.
    std::thread::spawn(move || drop(guard)).join().map_err(|_| Failure::new("dropping a guard panicked"))?;
    becomes_free(&other, &held, PROMPT).await
}

async fn a_starved_runtime_keeps_its_locks(space: Space) -> Verdict {
    let ttl = space.short_ttl();
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("starved");
    let guard = crate::worker::with_ttl(locks.lock(&name), ttl).acquire().await?;
    block_this_thread(ttl.map_or(Duration::from_millis(300), |ttl| ttl + ttl / 2));
    check!(guard.is_held(), "a lock was lost because the runtime was busy");
    is_busy(&other, &name).await?;
    guard.release().await?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a blocked thread is what the case is about")]
fn block_this_thread(time: Duration) {
    std::thread::sleep(time);
}

async fn a_panic_in_the_body_frees(space: Space) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let name = space.name("panicked");
    silence_expected_panics();

    let lock = locks.lock(&name);
    let task = tokio::spawn(async move {
        let _guard = lock.acquire().await;
        panic!("{EXPECTED}");
    });
    check!(within(PROMPT, "a task that panics", task).await?.is_err(), "the panic was swallowed");
    becomes_free(&other, &name, PROMPT).await?;

    let lock = locks.lock(&name);
    let task = tokio::spawn(async move { lock.run(async { panic!("{EXPECTED}") }).await });
    check!(within(PROMPT, "a body that panics", task).await?.is_err(), "the panic was swallowed");
    becomes_free(&other, &name, PROMPT).await?;

    let guard = locks.lock(&name).acquire().await?;
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _guard = guard;
        panic!("{EXPECTED}");
    }));
    check!(panicked.is_err(), "the panic was swallowed");
    becomes_free(&other, &name, PROMPT).await
}

const EXPECTED: &str = "a panic that the conformance kit expects";

/// Keeps the report free of what looks like trouble and is none.
fn silence_expected_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<String>().is_none_or(|message| message != EXPECTED) {
            report(panic);
        }
    }));
}

async fn a_forked_child_is_inert(space: Space) -> Verdict {
    const HELD: u8 = 1;
    const GRANTED: u8 = 2;
    const NOT_FORKED: u8 = 3;
    const RELEASED: u8 = 4;

    let (locks, other) = (space.connect().await?, space.connect().await?);
    let (name, free) = (space.name("parents"), space.name("free"));
    let guard = locks.lock(&name).acquire().await?;
    let second = locks.lock(space.name("second")).acquire().await?;
    let is_forked = |error: &Error| error.kind() == ErrorKind::Forked;
    // The child gets what the parent has in memory; what it drops the parent goes on using.
    let mut guards = Some((guard, second));
    let code = in_forked_child(|| {
        let Some((guard, second)) = guards.take() else { return u8::MAX };
        if guard.is_held() {
            return HELD;
        }
        match poll_once(locks.lock(&free).try_acquire()) {
            Poll::Ready(Err(error)) if is_forked(&error) => {}
            Poll::Ready(Ok(Some(_))) => return GRANTED,
            _ => return NOT_FORKED,
        }
        match poll_once(second.release()) {
            Poll::Ready(Err(error)) if is_forked(&error) => {}
            _ => return RELEASED,
        }
        drop(guard);
        drop(locks.clone());
        0
    })?;
    let complaint = match code {
        Some(0) => None,
        Some(HELD) => Some("a guard says in the child that it is held"),
        Some(GRANTED) => Some("a lock was granted in the child"),
        Some(NOT_FORKED) => Some("using the Locks in the child is not a Forked error"),
        Some(RELEASED) => Some("releasing in the child is not a Forked error"),
        _ => Some("the child died"),
    };
    if let Some(complaint) = complaint {
        return Err(Failure::new(complaint));
    }
    let Some((guard, second)) = guards else { return Err(Failure::new("the parent lost its guards")) };
    for (guard, what) in [(&guard, "dropped"), (&second, "released")] {
        check!(guard.is_held(), "a guard that the child {what} is lost in the parent");
        is_busy(&other, guard.name()).await?;
    }
    guard.release().await?;
    second.release().await?;
    becomes_free(&other, &name, PROMPT).await
}

async fn used_up_descriptors_are_told(space: Space) -> Verdict {
    let (locks, other) = (space.connect().await?, space.connect().await?);
    let held = space.name("held");
    let guard = locks.lock(&held).acquire().await?;
    let full_limit = getrlimit(Resource::Nofile);
    let mut used_up = Vec::new();
    // A small limit is reached fast; what is open already stays open.
    setrlimit(Resource::Nofile, Rlimit { current: Some(512), maximum: full_limit.maximum })?;
    while let Ok(file) = std::fs::File::open("/dev/null") {
        used_up.push(file);
    }
    let outcomes = async {
        let mut outcomes = Vec::new();
        for round in 0..3 {
            let name = space.name(&format!("none-left-{round}"));
            outcomes.push(within(PROMPT, "a try", locks.lock(&name).try_acquire()).await?);
        }
        let waited = locks.lock(space.name("waited")).acquire_timeout(Duration::from_millis(100)).await;
        outcomes.push(waited.map(Some));
        Verdict::Ok(outcomes)
    }
    .await;
    let still_held = guard.is_held();
    let released = within(PROMPT, "a release", guard.release()).await;
    drop(used_up);
    setrlimit(Resource::Nofile, full_limit)?;

    check!(still_held, "a lock was lost for want of descriptors");
    for outcome in outcomes? {
        is_granted_or(outcome, &[ErrorKind::StoreFull, ErrorKind::Unavailable])?;
    }
    if let Err(error) = released? {
        check!(error.kind() == ErrorKind::Unavailable, "a release gave {error:?}");
    }
    becomes_free(&other, &held, PROMPT).await?;
    let guard = within(PROMPT, "taking a free lock", locks.lock(&held).acquire()).await??;
    guard.release().await?;
    Ok(())
}

/// Fails if the lock was called busy, or the error is of another kind. A guard is dropped.
fn is_granted_or(outcome: locks_api::Result<Option<LockGuard>>, kinds: &[ErrorKind]) -> Verdict {
    match outcome {
        Ok(Some(guard)) => {
            check!(guard.is_held(), "a fresh guard says that it is not held");
            Ok(())
        }
        Ok(None) => Err(Failure::new("a lock that nobody holds is called busy")),
        Err(error) if kinds.contains(&error.kind()) => {
            check!(error.lock_name().is_some(), "the error does not say which lock: {error}");
            Ok(())
        }
        Err(error) => Err(Failure::new(format!("expected one of {kinds:?}, got {error:?}"))),
    }
}

async fn connections_leave_nothing(space: Space) -> Verdict {
    let name = space.name("cycled");
    for round in 0..30 {
        let (locks, other) = (space.connect().await?, space.connect().await?);
        let guard = within(PROMPT, "taking a free lock", locks.lock(&name).acquire()).await??;
        let waiting = other.lock(&name);
        let wait = tokio::spawn(async move { waiting.acquire().await });
        is_busy(&other, &name).await?;
        guard.release().await?;
        drop(within(PROMPT, "a wait", wait).await???);
        if round % 2 == 0 {
            locks.close().await?;
            other.close().await?;
        }
    }
    // The census that follows every case counts what is left.
    Ok(())
}

async fn a_full_store_is_told(space: Space) -> Verdict {
    space.inject(Fault::StoreFull).await?;
    let locks = space.connect().await?;
    let mut highest = [0; 3];
    for round in 0..2 {
        for (number, highest) in highest.iter_mut().enumerate() {
            let name = space.name(&format!("full-{number}"));
            let outcome = within(PROMPT, "a try on a full store", locks.lock(&name).try_acquire()).await?;
            if let Ok(Some(guard)) = &outcome {
                let token = guard.fencing_token().get();
                check!(token > *highest, "round {round}: token {token} after token {highest}");
                *highest = token;
            }
            is_granted_or(outcome, &[ErrorKind::StoreFull])?;
        }
    }
    space.heal(Fault::StoreFull).await?;
    for (number, highest) in highest.iter().enumerate() {
        let name = space.name(&format!("full-{number}"));
        let guard =
            within(PROMPT, "taking a lock after the store had room again", locks.lock(&name).acquire())
                .await??;
        let token = guard.fencing_token().get();
        check!(token > *highest, "token {token} after token {highest}");
        guard.release().await?;
    }
    Ok(())
}

async fn a_read_only_store_is_told(space: Space) -> Verdict {
    const KINDS: [ErrorKind; 3] =
        [ErrorKind::PermissionDenied, ErrorKind::Unsupported, ErrorKind::Unavailable];
    space.inject(Fault::ReadOnly).await?;
    let name = space.name("read-only");
    // Refusing to connect is as clear an answer as refusing to lock.
    match space.connect_with(|builder| builder.store_timeout(Duration::from_secs(1))).await {
        Err(_) => {}
        Ok(locks) => match within(PROMPT, "a try on a read-only store", locks.lock(&name).try_acquire())
            .await?
        {
            Ok(outcome) => {
                return Err(Failure::new(format!(
                    "a store that can't be written answered {:?}",
                    outcome.map(drop)
                )));
            }
            Err(error) => check!(KINDS.contains(&error.kind()), "expected one of {KINDS:?}, got {error:?}"),
        },
    }
    space.heal(Fault::ReadOnly).await?;
    let locks = space.connect().await?;
    becomes_free(&locks, &name, PROMPT).await
}
