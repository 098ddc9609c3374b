//! What a user can choose.

use std::time::Duration;

use locks_api::spi::TtlLimits;
use locks_api::{Error, ErrorKind, Result};

/// How the locks of one namespace are kept. Everybody who shares a namespace must choose the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdOptions {
    pub(crate) namespace: String,
}

/// The minimum of a cluster with the default election timeout. Each cluster has its own, which it tells when it is asked for less.
pub(crate) const MIN_TTL: Duration = Duration::from_secs(2);

const DEFAULT_TTL: Duration = Duration::from_secs(15);

const MAX_TTL: Duration = Duration::from_secs(3600);

impl Default for EtcdOptions {
    /// Namespace `locks`.
    fn default() -> Self {
        Self { namespace: "locks".to_owned() }
    }
}

impl EtcdOptions {
    /// The beginning of all keys: 1 to 64 of `A-Z a-z 0-9 . _ : - /`. Locks of different namespaces don't know of each other.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Fails with [`ErrorKind::Config`] if one of them makes no sense.
    pub(crate) fn check(&self) -> Result<()> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-' | '/');
        if !(1..=64).contains(&self.namespace.len()) || !self.namespace.chars().all(is_plain) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the namespace {:?} is not 1 to 64 letters, digits or . _ : - /", self.namespace),
            ));
        }
        Ok(())
    }

    pub(crate) const fn limits() -> TtlLimits {
        TtlLimits::new(MIN_TTL, DEFAULT_TTL, MAX_TTL)
    }
}
