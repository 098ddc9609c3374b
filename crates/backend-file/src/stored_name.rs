//! The full name of a lock, kept in a file whose own name is a hash.

use locks_api::{LockName, Result};

use crate::lock_file::LockFile;

/// Where the full name lies in a file whose own name is a hash.
pub(crate) const NAME: u64 = 1024;

const NAME_MAGIC: [u8; 8] = *b"locksnam";
const NAME_HEADER: usize = 16;
/// The most bytes that the name takes in the file.
pub(crate) const NAME_LEN: usize = NAME_HEADER + LockName::MAX_BYTES;

/// The bytes that store `name`: magic, crc32 of the name, its length, zero, the name.
pub(crate) fn encode_name(name: &LockName) -> Vec<u8> {
    let name = name.as_str().as_bytes();
    let mut bytes = NAME_MAGIC.to_vec();
    bytes.extend(crc32fast::hash(name).to_le_bytes());
    bytes.extend((name.len() as u32).to_le_bytes());
    bytes.extend(name);
    bytes
}

/// The name in this file, if it was written whole.
pub(crate) fn read(file: &LockFile) -> Result<Option<LockName>> {
    let mut bytes = [0; NAME_LEN];
    let len = file.read(&mut bytes, NAME)?;
    let name = decode_name(&bytes[..len]).and_then(|name| std::str::from_utf8(name).ok());
    Ok(name.and_then(|name| LockName::new(name).ok()))
}

/// The name in these bytes, if it was written whole.
pub(crate) fn decode_name(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_at_checked(NAME_HEADER)?;
    let len = u32::from_le_bytes(field(header, 12));
    let name = rest.get(..usize::try_from(len).ok()?)?;
    (header[..8] == NAME_MAGIC && u32::from_le_bytes(field(header, 8)) == crc32fast::hash(name))
        .then_some(name)
}

fn field(header: &[u8], start: usize) -> [u8; 4] {
    let mut field = [0; 4];
    field.copy_from_slice(&header[start..start + 4]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_name_reads_back_only_if_it_is_whole() {
        let name = LockName::new("n".repeat(1024)).unwrap();
        let bytes = encode_name(&name);
        assert_eq!(bytes.len(), NAME_LEN);
        assert_eq!(decode_name(&bytes), Some(name.as_str().as_bytes()));
        assert_eq!(decode_name(&bytes[..500]), None);
        assert_eq!(decode_name(&[0; NAME_LEN]), None);
        assert_eq!(decode_name(&[]), None);
    }
}
