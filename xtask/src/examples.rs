//! Every example and every command in the README, run as a reader would.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::TargetKind;

use crate::markdown::{Transcript, blocks, transcripts};
use crate::process::{cargo, output, run};
use crate::tidy::is_run_elsewhere;
use crate::workspace::{members, root};

/// Runs the examples of all packages, then the README's commands, whose output must be what the README says.
///
/// # Errors
///
/// If one fails or prints something else.
pub(crate) fn run_all() -> Result<()> {
    for package in members(root())?.packages {
        for target in package.targets.iter().filter(|target| target.kind.contains(&TargetKind::Example)) {
            let features = target.required_features.join(",");
            run(cargo([
                "run",
                "--locked",
                "--quiet",
                "--package",
                &package.name,
                "--example",
                &target.name,
            ])
            .args(["--features", &features]))?;
        }
    }
    let readme = root().join("README.md");
    let readme =
        std::fs::read_to_string(&readme).with_context(|| format!("can't read {}", readme.display()))?;
    let mut count = 0;
    for block in blocks(&readme).iter().filter(|block| block.info == "console") {
        for transcript in
            transcripts(block).iter().filter(|transcript| !is_run_elsewhere(&transcript.command))
        {
            repeat(transcript)?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("the README shows no command that can be run");
    }
    println!("{count} commands of the README print what it says");
    Ok(())
}

fn repeat(transcript: &Transcript) -> Result<()> {
    let printed = output(Command::new("sh").arg("-c").arg(&transcript.command).current_dir(root()))?;
    if printed.trim_end() != transcript.output.trim_end() {
        bail!("{} printed:\n{printed}\nand not:\n{}", transcript.command, transcript.output);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(command: &str, output: &str) -> Transcript {
        Transcript { command: command.to_owned(), output: output.to_owned() }
    }

    #[test]
    fn a_command_must_print_what_the_readme_says() {
        repeat(&transcript("echo one; echo two", "one\ntwo\n\n")).unwrap();
        assert!(repeat(&transcript("echo one", "two\n")).is_err());
        assert!(repeat(&transcript("echo one; exit 3", "one\n")).is_err());
    }
}
