//! Which file systems can't be trusted with flock.
//!
//! Over a network, flock is emulated, local to each client, or both by mount option; two clients have been seen to hold
//! one lock at the same time. So those are refused unless the user says otherwise.

use std::os::fd::AsFd;
use std::path::Path;

use locks_api::{Error, ErrorKind, Result};

use crate::error::classify;

/// Refuses the file system that `directory` lies on if it is one of a network, or one that can't be told from it.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`], which names the file system.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "freebsd"))]
pub(crate) fn refuse(directory: impl AsFd, path: &Path) -> Result<()> {
    let stat = rustix::fs::fstatfs(directory)
        .map_err(|error| classify(error, format_args!("can't tell the file system of {}", path.display())))?;
    name(&stat).map_or(Ok(()), |name| Err(refusal(name, path)))
}

/// Nothing is known of other systems; the documentation says so.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "freebsd")))]
pub(crate) fn refuse(_directory: impl AsFd, _path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "freebsd"))]
fn refusal(name: &str, path: &Path) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "lock directory {} is on {name}, where flock may let two holders in; choose a local directory, \
             or set allow_network_fs if you know that it is safe there",
            path.display()
        ),
    )
}

/// The name of an untrusted file system.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn name(stat: &rustix::fs::StatFs) -> Option<&'static str> {
    // The field's type differs between architectures; the numbers are 32 bits wide everywhere.
    untrusted(stat.f_type as u32)
}

/// By the number that the kernel gives each type of file system.
#[cfg(any(target_os = "linux", target_os = "android"))]
const fn untrusted(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517B => "SMB",
        0xFF53_4D42 => "CIFS",
        0xFE53_4D42 => "SMB2",
        0x0102_1997 => "9P",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD0 => "Lustre",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x564C => "NCP",
        0x0116_1970 => "GFS2",
        0x7461_636F => "OCFS2",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0xAAD7_AAEA => "PanFS",
        0x2003_0528 => "OrangeFS",
        0x013D_9AD5 => "GlusterFS",
        0x786F_4256 => "a VirtualBox shared folder",
        0xBACB_ACBC => "a VMware shared folder",
        // GlusterFS, sshfs, s3fs and many more; what stands behind it can't be told.
        0x6573_5546 => "FUSE",
        _ => return None,
    })
}

/// These systems mark what is local.
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
fn name(stat: &rustix::fs::StatFs) -> Option<&'static str> {
    const MNT_LOCAL: u64 = 0x1000;
    (stat.f_flags as u64 & MNT_LOCAL == 0).then_some("a network file system")
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_number_and_local_ones_pass() {
        for (magic, name) in
            [(0x6969, "NFS"), (0xFF53_4D42, "CIFS"), (0x6573_5546, "FUSE"), (0x0102_1997, "9P")]
        {
            assert_eq!(untrusted(magic), Some(name));
        }
        // ext4, XFS, Btrfs, tmpfs, overlayfs, ZFS, F2FS
        for magic in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1, 0xF2F5_2010] {
            assert_eq!(untrusted(magic), None, "{magic:x}");
        }
    }

    #[test]
    fn a_directory_of_this_machine_passes_and_the_refusal_names_path_and_remedy() {
        let temp = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(temp.path()).unwrap();
        refuse(&dir, temp.path()).unwrap();
        let message = refusal("NFS", Path::new("/net/locks")).to_string();
        assert!(
            ["/net/locks", "NFS", "allow_network_fs"].iter().all(|part| message.contains(part)),
            "{message}"
        );
    }
}
