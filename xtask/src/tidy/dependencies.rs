//! Who may depend on whom.

use std::collections::BTreeMap;

use cargo_metadata::DependencyKind;

use super::tree::Package;
use super::{Complaints, Tree};
use crate::workspace::FACADE;

const API: &str = "locks-api";
const KIT: &str = "locks-conformance";
const MACROS: &str = "locks-macros";
const CLI: &str = "locks-cli";
const SERVERS: &str = "locks-test-servers";

/// The members that this package may use in what it ships. `None`: nobody has decided yet.
fn allowed(package: &Package) -> Option<fn(&str) -> bool> {
    let is_api: fn(&str) -> bool = |name| name == API;
    if package.technology().is_some() {
        return Some(is_api);
    }
    match package.name.as_str() {
        API | MACROS | SERVERS => Some(|_| false),
        "xtask" => Some(|name| name == SERVERS),
        KIT => Some(is_api),
        FACADE => Some(|name| [API, MACROS].contains(&name) || name.starts_with("locks-backend-")),
        CLI => Some(|name| name == FACADE),
        _ => None,
    }
}

/// Members depend on each other only as `allowed` says. In tests, nothing but the tools and the examples depends on the facade, and
/// nothing but backends and tools on servers: the rest of the workspace is tested without any.
pub(super) fn directions(tree: &Tree, complaints: &mut Complaints<'_>) {
    for package in &tree.packages {
        let Some(allowed) = allowed(package) else {
            let what = format!("{} is new: say in tidy's `allowed` what it may depend on", package.name);
            complaints.add(package.manifest_path(), what);
            continue;
        };
        for dependency in package.internal_normal().filter(|dependency| !allowed(&dependency.name)) {
            let what = format!("{} may not depend on {}", package.name, dependency.name);
            complaints.add(package.manifest_path(), what);
        }
        let in_tests = |name: &str| {
            package
                .internal()
                .any(|dependency| dependency.kind == DependencyKind::Development && dependency.name == name)
        };
        if in_tests(FACADE) && package.name != CLI {
            let what = format!("the tests of {} may not depend on the facade", package.name);
            complaints.add(package.manifest_path(), what);
        }
        if in_tests(SERVERS) && package.technology().is_none() && package.name != CLI {
            let what = format!("the tests of {} may not depend on servers", package.name);
            complaints.add(package.manifest_path(), what);
        }
    }
}

/// Clients of databases and the crates below them, by the beginning of their names.
const CLIENTS: [&str; 14] = [
    "diesel",
    "etcd",
    "fred",
    "libsqlite3",
    "mongodb",
    "mysql",
    "postgres",
    "prost",
    "redis",
    "rusqlite",
    "sea-orm",
    "sqlx",
    "tokio-postgres",
    "tonic",
];

/// Whether a crate of this name is a client of a database.
pub(crate) fn is_database_client(name: &str) -> bool {
    CLIENTS.iter().any(|client| {
        name.strip_prefix(client).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
    })
}

/// The crate that everybody shares names no database.
pub(super) fn no_database_client(tree: &Tree, complaints: &mut Complaints<'_>) {
    for package in tree.packages.iter().filter(|package| package.name == API) {
        for dependency in
            package.dependencies.iter().filter(|dependency| is_database_client(&dependency.name))
        {
            complaints.add(package.manifest_path(), format!("{API} may not depend on {}", dependency.name));
        }
    }
}

/// The one foreign name in the API: backends need the attribute, in the version that the trait was made with.
const REEXPORTED: &str = "async_trait";

/// The shared crate passes on nobody else's names, so that no upgrade of theirs breaks ours.
pub(super) fn no_foreign_reexport(tree: &Tree, complaints: &mut Complaints<'_>) {
    let Some(api) = tree.packages.iter().find(|package| package.name == API) else { return };
    let foreign: Vec<String> = api
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.replace('-', "_"))
        .filter(|name| name != REEXPORTED)
        .collect();
    let sources = format!("{}/src/", api.dir);
    for file in tree.files.iter().filter(|file| file.path.starts_with(&sources)) {
        for (index, line) in file.text.lines().enumerate() {
            let Some(path) = line.trim_start().strip_prefix("pub use ") else { continue };
            let path = path.trim_start_matches("::");
            let root = path.split([':', ';', ' ']).next().unwrap_or(path);
            if foreign.iter().any(|name| name == root) {
                complaints.add(format!("{}:{}", file.path, index + 1), format!("passes on names of {root}"));
            }
        }
    }
}

