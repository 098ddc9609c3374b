//! From the name of a lock to the names of its files.

use std::fmt::Write as _;

use locks_api::LockName;
use sha2::{Digest, Sha256};

/// The longest file name that every file system takes, in bytes.
const MAX_FILE_NAME: usize = 255;

/// The longest suffix that is put behind a stem.
const SUFFIX: usize = ".lock".len();

/// How much of a long name is kept readable before its hash.
const READABLE_PREFIX: usize = 120;

/// The part that the names of a lock's files have in common.
///
/// The mapping is part of the on-disk format and never changes: processes built from different versions must meet.
/// It is injective, and stays so where the file system folds case or normalises Unicode, because
/// everything but `[a-z0-9_-.]` is spelt out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileName {
    stem: String,
    /// Whether the stem holds a hash, so that the file must hold the full name.
    hashed: bool,
}

/// Before the names of the side files of existing paths. Never in a name that is spelt out.
const PATH_MARK: char = '@';

/// What the name of a file says about its lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Name(LockName),
    /// The name is in the file.
    Hashed,
}

impl FileName {
    /// Reads the name of a lock file back; `None` for any other file, and for those of the other kind of names.
    pub(crate) fn read(file: &str, paths: bool) -> Option<Read> {
        let stem = file.strip_suffix(".lock")?;
        let stem = match paths {
            true => stem.strip_prefix(PATH_MARK)?,
            false => stem,
        };
        if stem.contains('~') {
            return (paths || !stem.starts_with(PATH_MARK)).then_some(Read::Hashed);
        }
        let mut name = Vec::with_capacity(stem.len());
        let mut rest = stem.bytes();
        while let Some(byte) = rest.next() {
            name.push(match byte {
                b'+' => rest.next()?.to_ascii_uppercase(),
                b'%' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                byte => byte,
            });
        }
        let name = LockName::new(String::from_utf8(name).ok()?).ok()?;
        // What is spelt in another way is not ours.
        (Self::of(&name).stem == stem).then_some(Read::Name(name))
    }

    /// The files of the lock whose own file has this name, but for the suffix.
    pub(crate) fn from_stem(stem: &str) -> Self {
        Self { stem: stem.to_owned(), hashed: stem.contains('~') }
    }

    /// The files of the lock on an existing path.
    pub(crate) fn of_path(path: &LockName) -> Self {
        let mut files = Self::spelt(path, MAX_FILE_NAME - SUFFIX - PATH_MARK.len_utf8());
        files.stem.insert(0, PATH_MARK);
        files
    }

    pub(crate) fn of(name: &LockName) -> Self {
        Self::spelt(name, MAX_FILE_NAME - SUFFIX)
    }

    fn spelt(name: &LockName, longest: usize) -> Self {
        let mut stem = String::with_capacity(name.as_str().len() + SUFFIX);
        let mut readable = 0;
        for (index, byte) in name.as_str().bytes().enumerate() {
            match byte {
                b'.' if index == 0 => stem.push_str("%2e"),
                b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' => stem.push(char::from(byte)),
                b'A'..=b'Z' => {
                    stem.push('+');
                    stem.push(char::from(byte.to_ascii_lowercase()));
                }
                _ => push_hex(&mut stem, "%", byte),
            }
            if stem.len() <= READABLE_PREFIX {
                readable = stem.len();
            }
        }
        let hashed = stem.len() > longest;
        if hashed {
            stem.truncate(readable);
            stem.push('~'); // never in a name that is spelt out
            for byte in Sha256::digest(name.as_str().as_bytes()) {
                push_hex(&mut stem, "", byte);
            }
        }
        Self { stem, hashed }
    }

    /// The file that carries the lock.
    pub(crate) fn lock(&self) -> String {
        self.with_suffix(".lock")
    }

    /// The file at which waiting processes line up.
    pub(crate) fn gate(&self) -> String {
        self.with_suffix(".gate")
    }

    fn with_suffix(&self, suffix: &str) -> String {
        let mut name = String::with_capacity(self.stem.len() + SUFFIX);
        name.push_str(&self.stem);
        name.push_str(suffix);
        name
    }

    /// Whether the name of the lock can't be told from the name of the file.
    pub(crate) fn is_hashed(&self) -> bool {
        self.hashed
    }
}

