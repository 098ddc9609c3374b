//! One case in a process of its own, and what it may leave behind: nothing.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::cases::Case;
use crate::census::Census;
use crate::harness::{AnyHarness, Profile};
use crate::recording::{self, What};
use crate::space::{PROMPT, Space};
use crate::verdict::{Verdict, within};

/// How long one run may take with all that follows it.
pub(crate) fn longest(case: &Case) -> Duration {
    // Locks of killed processes may take their ttl to become free.
    case.time_limit() + PROMPT * 4
}

/// Runs the case so many times, each in a lock space with names of its own.
pub(crate) async fn run(
    case: &Case,
    harness: &Arc<dyn AnyHarness>,
    profile: &Profile,
    repeats: u32,
) -> Verdict {
    warm_up(&Space::new(Arc::clone(harness), profile.clone())).await?;
    for run in 1..=repeats {
        if let Err(failure) = once(case, Space::new(Arc::clone(harness), profile.clone())).await {
            failure.record();
            return Err(failure.while_doing(format!("run {run} of {repeats}")));
        }
    }
    Ok(())
}

async fn once(case: &Case, space: Space) -> Verdict {
    let before = Census::take()?;
    recording::note(|| What::Began);
    within(case.time_limit(), "the case", case.run(space.clone())).await??;
    recording::note(|| What::Over);
    space
        .all_is_free()
        .await
        .map_err(|failure| failure.while_doing("looking at the locks after the case"))?;
    before.settles(PROMPT).await.map_err(|failure| failure.while_doing("the census after the case"))
}

/// Uses everything once, so that what a process keeps for good is there before anything is counted.
async fn warm_up(space: &Space) -> Verdict {
    let name = space.name("warm-up");
    let (one, two) = (space.connect().await?, space.connect().await?);
    let guard = within(PROMPT, "the first acquisition", one.lock(&name).acquire()).await??;
    // Whether it times out or is granted is no matter here.
    let waited = two.lock(&name).acquire_timeout(Duration::from_millis(10)).await;
    drop((waited, guard));
    one.close().await?;
    two.close().await?;
    Ok(())
}

/// Says to the parent what came of it.
#[expect(clippy::print_stderr, reason = "the parent reads it")]
pub(crate) fn exit_code(outcome: &Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
