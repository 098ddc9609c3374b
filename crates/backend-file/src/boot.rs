//! Which start of the machine this is.

use std::fs;

/// Names one start of the machine, so that a token counter whose latest writes may have died with the last one is recognised.
///
/// Where the system does not tell (anything but Linux, or a Linux without `/proc`) it is unknown and never
/// the same as another: each grant then takes a token from the clock, which costs only the run of tokens for hand-ons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BootId([u8; 16]);

impl BootId {
    const UNKNOWN: Self = Self([0; 16]);

    /// The present one.
    pub(crate) fn of_this_boot() -> Self {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok())
            .map_or(Self::UNKNOWN, |bits| Self(bits.to_be_bytes()))
    }

    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether the machine surely has not been restarted between the two.
    pub(crate) fn is_same_boot(self, other: Self) -> bool {
        self == other && self != Self::UNKNOWN
    }
}
