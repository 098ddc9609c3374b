//! Times as they are written on a command line.

use std::ffi::OsString;
use std::time::Duration;

/// The value as text.
///
/// # Errors
///
/// What is wrong, if it is no UTF-8.
pub(crate) fn text(what: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|value| format!("{what}: {value:?} is not UTF-8"))
}

/// Plain seconds, or a number and a unit, or several.
///
/// # Errors
///
/// What is wrong, in one line.
pub(crate) fn duration(flag: &str, value: OsString) -> Result<Duration, String> {
    let value = text(flag, value)?;
    seconds(&value).or_else(|| humantime::parse_duration(&value).ok()).ok_or_else(|| {
        format!("{flag}: {value:?} is no duration; write seconds or units, such as 0, 1.5, 90s, 2m or 1h30m")
    })
}

/// The same, and more than nothing.
///
/// # Errors
///
/// What is wrong, in one line.
pub(crate) fn positive(flag: &str, value: OsString) -> Result<Duration, String> {
    match duration(flag, value)? {
        Duration::ZERO => Err(format!("{flag}: give more than 0, or leave it out")),
        time => Ok(time),
    }
}

/// Plain seconds, with or without a fraction: no sign, no exponent.
fn seconds(value: &str) -> Option<Duration> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = value.parse().ok().filter(|_| plain)?;
    Duration::try_from_secs_f64(seconds).ok()
}