/// A package that is published names the versions of ours that it needs. Only a dependency for tests has none if it leads
/// back to the package itself, since nobody could publish either of the two first, or if it is never published.
pub(super) fn versions(tree: &Tree, complaints: &mut Complaints<'_>) {
    let uses: BTreeMap<&str, Vec<&str>> = tree
        .packages
        .iter()
        .map(|package| {
            (
                package.name.as_str(),
                package.internal_normal().map(|dependency| dependency.name.as_str()).collect(),
            )
        })
        .collect();
    for package in tree.crates() {
        for dependency in package.internal() {
            let unpublished =
                tree.packages.iter().any(|other| other.name == dependency.name && !other.is_published());
            let versioned = !dependency.req.comparators.is_empty();
            let circular = leads_to(&uses, &dependency.name, &package.name);
            if dependency.kind != DependencyKind::Development && !versioned {
                complaints.add(package.manifest_path(), format!("{} needs a version", dependency.name));
            }
            if dependency.kind == DependencyKind::Development && circular && versioned {
                let what =
                    format!("{} leads back here and must be a path without a version", dependency.name);
                complaints.add(package.manifest_path(), what);
            }
            if dependency.kind == DependencyKind::Development && unpublished && versioned {
                let what =
                    format!("{} is not published and must be a path without a version", dependency.name);
                complaints.add(package.manifest_path(), what);
            }
        }
    }
}

/// Whether `from` depends on `to`, at any distance. Cargo has made sure that there is no circle.
fn leads_to(uses: &BTreeMap<&str, Vec<&str>>, from: &str, to: &str) -> bool {
    from == to || uses.get(from).into_iter().flatten().any(|next| leads_to(uses, next, to))
}

