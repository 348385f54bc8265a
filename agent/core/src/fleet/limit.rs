//! How many nodes of a fleet may restart at once.

use std::{fmt, str::FromStr};

/// Slots at most, whatever is configured and however many nodes there are.
pub const MAX_SLOTS: usize = 1_000;

/// `fleet.maxConcurrentRestarts`: a number of nodes, or a percentage of those that the DaemonSet is meant to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartLimit {
    /// So many nodes, from 1.
    Nodes(u32),
    /// So many of a hundred nodes, from 1 to 100.
    Percent(u8),
}

impl RestartLimit {
    /// The number of slots, from 1 to [`MAX_SLOTS`]. `nodes` is the DaemonSet's `status.desiredNumberScheduled` as it was last read, None as
    /// long as it was never read: then one at a time.
    pub fn slots(self, nodes: Option<u32>) -> usize {
        let slots = match (self, nodes) {
            (Self::Nodes(slots), _) => u64::from(slots),
            (Self::Percent(percent), Some(nodes)) => u64::from(nodes) * u64::from(percent) / 100,
            (Self::Percent(_), None) => 1,
        };
        usize::try_from(slots).unwrap_or(MAX_SLOTS).clamp(1, MAX_SLOTS)
    }

    /// Whether the number of nodes must be known for it.
    pub fn needs_nodes(self) -> bool {
        matches!(self, Self::Percent(_))
    }
}

impl fmt::Display for RestartLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for RestartLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected a number of nodes from 1, or 1% to 100%, and not `{text}`");
        let digits = text.strip_suffix('%').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(expected());
        }
        let number: u32 = digits.parse().map_err(|_| expected())?;
        match u8::try_from(number) {
            _ if number == 0 => Err(expected()),
            Ok(percent) if digits.len() < text.len() && percent <= 100 => Ok(Self::Percent(percent)),
            _ if digits.len() < text.len() => Err(expected()),
            _ => Ok(Self::Nodes(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_rounded_down_and_at_least_one() {
        let slots = |text: &str, nodes| text.parse::<RestartLimit>().unwrap().slots(nodes);
        assert_eq!(slots("1", None), 1);
        assert_eq!(slots("7", Some(3)), 7);
        assert_eq!(slots("10%", Some(5_000)), 500);
        assert_eq!(slots("10%", Some(29)), 2);
        assert_eq!(slots("10%", Some(9)), 1);
        assert_eq!(slots("100%", Some(0)), 1);
    }

    #[test]
    fn a_percentage_of_an_unknown_number_of_nodes_is_one() {
        assert_eq!(RestartLimit::Percent(50).slots(None), 1);
    }

    #[test]
    fn no_configuration_has_more_slots_than_the_bound() {
        assert_eq!(RestartLimit::Nodes(u32::MAX).slots(None), MAX_SLOTS);
        assert_eq!(RestartLimit::Percent(100).slots(Some(u32::MAX)), MAX_SLOTS);
    }

    #[test]
    fn what_is_neither_a_number_nor_a_percentage_is_refused() {
        for text in ["", "%", "0", "0%", "101%", "256%", "-1", "+1", "1.5", "1 %", "ten", "99999999999", "99999999999%"]
        {
            assert!(text.parse::<RestartLimit>().is_err(), "{text}");
        }
        for text in ["1", "100%", "4294967295"] {
            assert_eq!(text.parse::<RestartLimit>().unwrap().to_string(), text);
        }
    }
}
