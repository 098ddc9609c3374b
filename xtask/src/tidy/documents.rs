//! That the documents tell the truth about the repository.

use super::{Complaints, RULES, Tree};
use crate::markdown;

/// Links between files lead somewhere.
pub(super) fn links(tree: &Tree, complaints: &mut Complaints<'_>) {
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        let dir = file.path.rsplit_once('/').map_or("", |(dir, _)| dir);
        // In the documentation of a crate, links without a file name lead to its items.
        let in_crate_docs = file.path.starts_with("crates/");
        for (line, target) in markdown::links(&file.text) {
            let path = target.split('#').next().unwrap_or(target);
            let foreign =
                path.contains("://") || path.is_empty() || in_crate_docs && !path.contains(['/', '.']);
            if !foreign && !resolve(dir, path).is_some_and(|path| tree.exists(&path)) {
                complaints
                    .add(format!("{}:{line}", file.path), format!("the link to {target} leads nowhere"));
            }
        }
    }
}

/// `path` as seen from `dir`, or `None` if it leaves the repository.
fn resolve(dir: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const INVARIANT: &str = "**Invariant:**";
const GUARD: &str = "Guard:";

/// Where the kit lists its cases.
const CASES: &str = "crates/locks-conformance/src/cases/";

/// Every invariant in ARCHITECTURE.md names what guards it: a rule of tidy (`tidy link`), a command (`cargo xtask docs`), a
/// case of the kit (`case exclusive::name`), a file, or a test in one (`crates/x/src/y.rs::name`). Each of them exists.
pub(super) fn guards(tree: &Tree, complaints: &mut Complaints<'_>) {
    let Some(file) = tree.file(ARCHITECTURE) else {
        complaints.add(ARCHITECTURE, "is missing");
        return;
    };
    let mut line = 1;
    for paragraph in file.text.split("\n\n") {
        if let Some((_, invariant)) = paragraph.split_once(INVARIANT) {
            let place = format!("{ARCHITECTURE}:{line}");
            let named: Vec<&str> = invariant
                .split_once(GUARD)
                .map(|(_, guards)| guards.split('`').skip(1).step_by(2).collect())
                .unwrap_or_default();
            if named.is_empty() {
                complaints.add(&place, format!("an invariant without `{GUARD}`"));
            }
            for guard in named.into_iter().filter(|guard| !exists(tree, guard)) {
                complaints.add(&place, format!("there is no `{guard}`"));
            }
        }
        line += paragraph.lines().count() + 1;
    }
}

fn exists(tree: &Tree, guard: &str) -> bool {
    let guard = guard.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(name) = guard.strip_prefix("tidy ") {
        return RULES.iter().any(|(rule, _)| *rule == name);
    }
    if let Some(command) = guard.strip_prefix("cargo xtask ") {
        return tree.exists(&format!("xtask/src/{command}.rs"))
            || tree.exists(&format!("xtask/src/{command}"));
    }
    if let Some(case) = guard.strip_prefix("case ") {
        let id = format!("\"{case}\"");
        let mut cases = tree.files.iter().filter(|file| file.path.starts_with(CASES));
        return cases.any(|file| file.text.contains(&id));
    }
    match guard.split_once("::") {
        Some((path, test)) => tree.file(path).is_some_and(|file| file.text.contains(&format!("fn {test}("))),
        None => tree.file(&guard).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn broken_links_are_found() {
        Fixture::new().append("README.md", "[x](docs/nothing.md)\n").expect("link", "docs/nothing.md");
        Fixture::new().append("docs/backends/file.md", "[x](../../../etc)\n").expect("link", "etc");
        Fixture::new()
            .append("docs/backends/file.md", "[x](memory.md#a) [y](../../README.md) [z](https://z)\n")
            .expect_tidy();
    }

    #[test]
    fn unguarded_invariants_are_found() {
        let invariant = |guard: &str| {
            let text = format!("# A\n\n{INVARIANT} x\nand y.{guard}\n");
            Fixture::new().write(ARCHITECTURE, &text)
        };
        invariant("").expect("invariant-guard", "without `Guard:`");
        invariant(" Guard: `tidy nothing`").expect("invariant-guard", "no `tidy nothing`");
        invariant(" Guard: `crates/locks/src/lib.rs::gone`").expect("invariant-guard", "lib.rs::gone`");
        invariant(" Guard: `crates/locks/src/gone.rs`").expect("invariant-guard", "gone.rs`");
        invariant(" Guard: `case exclusive::gone`").expect("invariant-guard", "exclusive::gone`");
        invariant(" Guard: `cargo xtask gone`").expect("invariant-guard", "cargo xtask gone`");
        invariant(" Guard: `cargo xtask ci`").expect_tidy();
        invariant(" Guard: `case exclusive::second`")
            .write(
                "crates/locks-conformance/src/cases/exclusive.rs",
                "//! X.\nconst ID: &str = \"exclusive::second\";\n",
            )
            .expect_tidy();
        invariant(" Guard: `tidy link`, `crates/locks/src/lib.rs`").expect_tidy();
        Fixture::new().remove(ARCHITECTURE).expect("invariant-guard", "is missing");
    }
}
