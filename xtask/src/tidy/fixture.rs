//! A small repository in a temporary directory that keeps all rules, to be broken in one place.

use std::fs;
use std::path::PathBuf;

use super::{Complaint, Tree, check};
use crate::markdown::with_part;
use crate::report::proven::{FILE, PART, Proven, documents};

pub(super) struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let mut fixture = Self { dir: tempfile::tempdir().unwrap() };
        let conformance = "[[test]]\nname = \"conformance\"\nharness = false\n";
        let backend = format!("{conformance}[dependencies]\nlocks-api.workspace = true\n");
        let proven = Proven::read(PROVEN).unwrap();
        let documents = documents(&proven, &["file", "memory"]);
        for (document, part) in documents {
            let text = if document == "README.md" { README } else { "# A backend\n" };
            let marks = format!("<!-- {PART}:begin -->\n<!-- {PART}:end -->\n");
            fixture = fixture.write(&document, &with_part(&format!("{text}{marks}"), PART, &part).unwrap());
        }
        fixture
            .write(FILE, PROVEN)
            .write("Cargo.toml", WORKSPACE)
            .write("xtask/src/ci.rs", "//! CI.\nconst STEP: Step = test::run;\n")
            .write("ARCHITECTURE.md", "# Architecture\n\n**Invariant:** links work. Guard: `tidy link`.\n")
            .member("locks-api", "locks-api", "")
            .member("backend-file", "locks-backend-file", &backend)
            .member("backend-memory", "locks-backend-memory", &backend)
            .member("locks-conformance", "locks-conformance", "[dependencies]\nlocks-api.workspace = true\n")
            .member("locks", "locks", "[features]\nfile = []\nmemory = []\n")
            .write("crates/backend-file/tests/conformance.rs", "//! Kit.\nlocks_conformance::main!(File);\n")
            .write(
                "crates/backend-memory/tests/conformance.rs",
                "//! Kit.\nlocks_conformance::main!(Memory);\n",
            )
            .write(
                "crates/locks-conformance/src/cases/names.rs",
                "//! Names.\nCase::new(\"names::one\");\nCase::new(\"names::two\");\n",
            )
            .write("crates/locks/examples/hello.rs", "//! Hello.\n\nfn main() {\n    hello();\n}\n")
    }

    /// A member's manifest that keeps all rules; `more` goes below the package.
    pub(super) fn manifest(name: &str, more: &str) -> String {
        format!(
            "[package]\nname = \"{name}\"\ndescription = \"A test\"\nversion.workspace = true\nedition.workspace = true\n\
             rust-version.workspace = true\nlicense.workspace = true\nkeywords.workspace = true\n\
             categories.workspace = true\n[lints]\nworkspace = true\n{more}"
        )
    }

    /// The same for a member that is never published.
    pub(super) fn unpublished_manifest(name: &str, more: &str) -> String {
        Self::manifest(name, more).replacen("[package]\n", "[package]\npublish = false\n", 1)
    }

    fn member(self, dir: &str, name: &str, more: &str) -> Self {
        self.write(&format!("crates/{dir}/Cargo.toml"), &Self::manifest(name, more))
            .write(&format!("crates/{dir}/README.md"), &format!("# {name}\n"))
            .write(&format!("crates/{dir}/src/lib.rs"), "//! A test.\n")
    }

    pub(super) fn write(self, path: &str, text: &str) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(super) fn append(self, path: &str, text: &str) -> Self {
        let old = fs::read_to_string(self.path(path)).unwrap();
        self.write(path, &(old + text))
    }

    /// Replaces what is there exactly once.
    pub(super) fn edit(self, path: &str, from: &str, to: &str) -> Self {
        let old = fs::read_to_string(self.path(path)).unwrap();
        assert_eq!(old.matches(from).count(), 1, "{from:?} in {path}");
        self.write(path, &old.replace(from, to))
    }

    pub(super) fn remove(self, path: &str) -> Self {
        fs::remove_file(self.path(path)).unwrap();
        self
    }

    /// The named rule, and no other, finds exactly one fault, and says this.
    #[track_caller]
    pub(super) fn expect(self, rule: &str, words: &str) {
        let complaints = self.complaints();
        let fits = |complaint: &Complaint| complaint.rule == rule && complaint.to_string().contains(words);
        assert!(complaints.iter().any(fits), "{rule}: {words}: {complaints:#?}");
        assert!(complaints.iter().all(|complaint| complaint.rule == rule), "{rule}: {complaints:#?}");
    }

    #[track_caller]
    pub(super) fn expect_tidy(self) {
        let complaints = self.complaints();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }

    fn complaints(&self) -> Vec<Complaint> {
        check(&Tree::load(self.dir.path()).unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }
}

const PROVEN: &str = r#"{
  "file": { "passed": { "names": 1 }, "left_out": { "needs luck": ["names::two"] } },
  "memory": { "passed": { "names": 2 }, "left_out": {} }
}
"#;

const WORKSPACE: &str = r#"[workspace]
resolver = "3"
members = ["crates/*"]

[workspace.package]
version = "0.1.0"
edition = "2024"
rust-version = "1.89"
license = "MIT"
keywords = ["lock"]
categories = ["concurrency"]

[workspace.lints.rust]
unsafe_code = "deny"

[workspace.dependencies]
locks = { path = "crates/locks", version = "0.1.0" }
locks-api = { path = "crates/locks-api", version = "0.1.0" }
locks-backend-file = { path = "crates/backend-file", version = "0.1.0" }
locks-backend-memory = { path = "crates/backend-memory", version = "0.1.0" }
locks-conformance = { path = "crates/locks-conformance", version = "0.1.0" }
serde = "1.0" # needed by the tests
"#;

const README: &str = "# locks

```rust
fn main() {
    hello();
}
```

```console
$ cargo xtask test --install
```

[file](docs/backends/file.md), [memory](docs/backends/memory.md)
";
