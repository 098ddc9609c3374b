//! That the documents tell of the backends what runs of the kit have shown, and of all of its cases.

use super::{Complaints, Tree};
use crate::markdown::with_part;
use crate::report::proven::{FILE, PART, Proven, documents};

/// Where the kit lists its cases.
const CASES: &str = "crates/locks-conformance/src/cases/";

const REMEDY: &str = "run `cargo xtask conformance --update-docs`";

/// What was kept of runs tells of every backend and of as many cases as there are, and the README and the backends' pages say the same.
pub(super) fn shown(tree: &Tree, complaints: &mut Complaints<'_>) {
    let Some(file) = tree.file(FILE) else {
        complaints.add(FILE, format!("is missing: {REMEDY}"));
        return;
    };
    let proven = match Proven::read(&file.text) {
        Ok(proven) => proven,
        Err(error) => {
            complaints.add(FILE, format!("{error:#}"));
            return;
        }
    };
    let mut backends: Vec<&str> = tree.crates().filter_map(|package| package.technology()).collect();
    backends.sort_unstable();
    for backend in backends.iter().filter(|backend| !proven.harnesses().any(|harness| harness == **backend)) {
        complaints.add(FILE, format!("tells nothing of {backend}: {REMEDY}"));
    }
    let there_are = cases(tree);
    for harness in proven.harnesses().filter(|harness| proven.cases_of(harness) != there_are) {
        let told = proven.cases_of(harness);
        let what = format!("tells of {told} cases on {harness}, of which the kit has {there_are}: {REMEDY}");
        complaints.add(FILE, what);
    }
    for (document, part) in documents(&proven, &backends) {
        let Some(file) = tree.file(&document) else { continue };
        match with_part(&file.text, PART, &part) {
            Ok(text) if text == file.text => {}
            Ok(_) => complaints.add(document, format!("tells something else than {FILE}: {REMEDY}")),
            Err(error) => complaints.add(document, format!("has no place for what was shown: {error}")),
        }
    }
}

/// How many cases the kit has.
fn cases(tree: &Tree) -> usize {
    let sources = tree.files.iter().filter(|file| file.path.starts_with(CASES));
    sources.map(|file| file.text.matches("Case::new(").count()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const KIT: &str = "crates/locks-conformance/src/cases/names.rs";

    #[test]
    fn what_is_kept_tells_of_all_backends_and_cases() {
        Fixture::new().remove(FILE).expect("proven", "is missing");
        Fixture::new().edit(FILE, "\"file\"", "\"fill\"").expect("proven", "tells nothing of file");
        Fixture::new().edit(FILE, "{}", "{").expect("proven", "makes no sense");
        Fixture::new()
            .edit(
                KIT,
                "Case::new(\"names::two\");",
                "Case::new(\"names::two\"); Case::new(\"names::three\");",
            )
            .expect("proven", "tells of 2 cases on memory, of which the kit has 3");
    }

    #[test]
    fn documents_say_the_same() {
        Fixture::new().edit("README.md", "| **2** |", "| **3** |").expect("proven", "something else");
        Fixture::new()
            .edit("docs/backends/memory.md", "<!-- proven:end -->", "<!-- cut -->")
            .expect("proven", "has no place for what was shown");
    }
}