fn push_hex(to: &mut String, prefix: &str, byte: u8) {
    write!(to, "{prefix}{byte:02x}").expect("writing to a String never fails");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn lock_file(name: &str) -> String {
        FileName::of(&LockName::new(name).unwrap()).lock()
    }

    /// These are promises: a process of any version must find the same file.
    #[test]
    fn the_mapping_is_stable() {
        for (name, file) in [
            ("nightly", "nightly.lock"),
            ("reports/nightly", "reports%2fnightly.lock"),
            ("Reports", "+reports.lock"),
            ("a b", "a%20b.lock"),
            ("a.", "a..lock"),
            (".", "%2e.lock"),
            ("..", "%2e..lock"),
            (".hidden", "%2ehidden.lock"),
            ("+a", "%2ba.lock"),
            ("100%", "100%25.lock"),
            ("a~b", "a%7eb.lock"),
            ("é", "%c3%a9.lock"),
            ("e\u{301}", "e%cc%81.lock"),
            ("A_b-C.9", "+a_b-+c.9.lock"),
            ("x.lock", "x.lock.lock"),
        ] {
            assert_eq!(lock_file(name), file, "{name:?}");
        }
        assert_eq!(FileName::of(&LockName::new("x").unwrap()).gate(), "x.gate");
        assert_eq!(
            lock_file(&"a".repeat(251)),
            format!(
                "{}~772f911dd9d6692897188d0b03f718fb5fbd02020d0fce1374f1354a31205024.lock",
                "a".repeat(120)
            )
        );
    }

    #[test]
    fn names_are_spelt_out_up_to_the_limit_and_hashed_above_it() {
        let longest = FileName::of(&LockName::new("a".repeat(250)).unwrap());
        assert!(!longest.is_hashed());
        assert_eq!(longest.lock().len(), MAX_FILE_NAME);
        for name in ["a".repeat(251), "A".repeat(1024), "é".repeat(512), "/".repeat(1024)] {
            let hashed = FileName::of(&LockName::new(&name).unwrap());
            assert!(hashed.is_hashed());
            assert!(hashed.lock().len() <= MAX_FILE_NAME, "{}", hashed.lock());
        }
        // An escape is never cut in two: the readable part ends before the one that does not fit.
        let cut = lock_file(&format!("{}{}", "a".repeat(119), "/".repeat(100)));
        assert_eq!(cut.find('~'), Some(119));
    }

    #[test]
    fn the_name_reads_back() {
        for name in ["nightly", "reports/nightly", ".Hidden", "100% É~+@", &"a".repeat(250)] {
            let name = LockName::new(name).unwrap();
            assert_eq!(FileName::read(&FileName::of(&name).lock(), false), Some(Read::Name(name.clone())));
            assert_eq!(FileName::read(&FileName::of(&name).lock(), true), None);
            assert_eq!(FileName::read(&FileName::of_path(&name).lock(), false), None);
            let path = FileName::of_path(&name);
            assert!(path.lock().len() <= MAX_FILE_NAME);
            let read = if path.is_hashed() { Read::Hashed } else { Read::Name(name) };
            assert_eq!(FileName::read(&path.lock(), true), Some(read));
        }
        let long = FileName::of(&LockName::new("a".repeat(251)).unwrap()).lock();
        assert_eq!(FileName::read(&long, false), Some(Read::Hashed));
        for other in ["x.gate", "x", ".new-1.lock", "%zz.lock", "%61.lock", "+.lock", ".lock", "X.lock"] {
            assert_eq!(FileName::read(other, false), None, "{other}");
        }
        assert_eq!(FileName::of_path(&LockName::new("/var/x").unwrap()).lock(), "@%2fvar%2fx.lock");
    }

    /// What a case-folding, normalising file system could confuse differs in more than case.
    #[test]
    fn look_alikes_get_files_of_their_own() {
        let names = [
            "a", "A", "a.", "A.", ".a", "%41", "+a", "+A", "%2ba", "a/b", "a%2fb", "a\\b", "é", "e\u{301}",
            "É", "ß", "ss", "SS", "ı", "i", "I", "İ", "a\n", "a ", " a", "con", "CON", "~", "a~",
        ];
        let mut files = HashSet::new();
        for name in names {
            let file = lock_file(name);
            assert!(file.is_ascii() && !file.chars().any(|char| char.is_ascii_uppercase()), "{file}");
            assert!(!file.starts_with('.') && !file.contains('/'), "{file}");
            assert!(files.insert(file), "{name:?} shares its file");
        }
    }
}
