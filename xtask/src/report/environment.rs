//! Where and with what a run took place.

use std::process::Command;

use serde::Serialize;

/// What is known of a run beside its records: pairs of what and which.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Environment(pub(crate) Vec<(String, String)>);

impl Environment {
    /// What can be told of this machine and of this tree. What can't be told is left out.
    pub(crate) fn of_this_run() -> Self {
        let mut environment = Self::default();
        environment.add("written", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
        let described = ["describe", "--always", "--dirty", "--abbrev=12"];
        environment.add("revision", said("git", &described));
        environment.add("compiler", said("rustc", &["--version"]));
        environment.add("system", said("uname", &["-srm"]));
        let processors = std::thread::available_parallelism().ok().map(|number| number.to_string());
        environment.add("processors", processors);
        environment
    }

    /// Adds what is known.
    pub(crate) fn add(&mut self, what: &str, which: Option<String>) {
        self.0.extend(which.map(|which| (what.to_owned(), which)));
    }
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.args(arguments).current_dir(crate::workspace::root()).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !said.is_empty()).then_some(said)
}
