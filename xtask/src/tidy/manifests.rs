//! What every Cargo.toml has.

use super::{Complaints, Tree};

const INHERITED: [&str; 3] = ["edition", "rust-version", "license"];
const BACKENDS: &str = "crates/backend-";
const INHERITED_IF_PUBLISHED: [&str; 1] = ["version"];

/// Versions, lints and dependencies are said once, in the workspace; a published package says what it is.
pub(super) fn inherited(tree: &Tree, complaints: &mut Complaints<'_>) {
    for package in &tree.packages {
        let place = package.manifest_path();
        let published = package.dir.starts_with("crates/");
        let more: &[&str] = if published { &INHERITED_IF_PUBLISHED } else { &[] };
        for field in INHERITED.iter().chain(more) {
            let value = package.manifest.get("package").and_then(|table| table.get(*field));
            // The client of a store may need a later Rust than everybody else.
            let is_later = *field == "rust-version" && package.dir.starts_with(BACKENDS) && is_text(value);
            if !is_from_workspace(value) && !is_later {
                complaints.add(&place, format!("needs `{field}.workspace = true`"));
            }
        }
        if !is_from_workspace(package.manifest.get("lints")) {
            complaints.add(&place, "needs `[lints] workspace = true`");
        }
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies = package.manifest.get(table).and_then(toml::Value::as_table);
            for (name, dependency) in dependencies.into_iter().flatten() {
                if !is_from_workspace(Some(dependency)) && dependency.get("path").is_none() {
                    complaints.add(&place, format!("{name} belongs into [workspace.dependencies]"));
                }
            }
        }
        if published
            && package.description.as_deref().is_none_or(|text| text.is_empty() || text == "placeholder")
        {
            complaints.add(&place, "needs a description");
        }
        if published && tree.file(&format!("{}/README.md", package.dir)).is_none() {
            complaints.add(&package.dir, "needs a README.md");
        }
    }
}

fn is_text(value: Option<&toml::Value>) -> bool {
    value.is_some_and(toml::Value::is_str)
}

fn is_from_workspace(value: Option<&toml::Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
}

/// Every foreign dependency has its reason beside it.
pub(super) fn reasons(tree: &Tree, complaints: &mut Complaints<'_>) {
    let Some(manifest) = tree.file("Cargo.toml") else { return };
    let mut inside = false;
    for (index, line) in manifest.text.lines().enumerate() {
        if line.starts_with('[') {
            inside = line == "[workspace.dependencies]";
        } else if inside && line.contains('=') && !line.contains("path =") && !line.contains(" # ") {
            complaints.add(
                format!("{}:{}", manifest.path, index + 1),
                "a dependency without a reason behind ` # `",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;

    #[test]
    fn fields_and_lints_are_inherited() {
        for (line, complaint) in [
            ("\nversion.workspace = true", "`version."),
            ("\nrust-version.workspace = true", "rust-version"),
            ("license.workspace = true\n", "license"),
            ("[lints]\nworkspace = true\n", "lints"),
        ] {
            Fixture::new().edit("crates/locks/Cargo.toml", line, "").expect("inheritance", complaint);
        }
    }

    #[test]
    fn a_backend_may_need_a_later_rust() {
        let (inherits, later) = ("rust-version.workspace = true", "rust-version = \"1.99\"");
        Fixture::new().edit("crates/backend-file/Cargo.toml", inherits, later).expect_tidy();
        Fixture::new().edit("crates/locks/Cargo.toml", inherits, later).expect("inheritance", "rust-version");
    }

    #[test]
    fn versions_of_dependencies_are_said_once() {
        Fixture::new()
            .append("crates/locks-api/Cargo.toml", "[dependencies]\nserde = \"1\"\n")
            .expect("inheritance", "serde belongs into");
    }

    #[test]
    fn a_package_says_what_it_is() {
        Fixture::new()
            .edit("crates/locks/Cargo.toml", "description = \"A test\"", "description = \"placeholder\"")
            .expect("inheritance", "needs a description");
        Fixture::new().remove("crates/locks/README.md").expect("inheritance", "needs a README.md");
    }

    #[test]
    fn a_dependency_has_a_reason() {
        Fixture::new()
            .edit("Cargo.toml", " # needed by the tests", "")
            .expect("dependency-reason", "without a reason");
    }
}
