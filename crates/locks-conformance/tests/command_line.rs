//! What a test binary made with the kit says and how it exits.

#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};

use libtest_mimic::{Arguments, Failed, Trial};
use locks_conformance::record::{End, Hold, Record};
use locks_conformance::{Outcome, broken, cases};

/// Set in the processes that are to behave like a backend's test binary.
const AS_A_KIT: &str = "COMMAND_LINE_TEST_AS_A_KIT";

const PASSING: &str = "sound::names::look_alikes_are_different_locks";
const FAILING: &str = "no-op-lock::exclusive::two_instances_exclude_each_other";
const KILLING: &str = "sound-flock::crash::a_killed_holder_frees_the_lock";
const IGNORED: &str = "sound::process::another_process_is_kept_out";

fn main() -> ExitCode {
    let suite = broken::suite();
    if let Some(code) = suite.play_role() {
        return code;
    }
    if std::env::var_os(AS_A_KIT).is_some() {
        return suite.main();
    }
    let trials = vec![
        Trial::test("lists_every_case_once_a_line", lists_every_case_once_a_line),
        Trial::test("exits_with_failure_if_a_case_fails", exits_with_failure_if_a_case_fails),
        Trial::test("takes_no_case_for_a_failure", takes_no_case_for_a_failure),
        Trial::test("lets_other_binaries_have_their_filters", lets_other_binaries_have_their_filters),
        Trial::test("reports_in_json", reports_in_json),
        Trial::test("records_what_happened", records_what_happened),
        Trial::test("refuses_nonsense", refuses_nonsense),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn kit(arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).env(AS_A_KIT, "1");
    for variable in ["LOCKS_CONFORMANCE_JSON", "LOCKS_CONFORMANCE_REPEAT", "LOCKS_CONFORMANCE_RECORD"] {
        command.env_remove(variable);
    }
    command
}

fn run(arguments: &[&str]) -> Result<(bool, String), Failed> {
    let Output { status, stdout, stderr } = kit(arguments).output()?;
    let said = String::from_utf8(stdout)? + &String::from_utf8(stderr)?;
    Ok((status.success(), said))
}

fn check(holds: bool, what: impl std::fmt::Display) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.to_string().into()) }
}

fn lists_every_case_once_a_line() -> Result<(), Failed> {
    let output = kit(&["--list", "--format", "terse"]).output()?;
    let listed = String::from_utf8(output.stdout)?;
    let names: Option<Vec<&str>> = listed.lines().map(|line| line.strip_suffix(": test")).collect();
    let Some(names) = names else { return Err(format!("not only names: {listed}").into()) };
    let of_one: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("sound::")).collect();
    check(of_one == cases().map(|case| case.id()).collect::<Vec<_>>(), format!("{of_one:?}"))?;
    check(output.stderr.is_empty() && output.status.success(), "listing said more or failed")
}

fn exits_with_failure_if_a_case_fails() -> Result<(), Failed> {
    let (success, said) = run(&["--exact", FAILING])?;
    check(!success && said.contains("although it is held"), said)?;
    let (success, said) = run(&["--exact", PASSING])?;
    check(success && said.contains("1 passed"), said)
}

fn takes_no_case_for_a_failure() -> Result<(), Failed> {
    let (success, said) = run(&["--exact", IGNORED])?;
    check(!success && said.contains("no case was run"), &said)?;
    check(said.contains("process::one_process_offers_no_others runs instead"), &said)?;
    // Asking for it by force does not make it run either.
    let (success, said) = run(&["--exact", IGNORED, "--include-ignored"])?;
    check(!success && said.contains("no case was run"), said)
}

fn lets_other_binaries_have_their_filters() -> Result<(), Failed> {
    let (success, said) = run(&["a_test_of_another_binary"])?;
    check(success, said)?;
    let report = report_file("nothing");
    let (success, said) = run(&["a_test_of_another_binary", "--json", &report.display().to_string()])?;
    check(!success && said.contains("no case was run"), said)
}

