//! Redis locks that are broken on purpose, which the conformance kit must reject by the case meant for each, and their correct twins.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "the list of what was rejected is for people and for xtask")]

mod space;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use locks_conformance::Suite;
use space::{Making, Sound, Space};

/// Gives back whatever holds the lock: nobody asks who.
struct NoOwnerCheck;

impl Making for NoOwnerCheck {
    const NAME: &'static str = "redis-no-owner-check";

    fn edit(script: &str) -> String {
        let script = script.replace("if claim == ARGV[2] and ", "if claim or ");
        let script = script.replace("    if only.claim == claim then", "    if only then");
        script.replace("  return hold and hold.last == last and hold.tokens == tokens", "  return hold")
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
        script.replace("math.min(ends - now, claim.ttl / 3) + 1000", never)
    }
}

/// Lets one more in than there are permits.
struct LimitOffByOne;

impl Making for LimitOffByOne {
    const NAME: &'static str = "redis-limit-off-by-one";

    fn edit(script: &str) -> String {
        script.replace("lock.used + terms.weight <= lock.limit", "lock.used + terms.weight <= lock.limit + 1")
    }
}

/// Keeps the permits as a count, which only a release brings back.
struct BareCount;

impl Making for BareCount {
    const NAME: &'static str = "redis-bare-count";

    fn edit(script: &str) -> String {
        let script = script.replace(
            "    lock.used = lock.used - hold.weight\n",
            "    lock.used = lock.used - (hold.ends > now and hold.weight or 0)\n",
        );
        script.replace("if lock.used > 0 and #call('ZRANGE', ends, '0', '0') == 0 then", "if false then")
    }
}

/// Lets whoever fits pass those who wait and do not.
struct PassesThoseWhoWait;

impl Making for PassesThoseWhoWait {
    const NAME: &'static str = "redis-passes-those-who-wait";

    fn edit(script: &str) -> String {
        script.replace(
            "elseif call('PUBSUB', 'NUMSUB', prefix .. 'e:' .. instance)[2] > 0 then",
            "elseif false then",
        )
    }
}

/// Keeps a minimum hold with the hold, so that it dies with its holder.
struct MinHoldDies;

impl Making for MinHoldDies {
    const NAME: &'static str = "redis-min-hold-dies";

    fn edit(script: &str) -> String {
        script.replace("if only.ends <= now then\n", "if only.ends <= now then\n      lock.not_before = 0\n")
    }
}

/// Lets go for a moment when a writer becomes a reader.
struct DowngradeAnew;

impl Making for DowngradeAnew {
    const NAME: &'static str = "redis-downgrade-anew";

    fn edit(script: &str) -> String {
        script.replace(
            "  lock.only, hold.weight = nil, '1'\n",
            "  lock.only, hold.weight = nil, '1'\n  settle(key, name, lock)\n",
        )
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
const REJECTED: [(&str, &str, &str); 9] = [
    (NoOwnerCheck::NAME, "spi::a_release_hits_only_its_own_claim", Sound::NAME),
    (PlainCounter::NAME, "restart::forgotten_grants_cost_a_pause", Sound::NAME),
    (PushOnly::NAME, "crash::a_killed_holder_frees_the_lock", Sound::NAME),
    (LimitOffByOne::NAME, "semaphore::as_many_as_there_are_permits", Sound::NAME),
    (BareCount::NAME, "crash::a_killed_holder_returns_its_permits", Sound::NAME),
    (PassesThoseWhoWait::NAME, "rw::a_waiting_writer_is_not_passed", Sound::NAME),
    (MinHoldDies::NAME, "schedule::a_minimum_hold_outlives_its_holder", Sound::NAME),
    (DowngradeAnew::NAME, "rw::a_downgrade_passes_no_writer", Sound::NAME),
    (UptimeIsProof::NAME, "restart::forgotten_grants_cost_a_pause", SoundAndFlushed::NAME),
];

fn main() -> ExitCode {
    let suite = Arc::new(
        Suite::new()
            .with::<Space<NoOwnerCheck>>()
            .with::<Space<PlainCounter>>()
            .with::<Space<PushOnly>>()
            .with::<Space<LimitOffByOne>>()
            .with::<Space<BareCount>>()
            .with::<Space<PassesThoseWhoWait>>()
            .with::<Space<MinHoldDies>>()
            .with::<Space<DowngradeAnew>>()
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

fn rejects(suite: &Suite, broken: &str, case: &str, twin: &str) -> Result<(), Failed> {
    let seen = suite.reject(broken, case, twin)?;
    println!("\nbroken: {broken} rejected by {case}\n  {seen}");
    Ok(())
}

/// A flaw whose text is not in the scripts any more would be none.
fn every_flaw_changes_a_script() -> Result<(), Failed> {
    let scripts = [
        include_str!("../src/scripts/epoch_known.lua"),
        include_str!("../src/scripts/lock.lua"),
        include_str!("../src/scripts/queue.lua"),
        include_str!("../src/scripts/claims.lua"),
        include_str!("../src/scripts/acquire.lua"),
        include_str!("../src/scripts/downgrade.lua"),
        include_str!("../src/scripts/open_epoch.lua"),
    ]
    .concat();
    let edits = [
        NoOwnerCheck::edit,
        PlainCounter::edit,
        PushOnly::edit,
        LimitOffByOne::edit,
        BareCount::edit,
        PassesThoseWhoWait::edit,
        MinHoldDies::edit,
        DowngradeAnew::edit,
        UptimeIsProof::edit,
    ];
    for edit in edits {
        if edit(&scripts) == scripts {
            return Err("a flaw changes nothing".into());
        }
    }
    Ok(())
}
