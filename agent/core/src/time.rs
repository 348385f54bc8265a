//! Time: moments in the two clocks of a host, time since a boot, and how a time is printed.

use serde::{Deserialize, Serialize, de::Error as _};

/// A moment, in the two clocks of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Wall clock, seconds since the epoch; it may jump.
    pub wall: i64,
    /// CLOCK_BOOTTIME, seconds since boot; it never jumps.
    pub boottime: u64,
    /// `/proc/sys/kernel/random/boot_id`: which boot the second clock belongs to.
    pub boot_id: String,
}

impl Moment {
    /// Seconds from `since` until this moment, never more than have surely passed.
    ///
    /// Within one boot the clock that never jumps tells. After a reboot the wall clock does, but not when it is behind
    /// `latest`, the last time that was written down: then only the seconds since this boot are sure.
    pub fn elapsed_since(&self, since: &Moment, latest: i64) -> u64 {
        if self.boot_id == since.boot_id {
            return self.boottime.saturating_sub(since.boottime);
        }
        // a node that is a container has a boot id of its own over the kernel's clock: then that clock has not begun anew, and
        // the difference is right; where it has, the difference is less than what has passed
        let sure = self.boottime.checked_sub(since.boottime).unwrap_or(self.boottime);
        if self.wall < latest {
            return sure;
        }
        u64::try_from(self.wall.saturating_sub(since.wall)).unwrap_or(0).max(sure)
    }
}

/// A time: seconds since the epoch, printed as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let beyond = text.strip_prefix('@').and_then(|seconds| seconds.parse().ok());
        let seconds = beyond.or_else(|| Some(text.parse::<jiff::Timestamp>().ok()?.as_second()));
        seconds.map(Self).ok_or_else(|| D::Error::custom(format!("`{text}` is no time")))
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "@{}", self.0), // beyond the year 9999
        }
    }
}

impl Time {
    /// The date, in UTC; of a time that has none, what it is printed as.
    pub fn date(self) -> String {
        let time = self.to_string();
        time.split('T').next().unwrap_or(&time).to_owned()
    }
}

/// A time of the wall clock to the microsecond, printed as Kubernetes' MicroTime: `2026-11-30T07:04:05.000123Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MicroTime(
    /// Microseconds since the epoch.
    pub i64,
);

impl std::fmt::Display for MicroTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // what lies beyond the year 9999 is printed as the epoch: the API server takes no other form, and nobody goes by this time
        let time = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{time:.6}")
    }
}

impl Serialize for MicroTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Milliseconds since a boot, of the clock that does not jump (CLOCK_BOOTTIME): what starts of processes and changes of the
/// bundle are compared by, never the times of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Uptime {
    /// Which boot.
    pub boot_id: String,
    /// Milliseconds since then.
    pub milliseconds: u64,
}

#[cfg(test)]
#[path = "time_tests.rs"]
mod tests;
