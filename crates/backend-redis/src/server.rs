//! What the server says of itself, and what of it is refused.

use std::collections::HashMap;

use locks_api::{Error, ErrorKind, Result};

use crate::error::{CLUSTER, strange};

/// Which server, and which life of it, a connection reaches. A server that was started again or promoted is another one: it may have
/// forgotten grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    /// Random, of this start of the server.
    pub(crate) run: String,
    /// The replication offset at which it was last promoted, or -1.
    pub(crate) promoted: String,
}

/// The answer to `INFO`.
#[derive(Debug)]
pub(crate) struct Info<'a>(HashMap<&'a str, &'a str>);

/// The sections that [`Info::check`] looks at.
pub(crate) const SECTIONS: [&str; 4] = ["server", "replication", "memory", "cluster"];

impl<'a> Info<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.split_once(':')).collect())
    }

    pub(crate) fn incarnation(&self) -> Result<Incarnation> {
        let run = self.field("run_id")?;
        let promoted = self.field("second_repl_offset")?;
        Ok(Incarnation { run: run.to_owned(), promoted: promoted.to_owned() })
    }

    /// When the server was last promoted.
    pub(crate) fn promoted(&self) -> Result<&'a str> {
        self.field("second_repl_offset")
    }

    pub(crate) fn is_primary(&self) -> Result<bool> {
        Ok(self.field("role")? == "master")
    }

    /// Fails if locks on this server can't be relied on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`], with what to change.
    pub(crate) fn check(&self, allow_eviction: bool) -> Result<()> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Unsupported, message));
        let version = self.field("redis_version")?;
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < OLDEST) {
            return refuse(format!(
                "the server is Redis {version}; locks need Redis {OLDEST} or later, or Valkey"
            ));
        }
        if self.0.get("cluster_enabled").is_some_and(|enabled| *enabled == "1") {
            return refuse(CLUSTER.to_owned());
        }
        let policy = self.field("maxmemory_policy")?;
        if policy != "noeviction" && !allow_eviction {
            return refuse(format!(
                "the server evicts keys when its memory is full (maxmemory-policy {policy}), and a lock is a key; set the \
                 policy to noeviction, use another server, or accept that with allow_eviction=on"
            ));
        }
        Ok(())
    }

    fn field(&self, name: &'static str) -> Result<&'a str> {
        self.0.get(name).copied().ok_or_else(|| strange(format!("INFO without {name}")))
    }
}

const OLDEST: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nrun_id:ab12\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n\
                        # Replication\r\nrole:master\r\nsecond_repl_offset:-1\r\n# Cluster\r\ncluster_enabled:0\r\n";

    #[test]
    fn a_good_server_is_accepted() {
        let info = Info::parse(GOOD);
        info.check(false).unwrap();
        assert!(info.is_primary().unwrap());
        assert_eq!(info.incarnation().unwrap(), Incarnation { run: "ab12".into(), promoted: "-1".into() });
    }

    #[test]
    fn a_bad_one_is_refused_with_what_to_do() {
        for (old, new, word) in [
            ("7.0.15", "6.2.1", "Redis 7"),
            ("noeviction", "allkeys-lru", "allow_eviction"),
            ("noeviction", "volatile-ttl", "allow_eviction"),
            ("cluster_enabled:0", "cluster_enabled:1", "Cluster"),
        ] {
            let text = GOOD.replace(old, new);
            let error = Info::parse(&text).check(false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(word), "{error}");
        }
        Info::parse(&GOOD.replace("noeviction", "allkeys-lru")).check(true).unwrap();
        assert_eq!(Info::parse("role:master").check(false).unwrap_err().kind(), ErrorKind::Backend);
    }
}
