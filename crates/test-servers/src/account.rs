//! The account under which servers run that refuse to run as root.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::error::Error;

/// The accounts that are looked for, in this order.
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// A user and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// The one for servers that refuse root: `None` if this process is not root's, and can't choose.
    pub(crate) fn of_servers() -> Result<Option<Self>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd")?;
        let found = NAMES.iter().find_map(|name| accounts.lines().find_map(|line| Self::named(name, line)));
        found.map(Some).ok_or_else(|| {
            Error::failed(format!(
                "there is no account for a server that refuses root: {}",
                NAMES.join(" or ")
            ))
        })
    }

    /// The user, if a command that runs under this account, or without one, has that.
    pub(crate) fn user(account: Option<Self>) -> u32 {
        account.map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.user)
    }

    /// User and group of a server that runs under this account, or without one: "101:104".
    pub(crate) fn ids(account: Option<Self>) -> String {
        let group = account.map_or_else(|| rustix::process::getegid().as_raw(), |account| account.group);
        format!("{}:{group}", Self::user(account))
    }

    /// Lets a command run under it.
    pub(crate) fn apply_to(self, command: &mut Command) {
        command.uid(self.user).gid(self.group);
    }

    /// Gives it a file.
    pub(crate) fn give(self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.user), Some(self.group))
    }

    /// "postgres:x:101:104:..."
    fn named(name: &str, line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let mut number = |skipped| fields.nth(skipped)?.parse().ok();
        Some(Self { user: number(1)?, group: number(0)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_from_its_line() {
        let line = "postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash";
        assert_eq!(Account::named("postgres", line), Some(Account { user: 101, group: 104 }));
        assert_eq!(Account::named("postgre", line), None);
        assert_eq!(Account::named("nobody", "nobody:x:"), None);
    }
}
