//! The kit tried on itself: every backend that is broken on purpose is rejected by the case meant for it, and
//! every correct twin passes all cases.

#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "the list of what was rejected is for people and for xtask")]

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use locks_conformance::broken::{self, Defect, TWINS};
use locks_conformance::{Outcome, Suite, cases};

fn main() -> ExitCode {
    let suite = Arc::new(broken::suite());
    if let Some(code) = suite.play_role() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    let mut trials = Vec::new();
    for defect in Defect::ALL {
        let suite = Arc::clone(&suite);
        trials.push(Trial::test(format!("rejects::{}", defect.harness()), move || rejects(&suite, defect)));
    }
    for twin in TWINS {
        for case in cases() {
            let suite = Arc::clone(&suite);
            let name = format!("passes::{twin}::{}", case.id());
            trials.push(Trial::ignorable_test(name, move || passes(&suite, twin, case.id())));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn rejects(suite: &Suite, defect: Defect) -> Result<(), Failed> {
    let (harness, case) = (defect.harness(), defect.rejected_by());
    let seen = suite.reject(harness, case, defect.twin())?;
    // The test harness has begun a line with the test's name.
    println!("\nbroken: {harness} rejected by {case}\n  {seen}");
    Ok(())
}

fn passes(suite: &Suite, twin: &str, case: &str) -> Result<Completion, Failed> {
    let report = suite.run(twin, case);
    match report.outcome {
        Outcome::Passed => Ok(Completion::Completed),
        Outcome::Ignored(why) => Ok(Completion::ignored_with(why)),
        _ => Err(report.to_string().into()),
    }
}
