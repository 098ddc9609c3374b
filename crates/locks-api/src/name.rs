//! The name of a lock.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// The name of a lock: 1 to 1024 bytes of UTF-8 without NUL, the same on every backend.
///
/// Names are compared byte by byte. Names that differ only in case, in a trailing dot or in Unicode
/// normalisation are different locks everywhere. Cloning is cheap.
///
/// ```
/// use locks_api::{ErrorKind, LockName};
///
/// let name = LockName::new("reports/nightly")?;
/// assert_eq!(name.as_str(), "reports/nightly");
/// assert_eq!(LockName::new("").unwrap_err().kind(), ErrorKind::InvalidName);
/// # Ok::<(), locks_api::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockName(Arc<str>);

impl LockName {
    /// The longest name, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 1024;

    /// Checks `name` and keeps it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidName`] if the name is empty, longer than [`LockName::MAX_BYTES`] or holds a NUL.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Error> {
        let name = name.as_ref();
        let complaint = if name.is_empty() {
            "a lock name can't be empty; give it 1 to 1024 bytes of UTF-8".to_owned()
        } else if name.len() > Self::MAX_BYTES {
            format!(
                "a lock name has at most {} bytes and this one, beginning {:?}, has {}",
                Self::MAX_BYTES,
                name.chars().take(32).collect::<String>(),
                name.len()
            )
        } else if name.contains('\0') {
            format!("a lock name can't hold a NUL character: {name:?}")
        } else {
            return Ok(Self(name.into()));
        };
        Err(Error::new(ErrorKind::InvalidName, complaint))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for LockName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_exact() {
        assert!(LockName::new("a").is_ok());
        assert!(LockName::new("a".repeat(1024)).is_ok());
        assert!(LockName::new("é".repeat(512)).is_ok());
        for bad in ["", "a\0b", &"a".repeat(1025), &"é".repeat(513)] {
            assert_eq!(LockName::new(bad).unwrap_err().kind(), ErrorKind::InvalidName, "{bad:?}");
        }
    }
}
