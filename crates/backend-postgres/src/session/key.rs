//! Which advisory locks stand for a lock.

use locks_api::LockName;
use sha2::{Digest as _, Sha256};

use crate::options::PostgresOptions;

/// The advisory locks of a lock: two of its holder, and one of those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Keys {
    /// The one that excludes, and that other programs may know.
    pub(crate) key: i64,
    /// Had before the first by whoever holds it under this name. Where it is free and the first is not, somebody else holds that:
    /// another program, a transaction, or another name with the same key.
    pub(crate) witness: i64,
    /// Shared by those who wait.
    pub(crate) bell: i64,
}

impl Keys {
    /// Of this name, in the key space of these options.
    pub(crate) fn of(name: &LockName, options: &PostgresOptions) -> Self {
        let mut hash = Sha256::new();
        for part in [&options.schema, "\n", &options.prefix, "\n", name.as_str()] {
            hash.update(part);
        }
        let hash = hash.finalize();
        let bits = |at: usize| {
            hash.iter().skip(at * 8).take(8).fold(0, |bits: i64, byte| (bits << 8) | i64::from(*byte))
        };
        Self { key: named(name.as_str()).unwrap_or(bits(0)), witness: bits(1), bell: bits(2) }
    }
}

/// The key of a name that says which: `pg_advisory_lock(42)`.
fn named(name: &str) -> Option<i64> {
    let digits = name.strip_prefix("pg_advisory_lock(")?.strip_suffix(')')?;
    let key: i64 = digits.parse().ok()?;
    // One key, one name.
    (key.to_string() == digits).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(name: &str, options: &PostgresOptions) -> Keys {
        Keys::of(&LockName::new(name).unwrap(), options)
    }

    /// Processes of different versions must agree.
    #[test]
    fn the_mapping_is_stable() {
        let options = PostgresOptions::default();
        // SELECT ('x' || encode(substr(sha256(E'locks\n\nreports/nightly'), 1, 8), 'hex'))::bit(64)::bigint
        let nightly = keys("reports/nightly", &options);
        let expected = Keys {
            key: -2_578_941_937_990_591_468,
            witness: 6_134_960_684_725_076_864,
            bell: -2_727_882_188_973_602_007,
        };
        assert_eq!(nightly, expected);
        assert_ne!(keys("reports/nightly ", &options).key, nightly.key);
        for other in [options.clone().schema("app"), options.prefix("l_")] {
            assert_ne!(keys("reports/nightly", &other), nightly);
        }
    }

    #[test]
    fn no_part_runs_into_the_next() {
        let options = PostgresOptions::default();
        assert_ne!(keys("b", &options.clone().prefix("a")), keys("ab", &options));
    }

    #[test]
    fn a_name_can_say_which_key() {
        let options = PostgresOptions::default();
        assert_eq!(keys("pg_advisory_lock(42)", &options).key, 42);
        assert_eq!(keys("pg_advisory_lock(-9223372036854775808)", &options).key, i64::MIN);
        for other in [
            "pg_advisory_lock(042)",
            "pg_advisory_lock(+42)",
            "pg_advisory_lock( 42)",
            "pg_advisory_lock(4, 2)",
            "pg_advisory_lock(9223372036854775808)",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
