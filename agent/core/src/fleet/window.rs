//! The hours in which nodes may restart: days, start and end in a time zone.
//!
//! A window is open at each moment whose local time lies within its hours. That says what happens when clocks change: an hour that occurs twice
//! is open twice, and one that does not occur is not open. A window that reaches over midnight belongs to the day on which it starts.

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, Time as CivilTime, Weekday},
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

/// Days over which the next opening or closing is looked for: a week, and a day for each side of it.
const HORIZON_DAYS: i32 = 9;
/// Changes of a zone's offset that are looked at within the horizon.
const MAX_CHANGES: usize = 8;
/// Bytes of the name of a time zone.
const MAX_ZONE_NAME: usize = 64;
/// The days as they are written.
const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// `fleet.window`: when restarts may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartWindow {
    days: Vec<Weekday>,
    start: CivilTime,
    end: CivilTime,
    zone: TimeZone,
}

/// Whether a window is open. Times are seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowState {
    /// It is open.
    Open {
        /// When it closes; None if it does not within a week.
        until: Option<i64>,
    },
    /// It is closed.
    Closed {
        /// When it opens; None if it does not within a week, such as for hours that a change of clocks leaves out.
        until: Option<i64>,
    },
}

/// A field of a window that has not the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fleet.window.{field}: expected {expected}, and not `{found}`")]
pub struct BadWindow {
    /// The field's name within `fleet.window`.
    pub field: &'static str,
    /// The expected form.
    pub expected: &'static str,
    /// What is there.
    pub found: String,
}

impl RestartWindow {
    /// Reads the fields as they are written. None if they restrict nothing: no days, no start and no end. No days are all days; no start and
    /// no end are the whole day, as are a start and an end that are the same. No time zone is UTC.
    pub fn parse(days: &[String], start: &str, end: &str, zone: &str) -> Result<Option<Self>, BadWindow> {
        let bad = |field, expected, found: &str| BadWindow { field, expected, found: found.to_owned() };
        let day = |text: &String| {
            let found = DAYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            found.map(|(_, day)| *day).ok_or_else(|| bad("days", "Mon, Tue, Wed, Thu, Fri, Sat or Sun", text))
        };
        let days = days.iter().map(day).collect::<Result<Vec<_>, _>>()?;
        const HOUR: &str = "a time such as \"22:00\", from 00:00 to 24:00";
        let hour = |field, text: &str| clock(text).ok_or_else(|| bad(field, HOUR, text));
        let (start, end) = match (start, end) {
            ("", "") => (CivilTime::midnight(), CivilTime::midnight()),
            ("", _) => return Err(bad("start", "a time, since there is an end", start)),
            (_, "") => return Err(bad("end", "a time, since there is a start", end)),
            (start, end) => (hour("start", start)?, hour("end", end)?),
        };
        let unknown = || bad("timeZone", "the name of a time zone, such as Europe/Berlin", zone);
        let zone = match zone {
            "" | "UTC" => TimeZone::UTC,
            name if name.len() > MAX_ZONE_NAME => return Err(unknown()),
            name => TimeZoneDatabase::bundled().get(name).map_err(|_| unknown())?,
        };
        let restricts = !days.is_empty() || start != end;
        Ok(restricts.then_some(Self { days, start, end, zone }))
    }

    /// Whether it is open at a time in seconds since the epoch, and when that changes.
    pub fn state(&self, now: i64) -> WindowState {
        let Ok(at) = Timestamp::from_second(now) else { return WindowState::Closed { until: None } };
        let open = self.is_open(at);
        let mut moments = self.moments(at);
        moments.sort_unstable();
        let until = moments.into_iter().filter(|moment| *moment > at).find(|moment| self.is_open(*moment) != open);
        let until = until.map(Timestamp::as_second);
        if open { WindowState::Open { until } } else { WindowState::Closed { until } }
    }

    fn is_open(&self, at: Timestamp) -> bool {
        let local = self.zone.to_datetime(at);
        let (date, time) = (local.date(), local.time());
        if self.start < self.end {
            return self.start <= time && time < self.end && self.counts(Some(date));
        }
        match time >= self.start {
            true => self.counts(Some(date)),
            false => time < self.end && self.counts(date.yesterday().ok()),
        }
    }

    fn counts(&self, date: Option<Date>) -> bool {
        date.is_some_and(|date| self.days.is_empty() || self.days.contains(&date.weekday()))
    }

    /// The moments within the horizon at which it may open or close: starts, ends, and changes of the zone's offset.
    fn moments(&self, at: Timestamp) -> Vec<Timestamp> {
        let today = self.zone.to_datetime(at).date();
        let mut moments = Vec::new();
        for offset in -1..HORIZON_DAYS {
            let Ok(date) = today.checked_add(offset.days()) else { continue };
            for time in [self.start, self.end] {
                let moment = date.to_datetime(time);
                let offsets = match self.zone.to_ambiguous_timestamp(moment).offset() {
                    AmbiguousOffset::Unambiguous { offset } => [offset, offset],
                    AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => [before, after],
                };
                moments.extend(offsets.iter().filter_map(|offset| offset.to_timestamp(moment).ok()));
            }
        }
        moments.extend(self.zone.following(at).take(MAX_CHANGES).map(|change| change.timestamp()));
        // a change of the offset years ahead says nothing about this week
        let last = at.as_second() + i64::from(HORIZON_DAYS) * 86_400;
        moments.retain(|moment| moment.as_second() <= last);
        moments
    }
}

/// A time of the day: `HH:MM`; 24:00 is midnight.
fn clock(text: &str) -> Option<CivilTime> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| {
        let fits = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| digits.parse::<i8>().ok()).flatten()
    };
    match (number(hours)?, number(minutes)?) {
        (24, 0) => Some(CivilTime::midnight()),
        (hours, minutes) => CivilTime::new(hours, minutes, 0, 0).ok(),
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
