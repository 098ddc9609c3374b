//! The report of real runs of the kit on backends that are broken on purpose, opened in a real browser.

#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use locks_conformance::broken;

/// Set in the processes that are to behave like a backend's test binary.
const AS_A_KIT: &str = "REPORT_TEST_AS_A_KIT";

/// A store that grants everything, seen by a case and by the checker of histories, and its correct twin.
const RUNS: [&str; 4] = [
    "no-op-lock::exclusive::two_instances_exclude_each_other",
    "no-op-lock::faults::lost_messages_do_no_harm",
    "sound::exclusive::two_instances_exclude_each_other",
    "sound-flock::crash::a_killed_holder_frees_the_lock",
];

/// How often a broken backend may get away with it.
const TRIES: usize = 5;

fn main() -> ExitCode {
    let suite = broken::suite();
    if let Some(code) = suite.play_role() {
        return code;
    }
    if std::env::var_os(AS_A_KIT).is_some() {
        return suite.main();
    }
    let trials = vec![
        Trial::test("a_violation_is_drawn_where_it_was_seen", a_violation_is_drawn_where_it_was_seen),
        Trial::test("what_others_wrote_does_nothing", what_others_wrote_does_nothing),
        Trial::test("no_records_are_no_report", no_records_are_no_report),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn a_violation_is_drawn_where_it_was_seen() -> Result<(), Failed> {
    let records = tempfile::tempdir()?;
    for run in RUNS {
        let mut kit = Command::new("/proc/self/exe");
        kit.args(["--exact", run]).env(AS_A_KIT, "1").env("LOCKS_CONFORMANCE_RECORD", records.path());
        let is_broken = run.starts_with("no-op-lock");
        let mut output = kit.output()?;
        // That two tasks of a crowd are inside at once is a matter of chance.
        for _ in 1..TRIES {
            if is_broken && output.status.success() {
                output = kit.output()?;
            }
        }
        let is_right = output.status.success() != is_broken;
        check(is_right, format!("{run}: {}", String::from_utf8_lossy(&output.stdout)))?;
    }
    let said = report(records.path())?;
    for width in [390, 1400] {
        let line = said.lines().find(|line| line.starts_with(&format!("{width} pixels wide: ")));
        let line = line.ok_or_else(|| format!("nothing about {width} pixels in {said}"))?;
        check(!line.contains(" 0 drawings") && !line.contains(" 0 of them"), line)?;
    }
    let html = fs::read_to_string(records.path().join("report.html"))?;
    let case = part(&html, "id=\"c--no-op-lock--exclusive--two_instances_exclude_each_other\"", "</figure>")?;
    check(case.contains("<g class=\"violation\"><title>violation at "), "no violation in the drawing")?;
    check(case.contains("although it is held"), "the drawing does not say what was seen")?;
    check(case.contains("<rect class=\"twice\""), "the drawing does not show that two held at once")?;
    check(case.contains("hold l0 accused"), "the drawing does not show which hold was wrong")?;
    let twin = part(&html, "id=\"c--sound--exclusive--two_instances_exclude_each_other\"", "</details>")?;
    check(!twin.contains("violation"), "a violation where there was none")?;
    let crash = part(&html, "id=\"c--sound-flock--crash--a_killed_holder_frees_the_lock\"", "</figure>")?;
    check(crash.contains("hold l0 died") && crash.contains("class=\"strike\""), "the kill is not drawn")?;
    let json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(records.path().join("report.json"))?)?;
    check(json["records"].as_array().is_some_and(|records| records.len() == RUNS.len()), "not all records")?;
    let took = json["records"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|record| record["case"] == "crash::a_killed_holder_frees_the_lock");
    let takeover = took.map(|record| &record["timeline"]["latencies"]["takeover"]);
    check(takeover.is_some_and(|times| times.as_array().is_some_and(|times| !times.is_empty())), "no latency")
}

/// Everything that a backend, its errors and its locks may say is text.
fn what_others_wrote_does_nothing() -> Result<(), Failed> {
    const NASTY: &str = "</title></script><script>document.title='x'</script><img src=http://x.invalid/y onerror=alert(1)>\"'&\u{1b}";
    let records = tempfile::tempdir()?;
    let directory = records.path().join("harness");
    fs::create_dir(&directory)?;
    let record = serde_json::json!({
        "version": 1, "harness": NASTY, "group": NASTY, "case": NASTY, "about": NASTY, "outcome": "failed", "why": NASTY,
        "twin": NASTY, "runs": 1, "seconds": 0.5,
        "timeline": {
            "length": 100, "locks": [NASTY], "lanes": [{ "process": 1, "instance": 0, "from": 0 }],
            "holds": [{ "lane": 0, "lock": 0, "token": 1, "mode": NASTY, "from": 10, "to": 90, "end": "lost", "reason": NASTY, "waited": 1 }],
            "marks": [{ "on": "line", "number": 0, "name": NASTY, "from": 5, "to": 50 },
                      { "on": "store", "number": 0, "name": NASTY, "from": 70 }],
            "violations": [{ "at": 50, "message": NASTY, "seen_at": NASTY, "lock": 0, "tokens": [1] }],
            "latencies": { "wake": [1], "loss": [2], "takeover": [3] },
            "census": { "before": NASTY, "after": NASTY, "leaks": [NASTY] },
            "recorded": { "holds": 1, "answers": 0, "marks": 2, "beginning_is_missing": true }
        }
    });
    fs::write(directory.join("case.json"), record.to_string())?;
    let said = report(records.path())?;
    check(said.matches(" of them with a violation").count() == 2, &said)?;
    let html = fs::read_to_string(records.path().join("report.html"))?;
    check(html.matches("<script>").count() == 1 && !html.contains("<img"), "something came through as HTML")
}

fn no_records_are_no_report() -> Result<(), Failed> {
    let records = tempfile::tempdir()?;
    let (success, said) = xtask(records.path())?;
    check(!success && said.contains("there is no record in"), said)
}

/// Makes the report of these records and has the browser look at it; what that says.
fn report(records: &Path) -> Result<String, Failed> {
    let (success, said) = xtask(records)?;
    check(success, &said)?;
    for width in [390, 1400] {
        for what in ["matrix", "latencies", "case"] {
            let picture: PathBuf = records.join(format!("report-{width}-{what}.png"));
            check(fs::read(&picture)?.starts_with(b"\x89PNG"), picture.display())?;
        }
    }
    Ok(said)
}

fn xtask(records: &Path) -> Result<(bool, String), Failed> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.args(["conformance", "--pictures", "--records"]).arg(records).output()?;
    let said = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    Ok((output.status.success(), said))
}

/// What stands from `begin` to the next `end`.
fn part<'a>(html: &'a str, begin: &str, end: &str) -> Result<&'a str, Failed> {
    let (_, rest) = html.split_once(begin).ok_or_else(|| format!("no {begin}"))?;
    rest.split_once(end).map(|(part, _)| part).ok_or_else(|| format!("no {end} behind {begin}").into())
}

fn check(holds: bool, what: impl std::fmt::Display) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.to_string().into()) }
}
