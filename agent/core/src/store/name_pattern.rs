//! Patterns of base names, as `store.adopt` has them.

use std::{fmt, str::FromStr};

/// Longest pattern, in bytes: as long as a file name may be.
const MAX_BYTES: usize = 255;
/// Most patterns of a configuration.
pub const MAX_PATTERNS: usize = 16;

/// A pattern of base names in one directory; `*` stands for any characters, none included.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamePattern(String);

impl NamePattern {
    /// Whether a base name fits. No pattern fits a name that begins with a dot.
    pub fn matches(&self, name: &str) -> bool {
        if name.starts_with('.') {
            return false;
        }
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| (' '..='~').contains(&c) && c != '/';
        let is_name = !text.starts_with('.') && text.chars().all(fits) && text.trim() == text;
        let says_something = text.chars().any(|c| c != '*');
        if says_something && is_name && text.len() <= MAX_BYTES {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{text}` is no base name in the anchor directory: want such as domain.crt or template-*.crt (1 to {MAX_BYTES} printable ASCII \
             characters without `/`, no dot first; `*` stands for any characters, and not alone)"
        ))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_files_of_one_directory_only() {
        for bad in
            ["", "*", "**", ".", "..", ".hidden.crt", "../domain.crt", "a/b.crt", "/etc/passwd", "a\nb", "ü.crt", " a"]
        {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(256).parse::<NamePattern>().is_err());
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        let fits = |pattern: &str, name: &str| pattern.parse::<NamePattern>().unwrap().matches(name);
        for (pattern, name) in [
            ("domain.crt", "domain.crt"),
            ("corp-*.crt", "corp-.crt"),
            ("*a*b*", "xaybz"),
            ("a*", "a"),
            ("*.crt", "a b.crt"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("domain.crt", "domain.crt2"),
            ("domain.crt", "xdomain.crt"),
            ("a*a", "a"),
            ("*.crt", ".x.crt"),
            ("a*b*c", "acb"),
            ("a*.crt", "b.crt"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
