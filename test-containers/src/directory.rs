//! The server's directory, which the container sees under the same path.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How often a directory is removed until it is gone.
const TRIES: u32 = 100;

/// Makes it for this user and nobody else. Refused if anything is there already: what somebody else made is never removed.
pub(crate) fn make(directory: &Path, user: &str) -> Result<()> {
    let what = || format!("making {}", directory.display());
    let (user, group) = user.split_once(':').with_context(|| format!("no user and group: {user}"))?;
    let (user, group) = (user.parse()?, group.parse()?);
    for path in [directory, &directory.join("data")] {
        fs::DirBuilder::new().mode(0o700).create(path).with_context(what)?;
        chown(path, Some(user), Some(group)).with_context(what)?;
    }
    Ok(())
}

/// Removes it with all that is in it, as soon as nobody writes there any more.
pub(crate) async fn remove(directory: &Path) -> Result<()> {
    for _ in 0..TRIES {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                pause().await;
            }
            _ => return Ok(()),
        }
    }
    fs::remove_dir_all(directory).with_context(|| format!("removing {}", directory.display()))
}

#[expect(clippy::disallowed_methods, reason = "nobody tells when the last one has stopped writing")]
async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_there_already_is_left_alone() {
        let directory = std::env::temp_dir().join(format!("locks-test-containers-{}", std::process::id()));
        let ours = fs::metadata("/proc/self").unwrap();
        let user = format!("{}:{}", ours.uid(), ours.gid());
        make(&directory, &user).unwrap();
        assert!(directory.join("data").is_dir());
        let error = make(&directory, &user).unwrap_err();
        assert!(error.to_string().starts_with("making "), "{error}");
        remove(&directory).await.unwrap();
        assert!(!directory.exists());
        remove(&directory).await.unwrap();
    }
}
