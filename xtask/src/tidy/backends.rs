//! What belongs to every backend.

use super::{Complaints, Tree};
use crate::workspace::FACADE;

/// A backend has its conformance test, its page, its row in the README's table, and a feature of the facade.
pub(super) fn complete(tree: &Tree, complaints: &mut Complaints<'_>) {
    let facade = tree.packages.iter().find(|package| package.name == FACADE);
    for package in tree.crates() {
        let Some(technology) = package.technology() else { continue };
        if package.name != format!("locks-backend-{technology}") {
            complaints.add(package.manifest_path(), format!("is to be named locks-backend-{technology}"));
        }
        let test = format!("{}/tests/conformance.rs", package.dir);
        if !tree.file(&test).is_some_and(|file| file.text.contains("locks_conformance::main!(")) {
            complaints.add(&package.dir, "needs tests/conformance.rs with `locks_conformance::main!(..)`");
        }
        let has_own_main =
            package.manifest.get("test").and_then(toml::Value::as_array).is_some_and(|tests| {
                tests.iter().any(|test| {
                    test.get("name").and_then(toml::Value::as_str) == Some("conformance")
                        && test.get("harness").and_then(toml::Value::as_bool) == Some(false)
                })
            });
        if !has_own_main {
            complaints
                .add(package.manifest_path(), "needs `[[test]] name = \"conformance\" harness = false`");
        }
        let page = format!("docs/backends/{technology}.md");
        if tree.file(&page).is_none() {
            complaints.add(&package.dir, format!("needs the page {page}"));
        }
        if !tree.file("README.md").is_some_and(|file| file.text.contains(&format!("]({page})"))) {
            complaints.add("README.md", format!("has no link to {page}"));
        }
        if !facade.is_some_and(|facade| facade.features.iter().any(|feature| feature == technology)) {
            complaints.add(&package.dir, format!("needs the feature `{technology}` of {FACADE}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;

    #[test]
    fn each_part_is_missed() {
        Fixture::new()
            .remove("crates/backend-file/tests/conformance.rs")
            .edit("crates/backend-file/Cargo.toml", "[[test]]\nname = \"conformance\"\nharness = false\n", "")
            .expect("backend", "needs tests/conformance.rs");
        Fixture::new()
            .edit(
                "crates/backend-file/tests/conformance.rs",
                "locks_conformance::main!(File);",
                "fn main() {}",
            )
            .expect("backend", "needs tests/conformance.rs");
        Fixture::new()
            .edit("crates/backend-file/Cargo.toml", "harness = false\n", "")
            .expect("backend", "harness = false");
        Fixture::new()
            .remove("docs/backends/file.md")
            .edit("README.md", "[file](docs/backends/file.md)", "file")
            .expect("backend", "needs the page docs/backends/file.md");
        Fixture::new()
            .edit("README.md", "[file](docs/backends/file.md)", "file")
            .expect("backend", "no link to docs/backends/file.md");
        Fixture::new()
            .edit("crates/locks/Cargo.toml", "file = []\n", "")
            .expect("backend", "needs the feature `file`");
        Fixture::new()
            .edit("crates/backend-file/Cargo.toml", "\"locks-backend-file\"", "\"locks-file\"")
            .edit("Cargo.toml", "locks-backend-file =", "locks-file =")
            .expect("backend", "is to be named locks-backend-file");
    }
}
