//! That what the README and the guide show is what one gets.
//!
//! A `rust` block is an example as a whole or a region of one, between `// region: NAME` and `// endregion`. The commands of a
//! `console` block of the README are run by `cargo xtask examples`, and what they print is compared; those that can't be
//! run there are listed here with the file that runs them.

use super::{Complaints, Tree};
use crate::markdown;

/// The documents that show code.
fn showing(tree: &Tree) -> impl Iterator<Item = &super::tree::File> {
    let shows = |path: &str| path == "README.md" || path.starts_with("docs/") && path.ends_with(".md");
    tree.files.iter().filter(move |file| shows(&file.path))
}

/// Rust in a document is compiled and run as part of an example.
pub(super) fn snippets(tree: &Tree, complaints: &mut Complaints<'_>) {
    let sources: Vec<String> = tree
        .files
        .iter()
        .filter(|file| file.path.ends_with(".rs") && file.path.split('/').any(|part| part == "examples"))
        .flat_map(|file| snippets_of(&file.text))
        .collect();
    for file in showing(tree) {
        for block in markdown::blocks(&file.text).into_iter().filter(|block| block.info.starts_with("rust")) {
            if !sources.iter().any(|source| source.trim() == block.text.trim()) {
                let what = "this Rust is neither a whole example nor a region of one";
                complaints.add(format!("{}:{}", file.path, block.line), what);
            }
        }
    }
}

/// The example without its module documentation and attributes, and each of its regions, as they would stand in a document.
fn snippets_of(source: &str) -> Vec<String> {
    let without_marks = source.lines().filter(|line| !is_mark(line)).collect::<Vec<_>>();
    let is_head = |line: &&str| line.starts_with("//!") || line.starts_with("#![") || line.is_empty();
    let whole: Vec<&str> = without_marks.into_iter().skip_while(is_head).collect();
    let mut snippets = vec![dedented(&whole)];
    let mut region: Option<Vec<&str>> = None;
    for line in source.lines() {
        match (is_mark(line), &mut region) {
            (true, None) => region = Some(Vec::new()),
            (true, Some(lines)) => {
                snippets.push(dedented(lines));
                region = None;
            }
            (false, Some(lines)) => lines.push(line),
            (false, None) => {}
        }
    }
    snippets
}

fn is_mark(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("// region: ") || line == "// endregion"
}

fn dedented(lines: &[&str]) -> String {
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let common = lines.iter().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    lines.iter().map(|line| format!("{}\n", line.get(common..).unwrap_or_default())).collect()
}

/// A command that the README shows and `cargo xtask examples` does not run.
struct RunElsewhere {
    command: &'static str,
    /// The file that runs it.
    by: &'static str,
    /// The words it is run with there.
    words: &'static str,
}

/// It would run itself. CI runs the same function.
const RUN_ELSEWHERE: [RunElsewhere; 1] =
    [RunElsewhere { command: "cargo xtask test --install", by: "xtask/src/ci.rs", words: "test::run" }];

/// Whether something other than `cargo xtask examples` runs this command.
pub(crate) fn is_run_elsewhere(command: &str) -> bool {
    RUN_ELSEWHERE.iter().any(|known| known.command == command)
}

/// A command in a document is one that is tested.
pub(super) fn commands(tree: &Tree, complaints: &mut Complaints<'_>) {
    for file in showing(tree) {
        for block in markdown::blocks(&file.text) {
            let place = format!("{}:{}", file.path, block.line);
            match block.info.as_str() {
                "console" if file.path != "README.md" => {
                    complaints.add(place, "only the commands of the README are run: use `sh`");
                }
                "console" if markdown::transcripts(&block).is_empty() => {
                    complaints.add(place, "a console block without a command behind `$ `");
                }
                "sh" | "text" if file.path == "README.md" => {
                    complaints.add(
                        place,
                        "commands and output in the README are `console` blocks, so that they are run",
                    );
                }
                "" => complaints.add(place, "say what it is: `rust`, `text`, `console`, `sh`, `toml`"),
                _ => {}
            }
        }
    }
    for RunElsewhere { command, by, words } in RUN_ELSEWHERE {
        if !tree.file(by).is_some_and(|file| file.text.contains(words)) {
            complaints.add(by, format!("does not run `{command}`, which the README shows"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const EXAMPLE: &str = "crates/locks/examples/hello.rs";

    #[test]
    fn regions_stand_alone() {
        let source = "//! Docs.\n\n#![expect(x)]\nfn main() {\n    // region: a\n    if x {\n        y();\n    }\n    // endregion\n}\n";
        assert_eq!(
            snippets_of(source),
            ["fn main() {\n    if x {\n        y();\n    }\n}\n", "if x {\n    y();\n}\n"]
        );
    }

    #[test]
    fn invented_code_is_found() {
        Fixture::new()
            .append("README.md", "```rust\nlock();\n```\n")
            .expect("snippet", "neither a whole example");
        Fixture::new()
            .append("docs/backends/file.md", "```rust,no_run\nx();\n```\n")
            .expect("snippet", "neither");
        Fixture::new().edit(EXAMPLE, "hello", "hullo").expect("snippet", "neither a whole example");
    }

    #[test]
    fn untested_commands_are_found() {
        Fixture::new().append("README.md", "```sh\nls\n```\n").expect("command", "so that they are run");
        Fixture::new().append("README.md", "```text\nls\n```\n").expect("command", "so that they are run");
        Fixture::new().append("README.md", "```console\nls\n```\n").expect("command", "without a command");
        Fixture::new().append("README.md", "```\nls\n```\n").expect("command", "say what it is");
        Fixture::new()
            .append("docs/backends/file.md", "```console\n$ ls\n```\n")
            .expect("command", "use `sh`");
        Fixture::new()
            .remove("xtask/src/ci.rs")
            .expect("command", "does not run `cargo xtask test --install`");
    }
}
