//! How the sources are cut and written.

use super::tree::File;
use super::{Complaints, Tree};

/// Longer than this, a file has more than one subject.
const MOST_LINES: usize = 600;

/// No file is too long to be read at one go.
pub(super) fn length(tree: &Tree, complaints: &mut Complaints<'_>) {
    for file in sources(tree) {
        let lines = file.text.lines().count();
        if lines > MOST_LINES {
            complaints
                .add(&file.path, format!("{lines} lines are more than {MOST_LINES}: split it by subject"));
        }
    }
}

/// Names that say nothing about what is in a module.
const EMPTY_NAMES: [&str; 6] = ["common", "helper", "helpers", "misc", "util", "utils"];

/// Modules are named after their subject.
pub(super) fn module_names(tree: &Tree, complaints: &mut Complaints<'_>) {
    for file in sources(tree) {
        let path = file.path.strip_suffix(".rs").unwrap_or(&file.path);
        if let Some(name) = path.split('/').find(|part| EMPTY_NAMES.contains(part)) {
            complaints.add(&file.path, format!("`{name}` says nothing about what is in it"));
        }
        for (index, line) in file.text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let inline =
                words.windows(3).find(|words| words[0] == "mod" && words[2] == "{").map(|words| words[1]);
            if let Some(name) = inline.filter(|name| EMPTY_NAMES.contains(name)) {
                let what = format!("`{name}` says nothing about what is in it");
                complaints.add(format!("{}:{}", file.path, index + 1), what);
            }
        }
    }
}

/// Every file begins by saying what is in it.
pub(super) fn module_docs(tree: &Tree, complaints: &mut Complaints<'_>) {
    for file in sources(tree) {
        let mut head = file
            .text
            .lines()
            .take_while(|line| line.is_empty() || line.starts_with("//") || line.starts_with("#!["));
        if !head.any(|line| line.starts_with("//! ") || line.contains("doc = include_str!(")) {
            complaints.add(&file.path, "does not begin with `//!` and what is in it");
        }
    }
}

/// Lines end where their text ends, and files with one newline.
pub(super) fn white_space(tree: &Tree, complaints: &mut Complaints<'_>) {
    for file in &tree.files {
        for (index, line) in file.text.lines().enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                complaints.add(format!("{}:{}", file.path, index + 1), "white space at the end of the line");
            }
        }
        if !file.text.ends_with('\n') || file.text.ends_with("\n\n") {
            complaints.add(&file.path, "does not end with one newline");
        }
    }
}

fn sources(tree: &Tree) -> impl Iterator<Item = &File> {
    tree.files.iter().filter(|file| file.path.ends_with(".rs"))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    const LIB: &str = "crates/locks/src/lib.rs";

    #[test]
    fn long_files_are_found() {
        let text = format!("//! Long.\n{}", "// more\n".repeat(MOST_LINES));
        Fixture::new().write(LIB, &text).expect("file-length", "601 lines");
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        Fixture::new()
            .write("crates/locks/src/utils.rs", "//! All sorts.\n")
            .expect("module-name", "`utils`");
        Fixture::new()
            .write("crates/locks/tests/common/mod.rs", "//! X.\n")
            .expect("module-name", "`common`");
        Fixture::new()
            .append(LIB, "mod helpers {}\n")
            .append(LIB, "mod misc { }\n")
            .expect("module-name", "`misc`");
    }

    #[test]
    fn files_without_docs_are_found() {
        Fixture::new().write(LIB, "fn f() {}\n").expect("module-doc", "does not begin");
        Fixture::new().write("crates/locks/tests/empty.rs", "\n").expect("module-doc", "does not begin");
    }

    #[test]
    fn stray_white_space_is_found() {
        Fixture::new().append(LIB, "// two  \n").expect("white-space", "at the end of the line");
        Fixture::new().append("README.md", "\n").expect("white-space", "one newline");
        Fixture::new().append("docs/backends/file.md", "cut").expect("white-space", "one newline");
    }
}
