//! Times that are spread over a fleet: another one on each node, and the same one whenever it is computed.

use std::time::Duration;

use nodetrust_core::certificate::fingerprint::content_digest;

/// A part of a time, from none to all of it. `seed` names the node and what the time is for.
pub fn part_of(time: Duration, seed: &str) -> Duration {
    let digest = content_digest(seed.as_bytes());
    time * u32::from(u16::from_be_bytes([digest[0], digest[1]])) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_get_different_parts_and_each_its_own_again() {
        let minute = Duration::from_secs(60);
        let parts: Vec<Duration> = (0..8).map(|node| part_of(minute, &format!("node-{node}"))).collect();
        assert!(parts.iter().all(|part| *part <= minute) && parts.windows(2).any(|two| two[0] != two[1]), "{parts:?}");
        assert_eq!(part_of(minute, "node-3"), parts[3]);
    }
}
