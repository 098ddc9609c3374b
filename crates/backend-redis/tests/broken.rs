//! Redis locks that are broken on purpose, which the conformance kit must reject by the case meant for each, and their correct twins.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "the list of what was rejected is for people and for xtask")]

mod space;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use locks_conformance::{Outcome, Suite};
use space::{Making, Sound, Space};

/// Gives back whatever holds the lock: nobody asks who.
struct NoOwnerCheck;

impl Making for NoOwnerCheck {
    const NAME: &'static str = "redis-no-owner-check";

    fn edit(script: &str) -> String {
        let script = script.replace("if claim == ARGV[2] and ", "if claim or ");
        script.replace("  return lock.claim == claim and ", "  return lock.claim or ")
    }
}

/// Counts tokens from the counter alone, which starts again when the data are lost.
struct PlainCounter;

impl Making for PlainCounter {
    const NAME: &'static str = "redis-plain-counter";

    fn edit(script: &str) -> String {
        script.replace("    first = now\n", "    first = counter + 1\n")
    }
}

/// Trusts the push alone: whoever waits never looks by itself.
struct PushOnly;

impl Making for PushOnly {
    const NAME: &'static str = "redis-push-only";

    fn edit(script: &str) -> String {
        let never = "31536000000000";
        script.replace("math.min(lock.ends - now, ttl / 3) + 1000", never)
    }
}

/// Skips the grace on a server that has been up for long enough.
struct UptimeIsProof;

impl Making for UptimeIsProof {
    const NAME: &'static str = "redis-uptime-is-proof";

    const MAX_TTL: Duration = Duration::from_secs(2);
    const FLUSHED: bool = true;

    fn edit(script: &str) -> String {
        let long_enough = "tonumber(string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)')) * 1000000 < tonumber(cap)";
        script.replace("means == 'grace'", &format!("means == 'grace' and {long_enough}"))
    }
}

/// Loses its data in the same way, and has no flaw.
struct SoundAndFlushed;

impl Making for SoundAndFlushed {
    const NAME: &'static str = "redis-flushed";
    const MAX_TTL: Duration = UptimeIsProof::MAX_TTL;
    const FLUSHED: bool = true;
}

/// A broken backend, the case that must reject it, and its twin.
const REJECTED: [(&str, &str, &str); 4] = [
    (NoOwnerCheck::NAME, "spi::a_release_hits_only_its_own_claim", Sound::NAME),
    (PlainCounter::NAME, "restart::forgotten_grants_cost_a_pause", Sound::NAME),
    (PushOnly::NAME, "crash::a_killed_holder_frees_the_lock", Sound::NAME),
    (UptimeIsProof::NAME, "restart::forgotten_grants_cost_a_pause", SoundAndFlushed::NAME),
];

fn main() -> ExitCode {
    let suite = Arc::new(
        Suite::new()
            .with::<Space<NoOwnerCheck>>()
            .with::<Space<PlainCounter>>()
            .with::<Space<PushOnly>>()
            .with::<Space<UptimeIsProof>>()
            .with::<Space<Sound>>()
            .with::<Space<SoundAndFlushed>>(),
    );
    if let Some(code) = suite.play_role() {
        return code;
    }
    let mut trials = vec![Trial::test("every_flaw_changes_a_script", every_flaw_changes_a_script)];
    for (broken, case, twin) in REJECTED {
        let suite = Arc::clone(&suite);
        trials.push(Trial::test(format!("rejects::{broken}"), move || rejects(&suite, broken, case, twin)));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A flaw that needs a moment to show, as one that a renewal may hide, has so many runs to.
const RUNS: usize = 5;

fn rejects(suite: &Suite, broken: &str, case: &str, twin: &str) -> Result<(), Failed> {
    let mut outcomes = (0..RUNS).map(|_| suite.run(broken, case).outcome);
    let seen = match outcomes.find(|outcome| *outcome != Outcome::Passed) {
        Some(Outcome::Failed(why)) if why.contains("seen at") => {
            why.lines().next().unwrap_or_default().to_owned()
        }
        other => return Err(format!("{case} did not reject {broken}: {other:?}").into()),
    };
    let twin = suite.run(twin, case);
    if twin.outcome != Outcome::Passed {
        return Err(format!("the correct twin did not pass: {twin}").into());
    }
    println!("\nbroken: {broken} rejected by {case}\n  {seen}");
    Ok(())
}

/// A flaw whose text is not in the scripts any more would be none.
fn every_flaw_changes_a_script() -> Result<(), Failed> {
    let scripts = [
        include_str!("../src/scripts/epoch_known.lua"),
        include_str!("../src/scripts/lock.lua"),
        include_str!("../src/scripts/acquire.lua"),
        include_str!("../src/scripts/open_epoch.lua"),
    ]
    .concat();
    for edit in [NoOwnerCheck::edit, PlainCounter::edit, PushOnly::edit, UptimeIsProof::edit] {
        if edit(&scripts) == scripts {
            return Err("a flaw changes nothing".into());
        }
    }
    Ok(())
}