fn reports_in_json() -> Result<(), Failed> {
    let path = report_file("report");
    let report = path.display().to_string();
    for (case, repeats) in [(PASSING, "3"), (FAILING, "1"), (IGNORED, "1")] {
        kit(&["--exact", case, "--json", &report]).env("LOCKS_CONFORMANCE_REPEAT", repeats).output()?;
    }
    let lines = std::fs::read_to_string(&path)?;
    std::fs::remove_file(&path)?;
    let lines: Vec<&str> = lines.lines().collect();
    let expected = [
        ["\"harness\":\"sound\"", "\"outcome\":\"passed\"", "\"runs\":3"],
        ["\"harness\":\"no-op-lock\"", "\"outcome\":\"failed\",\"why\":\"", "\"runs\":1"],
        ["\"harness\":\"sound\"", "\"outcome\":\"ignored\",\"why\":\"needs locks that reach", "\"runs\":0"],
    ];
    check(lines.len() == expected.len(), format!("{lines:?}"))?;
    for (line, parts) in lines.iter().zip(expected) {
        check(parts.iter().all(|part| line.contains(part)), line)?;
    }
    Ok(())
}

fn records_what_happened() -> Result<(), Failed> {
    let dir = std::env::temp_dir().join(format!("command-line-records-{}", std::process::id()));
    for case in [KILLING, FAILING, IGNORED] {
        kit(&["--exact", case]).env("LOCKS_CONFORMANCE_RECORD", &dir).output()?;
    }
    let record = |path: &str| -> Result<Record, Failed> {
        Ok(serde_json::from_slice(&std::fs::read(dir.join(path))?)?)
    };
    let killing = record("sound-flock/crash--a_killed_holder_frees_the_lock.json")?;
    let failing = record("no-op-lock/exclusive--two_instances_exclude_each_other.json")?;
    let ignored = record("sound/process--another_process_is_kept_out.json")?;
    let progress = std::fs::read_to_string(dir.join("progress.jsonl"))?;
    // The lines of the processes are gone with what was made of them.
    let left = std::fs::read_dir(dir.join("sound-flock"))?.count();
    std::fs::remove_dir_all(&dir)?;

    let timeline = killing.timeline.ok_or("nothing is told of a case that ran")?;
    let died: Vec<&Hold> = timeline.holds.iter().filter(|hold| hold.end == End::Died).collect();
    let kills: Vec<_> = timeline.marks.iter().filter(|mark| mark.name == "killed").collect();
    check(
        killing.outcome == Outcome::Passed && died.len() == 2 && kills.len() == 2,
        format!("{timeline:?}"),
    )?;
    for (hold, kill) in died.iter().zip(kills) {
        let next = timeline.holds.iter().find(|next| next.from >= kill.from);
        check(
            hold.to == Some(kill.from) && next.is_some_and(|next| next.token > hold.token),
            "not as it was",
        )?;
    }
    check(timeline.latencies.takeover.len() == 2, "how long it took is missing")?;
    check(timeline.census.is_some_and(|census| census.leaks.is_empty()), "no census")?;

    let timeline = failing.timeline.ok_or("nothing is told of a case that failed")?;
    let seen = timeline.violations.first().ok_or("no violation in a case that failed")?;
    let accused = timeline.holds.iter().find(|hold| seen.tokens.contains(&hold.token));
    let accused = accused.ok_or("the hold that was one too many is missing")?;
    let others = timeline.holds.iter().filter(|hold| hold.token != accused.token);
    let is_beside = |hold: &&Hold| hold.lock == accused.lock && hold.to.is_none_or(|to| to > accused.from);
    check(others.filter(is_beside).count() == 1 && seen.at >= accused.from, format!("{timeline:?}"))?;

    check(ignored.timeline.is_none() && ignored.twin.is_some(), "a case that was left out")?;
    check(left == 1, format!("{left} files instead of the record"))?;
    let told = |word: &str| progress.lines().filter(|line| line.contains(&format!("\"{word}\""))).count();
    check((told("planned"), told("began"), told("ended")) == (3, 2, 3), progress)
}

fn refuses_nonsense() -> Result<(), Failed> {
    let (success, said) = run(&["--json"])?;
    check(!success && said.contains("--json needs the file"), said)?;
    let output = kit(&["--exact", PASSING]).env("LOCKS_CONFORMANCE_REPEAT", "many").output()?;
    let said = String::from_utf8(output.stderr)?;
    check(!output.status.success() && said.contains("must be a number above zero"), said)
}

fn report_file(tag: &str) -> PathBuf {
    std::env::temp_dir().join(format!("command-line-{tag}-{}.jsonl", std::process::id()))
}
