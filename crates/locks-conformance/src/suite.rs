//! Which backends are tried, and what each process of the test binary does.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use locks_api::Locks;
use tokio::runtime::{Builder, Runtime};

use crate::cases::{Case, cases};
use crate::harness::{AnyHarness, Harness, Profile, SetupError};
use crate::record::Writer;
use crate::recording;
use crate::report::{self, CaseReport, Outcome};
use crate::roles::Role;
use crate::solo;
use crate::supervise::supervise;
use crate::worker;

/// How often each case is run.
const REPEAT: &str = "LOCKS_CONFORMANCE_REPEAT";

/// How many cases run at the same time: most of them wait most of the time.
const AT_A_TIME: &str = "LOCKS_CONFORMANCE_AT_A_TIME";

/// Where the JSON report goes.
const JSON: &str = "LOCKS_CONFORMANCE_JSON";

/// A harness with the runtime that keeps it going, or why there is none.
type Started = Result<(Runtime, Arc<dyn AnyHarness>), String>;

type Setup = Pin<Box<dyn Future<Output = Result<Arc<dyn AnyHarness>, SetupError>> + Send>>;

/// The backends that a test binary tries. [`main!`](crate::main) makes one; use it yourself to look at results one by one.
#[derive(Default)]
pub struct Suite {
    entries: Vec<Arc<Entry>>,
}

/// One backend under test.
struct Entry {
    profile: Profile,
    start: fn() -> Setup,
    attach: fn(String) -> Setup,
    /// What the parent has started.
    started: OnceLock<Started>,
}

impl Suite {
    /// A suite that tries nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same suite, which also tries this backend.
    ///
    /// # Panics
    ///
    /// If a harness of the same [name](Harness::NAME) is there already.
    #[must_use]
    pub fn with<H: Harness>(mut self) -> Self {
        assert!(self.entry(H::NAME).is_none(), "two harnesses are called {:?}", H::NAME);
        self.entries.push(Arc::new(Entry {
            profile: Profile::of::<H>(),
            start: || Box::pin(async { Ok(Arc::new(H::start().await?) as Arc<dyn AnyHarness>) }),
            attach: |url| {
                Box::pin(async move { Ok(Arc::new(H::attach(&url).await?) as Arc<dyn AnyHarness>) })
            },
            started: OnceLock::new(),
        }));
        self
    }

    /// What the `main` of a test binary does: plays the role that another process of the binary gave this one, or runs
    /// the cases that the command line asks for, with the arguments of the standard test harness and `--json FILE`.
    ///
    /// It fails if a case fails, and if none was run, except where a filter, as `cargo test` hands it to all test
    /// binaries, matches nothing here and no report is asked for.
    #[expect(clippy::print_stderr, reason = "the report is for a terminal")]
    pub fn main(&self) -> ExitCode {
        if let Some(code) = self.play_role() {
            return code;
        }
        let (arguments, json, repeats) = match command_line() {
            Ok(parsed) => parsed,
            Err(complaint) => {
                eprintln!("{complaint}");
                return ExitCode::from(2);
            }
        };
        let reports = Arc::new(Mutex::new(Vec::new()));
        let trials = self.trials(repeats, &reports);
        if arguments.list {
            return libtest_mimic::run(&arguments, trials).exit_code();
        }
        let asked_for = trials.iter().filter(|trial| !arguments.is_filtered_out(trial)).count();
        if let Err(error) = self.note_planned(&arguments, &trials) {
            eprintln!("can't write the plan of the run: {error}");
            return ExitCode::FAILURE;
        }
        self.note_ignored(&arguments, &trials, &reports);
        let conclusion = libtest_mimic::run(&arguments, trials);
        let reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
        for report in reports.iter().filter(|report| matches!(report.outcome, Outcome::Ignored(_))) {
            eprintln!("{report}");
        }
        if let Some(path) = &json {
            for report in reports.iter() {
                if let Err(error) = report::append(path, report) {
                    eprintln!("can't write the report to {}: {error}", path.display());
                    return ExitCode::FAILURE;
                }
            }
        }
        let run = conclusion.num_passed + conclusion.num_failed;
        let matches_nothing = asked_for == 0 && arguments.filter.is_some() && json.is_none();
        if run == 0 && !matches_nothing {
            eprintln!("no case was run, which proves nothing: taken for a failure");
            return ExitCode::FAILURE;
        }
        conclusion.exit_code()
    }

