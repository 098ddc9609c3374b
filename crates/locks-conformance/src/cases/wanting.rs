//! Asking for locks of any kind, and what must come of it.

use std::time::Duration;

use locks_api::Locks;
use tokio::task::JoinHandle;

use crate::kind::{Held, Want};
use crate::space::PROMPT;
use crate::verdict::{Failure, Verdict, check, pause_for, within};

/// What can be had at once.
pub(super) async fn has(locks: &Locks, want: &Want) -> Verdict<Held> {
    let tried = within(PROMPT, "a try", want.try_acquire(locks)).await??;
    tried.ok_or_else(|| Failure::new(format!("{want:?} can't be had although nothing is in the way")))
}

/// Fails if it can be had now.
pub(super) async fn is_refused(locks: &Locks, want: &Want) -> Verdict {
    match within(PROMPT, "a try", want.try_acquire(locks)).await?? {
        None => Ok(()),
        Some(held) => Err(Failure::new(format!(
            "{want:?} was granted under token {} although something is in the way",
            held.token()
        ))),
    }
}

/// Waits until it can't be had any more: what is in the way is only just coming. From then on it has to stay so.
pub(super) async fn becomes_refused(locks: &Locks, want: &Want) -> Verdict {
    let refused = async {
        while let Some(held) = want.try_acquire(locks).await? {
            held.release().await?;
            pause_for(Duration::from_millis(1)).await;
        }
        Verdict::Ok(())
    };
    within(PROMPT, "the refusal of a try", refused).await??;
    for _ in 0..5 {
        pause_for(Duration::from_millis(2)).await;
        is_refused(locks, want).await?;
    }
    Ok(())
}

/// Waits until it can be had, and gives it back.
pub(super) async fn becomes_free_for(locks: &Locks, want: &Want, limit: Duration) -> Verdict {
    within(limit + PROMPT, "a wait", want.acquire_timeout(locks, limit)).await??.release().await?;
    Ok(())
}

/// A wait that goes on by itself.
pub(super) type Wait = JoinHandle<locks_api::Result<Held>>;

/// Begins to wait for it.
pub(super) fn begin(locks: &Locks, want: &Want) -> Wait {
    let (locks, want) = (locks.clone(), want.clone());
    tokio::spawn(async move { want.acquire(&locks).await })
}

/// Fails if the wait is over. It is given a moment to get as far as it gets.
pub(super) async fn still_waits(wait: &Wait, why: &str) -> Verdict {
    pause_for(Duration::from_millis(20)).await;
    check!(!wait.is_finished(), "a wait ended {why}");
    Ok(())
}

/// What the wait gets.
pub(super) async fn gets(wait: Wait, limit: Duration, when: &str) -> Verdict<Held> {
    let held = within(limit, when, wait).await???;
    check!(held.is_held(), "{when}: granted and not held");
    Ok(held)
}
