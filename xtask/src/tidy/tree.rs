//! A repository as the rules see it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cargo_metadata::{Dependency, DependencyKind};

use crate::report::proven;
use crate::workspace;

/// The packages and the text files of one repository.
pub(crate) struct Tree {
    /// The members of the workspace.
    pub(super) packages: Vec<Package>,
    /// All files that people write, sorted by path.
    pub(super) files: Vec<File>,
}

/// A member of the workspace.
pub(super) struct Package {
    pub(super) name: String,
    /// Where it is, from the root: `crates/locks-api`.
    pub(super) dir: String,
    pub(super) description: Option<String>,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) features: Vec<String>,
    /// Its Cargo.toml as written, before cargo fills in what is inherited.
    pub(super) manifest: toml::Table,
}

/// A text file.
pub(super) struct File {
    /// From the root, with slashes: `crates/locks-api/src/lib.rs`.
    pub(super) path: String,
    pub(super) text: String,
}

/// Written by programs, or not ours.
const SKIPPED_DIRS: [&str; 2] = [".git", "target"];
const TEXT_EXTENSIONS: [&str; 3] = ["md", "rs", "toml"];
const TEXT_FILES: [&str; 4] = [".ci/run", "LICENSE-APACHE", "LICENSE-MIT", proven::FILE];

impl Tree {
    /// Reads the repository at `root`.
    ///
    /// # Errors
    ///
    /// If cargo can't read the workspace or a file can't be read.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let metadata = workspace::members(root)?;
        let mut packages = Vec::new();
        for package in metadata.packages {
            let path = package.manifest_path.as_std_path();
            let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
            let dir = package.manifest_path.parent().context("a manifest without a directory")?;
            let dir = dir.strip_prefix(&metadata.workspace_root).unwrap_or(dir);
            packages.push(Package {
                name: package.name.to_string(),
                dir: dir.to_string(),
                description: package.description,
                dependencies: package.dependencies,
                features: package.features.into_keys().collect(),
                manifest: text.parse().with_context(|| format!("can't parse {}", path.display()))?,
            });
        }
        let mut files = Vec::new();
        collect(root, Path::new(""), &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { packages, files })
    }

    /// The file with this path, if it is there.
    pub(super) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The packages below `crates/`.
    pub(super) fn crates(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.dir.starts_with("crates/"))
    }

    /// Whether a file or directory with this path is there.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path || file.path.starts_with(&format!("{path}/")))
    }
}

impl Package {
    /// The technology of a backend: `crates/backend-file` is `file`.
    pub(super) fn technology(&self) -> Option<&str> {
        self.dir.strip_prefix("crates/backend-")
    }

    /// Whether it is meant for a registry.
    pub(super) fn is_published(&self) -> bool {
        let publish = self.manifest.get("package").and_then(|package| package.get("publish"));
        publish.and_then(toml::Value::as_bool) != Some(false)
    }

    /// The path of its manifest.
    pub(super) fn manifest_path(&self) -> String {
        format!("{}/Cargo.toml", self.dir)
    }

    /// Its dependencies on members of this workspace.
    pub(super) fn internal(&self) -> impl Iterator<Item = &Dependency> {
        self.dependencies.iter().filter(|dependency| dependency.path.is_some())
    }

    /// Its dependencies on members that end up in what it is used in.
    pub(super) fn internal_normal(&self) -> impl Iterator<Item = &Dependency> {
        self.internal().filter(|dependency| dependency.kind != DependencyKind::Development)
    }
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<File>) -> Result<()> {
    let entries = fs::read_dir(root.join(dir)).with_context(|| format!("can't list {}", dir.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("can't list {}", dir.display()))?;
        let relative: PathBuf = dir.join(entry.file_name());
        let name = relative.to_string_lossy().replace('\\', "/");
        if entry.file_type().with_context(|| format!("can't look at {name}"))?.is_dir() {
            if !SKIPPED_DIRS.iter().any(|skipped| entry.file_name() == *skipped) {
                collect(root, &relative, files)?;
            }
        } else if is_text(&relative, &name) {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("can't read {name}"))?;
            files.push(File { path: name, text });
        }
    }
    Ok(())
}

fn is_text(path: &Path, name: &str) -> bool {
    let extension = path.extension().unwrap_or_default();
    TEXT_EXTENSIONS.iter().any(|known| extension == *known) || TEXT_FILES.contains(&name)
}