    /// If another process of the binary gave this one a role, plays it, and returns the code to exit with.
    pub fn play_role(&self) -> Option<ExitCode> {
        let role = Role::of_this_process()?;
        let outcome = recording::begin().and_then(|()| match &role {
            Role::Case { harness, case, repeats, url } => {
                self.run_here(harness, case, *repeats, url.as_deref())
            }
            Role::Worker { harness, url } => self.serve_here(harness, url),
        });
        Some(solo::exit_code(&outcome))
    }

    /// Runs one case against one backend, once, in a process of its own.
    ///
    /// # Panics
    ///
    /// If there is no such harness or case.
    pub fn run(&self, harness: &str, case: &str) -> CaseReport {
        let entry = self.entry(harness).unwrap_or_else(|| panic!("no harness is called {harness:?}"));
        let case =
            cases().find(|other| other.id() == case).unwrap_or_else(|| panic!("no case is called {case:?}"));
        entry.run(case, 1)
    }

    /// Shows that a case rejects a backend that is broken on purpose, and passes its correct twin. What it saw, in one line.
    ///
    /// A flaw may need a moment to show, as one that a renewal may hide: the case is run up to five times.
    ///
    /// # Errors
    ///
    /// In words, if the case passes all the same, fails without having seen a promise broken, or fails on the twin.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    pub fn reject(&self, broken: &str, case: &str, twin: &str) -> Result<String, String> {
        const RUNS: usize = 5;
        let mut outcomes = (0..RUNS).map(|_| self.run(broken, case).outcome);
        let seen = match outcomes.find(|outcome| *outcome != Outcome::Passed) {
            Some(Outcome::Failed(why)) if why.contains("seen at") => {
                why.lines().next().unwrap_or_default().to_owned()
            }
            other => return Err(format!("{case} did not reject {broken}: {other:?}")),
        };
        let twin = self.run(twin, case);
        if twin.outcome != Outcome::Passed {
            return Err(format!("the correct twin did not pass: {twin}"));
        }
        Ok(seen)
    }

    fn entry(&self, harness: &str) -> Option<&Arc<Entry>> {
        self.entries.iter().find(|entry| entry.profile.name == harness)
    }

    /// All cases against all backends, for the test harness.
    fn trials(&self, repeats: u32, reports: &Arc<Mutex<Vec<CaseReport>>>) -> Vec<Trial> {
        let mut trials = Vec::new();
        for entry in &self.entries {
            for case in cases() {
                let ignored = case.ignored(&entry.profile).is_some();
                let (entry, reports) = (Arc::clone(entry), Arc::clone(reports));
                let name = format!("{}::{}", entry.profile.name, case.id());
                let trial = Trial::ignorable_test(name, move || {
                    let report = entry.run(case, repeats);
                    let outcome = report.outcome.clone();
                    if !matches!(outcome, Outcome::Ignored(_)) {
                        reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                    }
                    match outcome {
                        Outcome::Passed => Ok(Completion::Completed),
                        Outcome::Ignored(why) => Ok(Completion::ignored_with(why)),
                        Outcome::Failed(why) => Err(Failed::from(why)),
                    }
                });
                trials.push(trial.with_ignored_flag(ignored));
            }
        }
        trials
    }

    /// Reports what is asked for and can't be run, with the reason.
    fn note_ignored(&self, arguments: &Arguments, trials: &[Trial], reports: &Mutex<Vec<CaseReport>>) {
        let all = self.entries.iter().flat_map(|entry| cases().map(move |case| (entry, case)));
        let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
        for ((entry, case), trial) in all.zip(trials) {
            if let Some(why) = case.ignored(&entry.profile)
                && !arguments.is_filtered_out(trial)
            {
                reports.push(entry.report(case, Outcome::Ignored(why), 0, Duration::ZERO));
            }
        }
    }

    /// Tells whoever follows the run what will come.
    fn note_planned(&self, arguments: &Arguments, trials: &[Trial]) -> std::io::Result<()> {
        let mut trials = trials.iter();
        for entry in &self.entries {
            let asked_for =
                cases().zip(trials.by_ref()).filter(|(_, trial)| !arguments.is_filtered_out(trial));
            let planned: Vec<String> = asked_for.map(|(case, _)| case.id().to_owned()).collect();
            if !planned.is_empty() {
                Writer::from_env().planned(entry.profile.name, planned)?;
            }
        }
        Ok(())
    }

    fn run_here(&self, harness: &str, case: &str, repeats: u32, url: Option<&str>) -> Result<(), String> {
        let entry = self.entry(harness).ok_or("no such harness")?;
        let case = cases().find(|other| other.id() == case).ok_or("no such case")?;
        let runtime = runtime()?;
        runtime.block_on(async {
            let harness = match url {
                Some(url) => (entry.attach)(url.to_owned()).await,
                None => (entry.start)().await,
            };
            let harness = harness.map_err(|error| unavailable(&entry.profile, &error))?;
            solo::run(case, &harness, &entry.profile, repeats).await.map_err(|failure| failure.to_string())
        })
    }

    fn serve_here(&self, harness: &str, url: &str) -> Result<(), String> {
        let entry = self.entry(harness).ok_or("no such harness")?;
        let runtime = runtime()?;
        let (harness, backend) = runtime
            .block_on(async {
                let harness = (entry.attach)(url.to_owned()).await?;
                let backend = harness.connect().await?;
                Ok((harness, backend))
            })
            .map_err(|error: SetupError| unavailable(&entry.profile, &error))?;
        let served = worker::serve(&Locks::new(backend), &runtime).map_err(|error| error.to_string());
        drop(harness);
        served
    }
}

