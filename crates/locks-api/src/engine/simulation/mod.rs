//! The engine under a simulated store, network and clock.
//!
//! A seed decides everything: delays, losses, duplicates, pauses, crashes, what callers do and when. Thousands of seeds run
//! in seconds, and a seed that fails is replayed, with a trace, by the command that the failure prints.

mod minimum_hold;
mod process;
mod store;
mod world;

use std::env;

use store::Flaw;
use world::{Plan, World};

/// How many seeds run unless `LOCKS_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 3_000;

fn run(seed: u64, plan: &Plan, trace: bool) -> Result<(), String> {
    World::new(seed, plan.clone(), trace).run()
}

/// Runs every seed, or the one that `LOCKS_SIM_SEED` names.
fn all_seeds(test: &str, plan: &Plan) {
    if let Ok(seed) = env::var("LOCKS_SIM_SEED") {
        let seed = seed.parse().expect("LOCKS_SIM_SEED is a number");
        run(seed, plan, true).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        return;
    }
    let seeds = env::var("LOCKS_SIM_SEEDS")
        .map_or(SEEDS, |count| count.parse().expect("LOCKS_SIM_SEEDS is a number"));
    for seed in 0..seeds {
        if let Err(violation) = run(seed, plan, false) {
            panic!(
                "seed {seed}: {violation}\nreplay with a trace: \
                 LOCKS_SIM_SEED={seed} cargo test -p locks-api --lib {test} -- --nocapture"
            );
        }
    }
    println!("{test}: {seeds} seeds");
}

#[test]
fn a_calm_world() {
    all_seeds("a_calm_world", &Plan::calm());
}

#[test]
fn a_calm_world_without_a_queue() {
    all_seeds("a_calm_world_without_a_queue", &Plan { queue: false, ..Plan::calm() });
}

#[test]
fn a_bad_line() {
    all_seeds("a_bad_line", &Plan::bad_line());
}

#[test]
fn a_bad_line_without_a_queue() {
    all_seeds("a_bad_line_without_a_queue", &Plan { queue: false, ..Plan::bad_line() });
}

#[test]
fn crashes_and_pauses() {
    all_seeds("crashes_and_pauses", &Plan::crashes());
}

#[test]
fn a_store_that_forgets() {
    all_seeds("a_store_that_forgets", &Plan::forgetful());
}

#[test]
fn all_kinds_in_a_calm_world() {
    all_seeds("all_kinds_in_a_calm_world", &Plan { kinds: true, ..Plan::calm() });
}

#[test]
fn all_kinds_without_a_queue() {
    all_seeds("all_kinds_without_a_queue", &Plan { kinds: true, queue: false, ..Plan::bad_line() });
}

#[test]
fn all_kinds_on_a_bad_line() {
    all_seeds("all_kinds_on_a_bad_line", &Plan { kinds: true, ..Plan::bad_line() });
}

#[test]
fn all_kinds_and_a_store_that_forgets() {
    all_seeds("all_kinds_and_a_store_that_forgets", &Plan { kinds: true, crash: 5, ..Plan::forgetful() });
}

/// A checker that never fails proves nothing: each flaw must be found.
#[test]
fn every_flaw_of_a_store_is_found() {
    for flaw in Flaw::ALL {
        let kinds =
            matches!(flaw, Flaw::OnePermitTooMany | Flaw::ReaderBesideWriter | Flaw::ShortMinimumHold);
        // What is left behind counts where nothing gets lost.
        let world = if flaw == Flaw::KeptRelease { Plan::calm() } else { Plan::forgetful() };
        let plan = Plan { flaw: Some(flaw), kinds, ..world };
        let found =
            (0..SEEDS).find_map(|seed| run(seed, &plan, false).err().map(|violation| (seed, violation)));
        let (seed, violation) = found.unwrap_or_else(|| panic!("{flaw:?} was not found in {SEEDS} seeds"));
        assert!(violation.starts_with(flaw.violates()), "{flaw:?} showed as: {violation}");
        println!("{flaw:?}: found at seed {seed}: {violation}");
    }
}

/// The same seed gives the same run, or replaying would be worth nothing.
#[test]
fn a_seed_decides_everything() {
    for seed in 0..50 {
        let traces = [(); 2].map(|()| {
            let mut world = World::new(seed, Plan::forgetful(), false);
            world.run().unwrap();
            world.digest()
        });
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}