/// An example outside the workspace stands for somebody else's repository and uses only what everybody can.
pub(super) fn third_party_examples(tree: &Tree, complaints: &mut Complaints<'_>) {
    let manifests = tree
        .files
        .iter()
        .filter(|file| file.path.starts_with("examples/") && file.path.ends_with("/Cargo.toml"));
    for file in manifests {
        let manifest: toml::Table = match file.text.parse() {
            Ok(manifest) => manifest,
            Err(error) => {
                complaints.add(&file.path, error.to_string());
                continue;
            }
        };
        for table in ["dependencies", "dev-dependencies"] {
            let names =
                manifest.get(table).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
            for name in names.filter(|name| name.starts_with("locks")) {
                if ![API, KIT, FACADE].contains(&name.as_str()) {
                    complaints.add(&file.path, format!("a third party would not use {name}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn api_depends_on_no_member() {
        Fixture::new()
            .append("crates/locks-api/Cargo.toml", "[dependencies]\nlocks-backend-file.workspace = true\n")
            .edit("crates/backend-file/Cargo.toml", "locks-api.workspace = true\n", "")
            .expect("dependency-direction", "locks-api may not depend on locks-backend-file");
    }

    #[test]
    fn a_backend_depends_on_no_other_backend() {
        Fixture::new()
            .edit("crates/backend-file/Cargo.toml", "locks-api.w", "locks-backend-memory.w")
            .expect("dependency-direction", "locks-backend-file may not depend on locks-backend-memory");
    }

    #[test]
    fn only_the_tools_depend_on_the_facade() {
        Fixture::new()
            .edit("crates/locks-conformance/Cargo.toml", "locks-api.w", "locks.w")
            .expect("dependency-direction", "locks-conformance may not depend on locks");
        Fixture::new()
            .append("crates/locks-conformance/Cargo.toml", "[dev-dependencies]\nlocks.workspace = true\n")
            .expect("dependency-direction", "tests of locks-conformance");
    }

    #[test]
    fn only_the_tests_of_backends_and_tools_have_servers() {
        let dev = "[dev-dependencies]\nlocks-test-servers.workspace = true\n";
        with_servers("").append("crates/backend-file/Cargo.toml", dev).expect_tidy();
        with_servers("")
            .append("crates/locks-conformance/Cargo.toml", dev)
            .expect("dependency-direction", "the tests of locks-conformance may not depend on servers");
        with_servers(", version = \"0.1.0\"")
            .edit("crates/backend-file/Cargo.toml", "locks-api.w", "locks-test-servers.w")
            .expect("dependency-direction", "locks-backend-file may not depend on locks-test-servers");
    }

    #[test]
    fn servers_for_tests_depend_on_no_member_and_have_no_version() {
        let fixture = with_servers("").write(
            "crates/test-servers/Cargo.toml",
            &Fixture::unpublished_manifest(
                "locks-test-servers",
                "[dependencies]\nlocks-api.workspace = true\n",
            ),
        );
        fixture.expect("dependency-direction", "locks-test-servers may not depend on locks-api");
        with_servers(", version = \"0.1.0\"")
            .append(
                "crates/backend-file/Cargo.toml",
                "[dev-dependencies]\nlocks-test-servers.workspace = true\n",
            )
            .expect("internal-version", "locks-test-servers is not published");
    }

    /// The fixture with servers for tests in it.
    fn with_servers(version: &str) -> Fixture {
        let line = format!("locks-test-servers = {{ path = \"crates/test-servers\"{version} }}\n");
        Fixture::new()
            .append("Cargo.toml", &line)
            .write("crates/test-servers/Cargo.toml", &Fixture::unpublished_manifest("locks-test-servers", ""))
            .write("crates/test-servers/README.md", "# locks-test-servers\n")
            .write("crates/test-servers/src/lib.rs", "//! Servers.\n")
    }

    #[test]
    fn a_new_member_needs_a_rule() {
        Fixture::new()
            .write("crates/locks-new/Cargo.toml", &Fixture::manifest("locks-new", ""))
            .write("crates/locks-new/README.md", "# locks-new\n")
            .write("crates/locks-new/src/lib.rs", "//! New.\n")
            .expect("dependency-direction", "locks-new is new");
    }

    #[test]
    fn api_names_no_database_client() {
        Fixture::new()
            .append("Cargo.toml", "tokio-postgres = \"1\" # to be found\n")
            .append("crates/locks-api/Cargo.toml", "[dependencies]\ntokio-postgres.workspace = true\n")
            .expect("database-client", "may not depend on tokio-postgres");
        assert!(is_database_client("sqlx-core") && is_database_client("redis"));
        assert!(!is_database_client("redistribute"));
    }

    #[test]
    fn api_passes_on_no_foreign_names() {
        Fixture::new()
            .append("crates/locks-api/Cargo.toml", "[dependencies]\nserde.workspace = true\n")
            .append("crates/locks-api/src/lib.rs", "pub use serde::Serialize;\n")
            .expect("foreign-reexport", "passes on names of serde");
    }

    #[test]
    fn internal_dependencies_have_versions() {
        Fixture::new()
            .edit("Cargo.toml", "\"crates/locks-api\", version = \"0.1.0\"", "\"crates/locks-api\"")
            .expect("internal-version", "locks-api needs a version");
    }

    #[test]
    fn a_test_dependency_that_leads_back_has_none() {
        Fixture::new()
            .append(
                "crates/locks-api/Cargo.toml",
                "[dev-dependencies]\nlocks-backend-memory.workspace = true\n",
            )
            .expect("internal-version", "locks-backend-memory leads back here");
    }

    #[test]
    fn examples_of_third_parties_use_what_everybody_can() {
        Fixture::new()
            .write("examples/mine/Cargo.toml", "[dependencies]\nlocks-backend-file = \"0.1\"\n")
            .expect("third-party-example", "would not use locks-backend-file");
    }
}