impl std::fmt::Debug for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| entry.profile.name)).finish()
    }
}

impl Entry {
    fn run(&self, case: &'static Case, repeats: u32) -> CaseReport {
        if let Some(why) = case.ignored(&self.profile) {
            return self.report(case, Outcome::Ignored(why), 0, Duration::ZERO);
        }
        let began = Instant::now();
        let outcome = match self.run_in_a_process(case, repeats) {
            Ok(()) => Outcome::Passed,
            Err(why) => Outcome::Failed(why),
        };
        self.report(case, outcome, repeats, began.elapsed())
    }

    fn run_in_a_process(&self, case: &Case, repeats: u32) -> Result<(), String> {
        let url = match case.is_alone() {
            // Its process starts a space of its own.
            true => None,
            false => self.started().as_ref().map_err(Clone::clone)?.1.worker_url(),
        };
        let role =
            Role::Case { harness: self.profile.name.to_owned(), case: case.id().to_owned(), repeats, url };
        let mut command = role.command();
        Writer::from_env().begin(self.profile.name, case, &mut command).map_err(|error| no_record(&error))?;
        // The case ends itself in time unless even its runtime hangs.
        supervise(command, solo::longest(case) * repeats + Duration::from_secs(10))
    }

    fn started(&self) -> &Started {
        self.started.get_or_init(|| {
            let runtime = runtime()?;
            let harness =
                runtime.block_on((self.start)()).map_err(|error| unavailable(&self.profile, &error))?;
            Ok((runtime, harness))
        })
    }

    /// The report of a case, of which the record is written as well, if there is to be one.
    fn report(&self, case: &Case, outcome: Outcome, runs: u32, took: Duration) -> CaseReport {
        let mut report = CaseReport {
            harness: self.profile.name.to_owned(),
            case: case.id().to_owned(),
            outcome,
            runs,
            seconds: took.as_secs_f64(),
        };
        let twin = case.twin_for(&self.profile);
        if let Err(error) = Writer::from_env().end(&report, case, twin) {
            report.outcome = Outcome::Failed(no_record(&error));
        }
        report
    }
}

fn no_record(error: &std::io::Error) -> String {
    format!("the record of the case can't be written: {error}")
}

fn unavailable(profile: &Profile, error: &SetupError) -> String {
    format!("the lock space of {} can't be had: {error}", profile.name)
}

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|error| format!("no runtime: {error}"))
}

/// The arguments of the standard test harness, where the JSON report goes, and how often each case is to be run.
fn command_line() -> Result<(Arguments, Option<PathBuf>, u32), String> {
    let mut json = std::env::var_os(JSON).map(PathBuf::from);
    let mut rest = Vec::new();
    let mut given = std::env::args_os();
    while let Some(argument) = given.next() {
        if argument == "--json" {
            json = Some(given.next().ok_or("--json needs the file to write to")?.into());
        } else {
            rest.push(argument);
        }
    }
    let mut arguments = Arguments::from_iter(rest);
    // One at a time unless somebody knows better: each uses as many threads and processes as it needs.
    let at_a_time = usize::try_from(number(AT_A_TIME)?).unwrap_or(usize::MAX);
    arguments.test_threads.get_or_insert(at_a_time);
    Ok((arguments, json, number(REPEAT)?))
}

/// What the environment says; one if it says nothing.
fn number(variable: &str) -> Result<u32, String> {
    let number = match std::env::var(variable) {
        Ok(number) => number.parse().ok().filter(|number| *number > 0),
        Err(_) => Some(1),
    };
    number.ok_or(format!("{variable} must be a number above zero"))
}
