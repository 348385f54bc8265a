//! Times and spans of time.

use nodetrust_core::time::Time;

/// The date.
pub(crate) fn day(time: Time) -> String {
    time.date()
}

/// How long ago a time was.
pub(crate) fn ago(now: Time, then: Time) -> String {
    match now.0 - then.0 {
        ..0 => "in the future".into(),
        0..5 => "now".into(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// A span of time in its largest unit.
pub(crate) fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{} s", seconds.max(0)),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_use_one_unit() {
        let texts: Vec<String> = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(span).to_vec();
        assert_eq!(texts, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
        assert_eq!(ago(Time(10), Time(20)), "in the future");
    }
}
