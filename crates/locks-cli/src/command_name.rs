//! The name of the lock when the command line gives none.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// The most bytes of the command's own name that go into the lock's name, before the hash.
const READABLE_BYTES: usize = 64;

/// The name of the lock of this exact command line: `backup.sh-` and 64 hexadecimal digits.
///
/// The digits are the SHA-256 of every argument's bytes, each after its length: so `a "b c"` and `"a b" c` differ, and so do arguments that
/// are no UTF-8. Of the arguments themselves nothing can be read in it, since they may hold passwords and the
/// name of a lock is seen by all who use the store.
pub(crate) fn of(command: &[OsString]) -> String {
    let mut hash = Sha256::new();
    for argument in command {
        hash.update((argument.len() as u64).to_le_bytes());
        hash.update(argument.as_bytes());
    }
    let mut name = command.first().map(|program| readable(program)).unwrap_or_default();
    name.push('-');
    push_hex(&mut name, &hash.finalize());
    name
}

/// Adds two hexadecimal digits for each byte.
pub(crate) fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
}

/// The program's name without its directory, for people to read.
pub(crate) fn readable(program: &OsStr) -> String {
    let base = Path::new(program).file_name().unwrap_or(program).to_string_lossy();
    let kept = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+') { c } else { '_' };
    let mut readable = String::new();
    for c in base.chars().map(kept) {
        if readable.len() + c.len_utf8() > READABLE_BYTES {
            break;
        }
        readable.push(c);
    }
    readable
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn argv(arguments: &[&[u8]]) -> Vec<OsString> {
        arguments.iter().map(|bytes| OsString::from_vec(bytes.to_vec())).collect()
    }

    #[test]
    fn every_cut_of_the_same_bytes_has_its_own_name() {
        let all: &[&[&[u8]]] = &[
            &[b"a", b"b c"],
            &[b"a b", b"c"],
            &[b"a", b"b", b"c"],
            &[b"a b c"],
            &[b"a", b"b c", b""],
            &[b"a", b"", b"b c"],
            &[b"a", b"b\xffc"],
            &[b"a", b"b\xfec"],
            &[b"a", "b\u{fffd}c".as_bytes()],
            &[b"a"],
            &[b"/bin/a"],
        ];
        let names: HashSet<_> = all.iter().map(|arguments| of(&argv(arguments))).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn the_name_is_fixed_for_ever() {
        // Computed by hand with another program: processes of two versions must meet.
        assert_eq!(
            of(&argv(&[b"/opt/backup.sh", b"--full"])),
            "backup.sh-63482fe3aa9e3bee1a46f9b58dfeb43fe8db470fcccafb3b490e87c16a7eb8e8"
        );
    }

    #[test]
    fn the_readable_part_is_short_and_tame() {
        assert_eq!(readable(OsStr::new("/usr/bin/my tool\n")), "my_tool_");
        assert_eq!(readable(OsStr::new(&"é".repeat(1_000))).len(), READABLE_BYTES);
        assert_eq!(readable(OsStr::new("")), "");
        assert!(of(&argv(&[&[b'x'; 4_096], b"y"])).len() <= 1_024);
    }
}
