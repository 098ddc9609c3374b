//! PostgreSQL locks that are broken on purpose, which the conformance kit must reject by the case meant for each, and their correct twin.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "the list of what was rejected is for people and for xtask")]

mod space;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use locks_conformance::Suite;
use space::{Making, Sound, Space};

/// Gives back whatever holds the lock: nobody asks who.
struct NoOwnerCheck;

impl Making for NoOwnerCheck {
    const NAME: &'static str = "postgres-no-owner-check";

    fn edit(sql: &str) -> String {
        let sql = sql.replace(" AND l.claim = $2 AND l.counter = $3 AND l.tokens = $4\n", "\n").replace(
            "l.claim = $2 AND l.counter = $3 AND l.tokens = $4 AND NOT l.scheduled",
            "NOT l.scheduled",
        );
        sql.replace(
            "  ELSIF l.mode = 'X' AND l.claim = p_claim AND l.counter = p_last AND l.tokens = p_tokens THEN\n    was_held",
            "  ELSIF l.mode = 'X' THEN\n    was_held",
        )
    }
}

/// Counts tokens from the counter alone, which starts again when the data are lost.
struct PlainCounter;

impl Making for PlainCounter {
    const NAME: &'static str = "postgres-plain-counter";

    fn edit(sql: &str) -> String {
        sql.replace("greatest(l.counter + 1, now)", "l.counter + 1")
    }
}

/// Trusts the push alone: whoever waits never looks by itself.
struct PushOnly;

impl Making for PushOnly {
    const NAME: &'static str = "postgres-push-only";

    fn edit(sql: &str) -> String {
        sql.replace("      ) + 1000;\n", "      ) + 31536000000000;\n")
            .replace(" + 1000 AS micros", " + 31536000000000 AS micros")
    }
}

/// Lets one more in than there are permits.
struct LimitOffByOne;

impl Making for LimitOffByOne {
    const NAME: &'static str = "postgres-limit-off-by-one";

    fn edit(sql: &str) -> String {
        sql.replace("l.used + p_weight <= l.lim", "l.used + p_weight <= l.lim + 1")
    }
}

/// Keeps the permits as a count, which only a release brings back.
struct BareCount;

impl Making for BareCount {
    const NAME: &'static str = "postgres-bare-count";

    fn edit(sql: &str) -> String {
        sql.replace(
            "DELETE FROM @hold WHERE name = l.name AND ends <= now RETURNING * LOOP",
            "SELECT * FROM @hold WHERE false LOOP",
        )
    }
}

/// Lets whoever fits pass those who wait and do not.
struct PassesThoseWhoWait;

impl Making for PassesThoseWhoWait {
    const NAME: &'static str = "postgres-passes-those-who-wait";

    fn edit(sql: &str) -> String {
        sql.replace("    IF r.blocked THEN\n", "    IF false THEN\n")
    }
}

/// Keeps a minimum hold with the hold, so that it dies with its holder.
struct MinHoldDies;

impl Making for MinHoldDies {
    const NAME: &'static str = "postgres-min-hold-dies";

    fn edit(sql: &str) -> String {
        sql.replace(
            "    IF l.ends <= now THEN\n",
            "    IF l.ends <= now THEN\n      DELETE FROM @schedule WHERE name = l.name;\n",
        )
    }
}

/// Grants at once after a crash, as if a database that has just come up had forgotten nothing.
struct NoGrace;

impl Making for NoGrace {
    const NAME: &'static str = "postgres-no-grace";

    fn edit(sql: &str) -> String {
        sql.replace("WHEN 'grace' THEN now + (SELECT m.max_ttl FROM @meta AS m)", "WHEN 'grace' THEN now")
    }
}

/// Takes the record of another life of the database for its own: a restored copy, a promoted standby.
struct AnyRecordWillDo;

impl Making for AnyRecordWillDo {
    const NAME: &'static str = "postgres-any-record-will-do";
    const DURABLE: bool = true;

    fn edit(sql: &str) -> String {
        let sql = sql.replace(
            "s.xmin = s.written_by AND s.started = pg_catalog.pg_postmaster_start_time()\n      INTO",
            "s.id <> 0\n      INTO",
        );
        let sql = sql
            .replace("AND e.xmin = e.written_by AND e.started = pg_catalog.pg_postmaster_start_time() ", "");
        sql.replace(" AND xmin = written_by AND started = pg_catalog.pg_postmaster_start_time()", "")
    }
}

/// Keeps its grants on disk in the same way, and has no flaw.
struct SoundAndDurable;

impl Making for SoundAndDurable {
    const NAME: &'static str = "postgres-durable";
    const DURABLE: bool = true;
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
    (NoGrace::NAME, "restart::forgotten_grants_cost_a_pause", Sound::NAME),
    (AnyRecordWillDo::NAME, "restart::a_promotion_makes_no_second_holder", SoundAndDurable::NAME),
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
            .with::<Space<NoGrace>>()
            .with::<Space<AnyRecordWillDo>>()
            .with::<Space<Sound>>()
            .with::<Space<SoundAndDurable>>(),
    );
    if let Some(code) = suite.play_role() {
        return code;
    }
    let mut trials = vec![Trial::test("every_flaw_changes_the_sql", every_flaw_changes_the_sql)];
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

/// A flaw whose text is not in the SQL any more would be none.
fn every_flaw_changes_the_sql() -> Result<(), Failed> {
    let sql = [
        include_str!("../src/sql/parts.sql"),
        include_str!("../src/sql/steps.sql"),
        include_str!("../src/sql/acquire_free.sql"),
        include_str!("../src/sql/queue_up.sql"),
        include_str!("../src/sql/release_free.sql"),
        include_str!("../src/sql/hand_on.sql"),
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
        NoGrace::edit,
        AnyRecordWillDo::edit,
    ];
    for edit in edits {
        if edit(&sql) == sql {
            return Err("a flaw changes nothing".into());
        }
    }
    Ok(())
}
