//! Label selectors of Kubernetes, as `kubectl --selector` takes them: `k=v`, `k==v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, `k`, `!k`, joined by
//! commas, all of which must hold.

use std::{collections::BTreeMap, str::FromStr};

/// Bytes of a selector.
const MAX_SELECTOR: usize = 4_096;
/// Bytes of a label's name or value, and of the prefix of a name (a DNS subdomain).
const MAX_LABEL: usize = 63;
const MAX_PREFIX: usize = 253;

/// Which Nodes are meant, by their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: SelectorOperator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SelectorOperator {
    Exists,
    Absent,
    /// Its value is one of these.
    In(Vec<String>),
    /// It is absent, or its value is none of these.
    NotIn(Vec<String>),
}

/// A text that is no label selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {what}")]
pub struct BadSelector {
    /// The character at which it goes wrong, from 1.
    pub at: usize,
    /// What was expected there.
    pub what: String,
}

impl NodeSelector {
    /// Whether it asks for nothing: then it selects no node as a canary.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether a Node with these labels is meant. An empty selector means none.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.is_empty() && self.requirements.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            SelectorOperator::Exists => value.is_some(),
            SelectorOperator::Absent => value.is_none(),
            SelectorOperator::In(values) => value.is_some_and(|value| values.contains(value)),
            SelectorOperator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
        }
    }
}

impl FromStr for NodeSelector {
    type Err = BadSelector;

    fn from_str(text: &str) -> Result<Self, BadSelector> {
        if text.len() > MAX_SELECTOR {
            return Err(BadSelector { at: 1, what: format!("a selector has at most {MAX_SELECTOR} bytes") });
        }
        let mut scanner = SelectorScanner { rest: text, at: 1 };
        let mut requirements = Vec::new();
        scanner.space();
        while !scanner.rest.is_empty() {
            requirements.push(scanner.requirement()?);
            scanner.space();
            if scanner.rest.is_empty() {
                break;
            }
            scanner.expect(',', "a comma, or the end")?;
            scanner.space();
            if scanner.rest.is_empty() {
                return Err(scanner.error("another requirement after the comma"));
            }
        }
        Ok(Self { requirements })
    }
}

/// What is left of a selector, and at which character that begins.
struct SelectorScanner<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> SelectorScanner<'a> {
    fn error(&self, expected: &str) -> BadSelector {
        let found = self.rest.chars().next().map_or("the end".to_owned(), |c| format!("`{}`", c.escape_debug()));
        BadSelector { at: self.at, what: format!("expected {expected}, found {found}") }
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.at += taken.chars().count();
        self.rest = rest;
        taken
    }

    fn space(&mut self) {
        self.advance(self.rest.len() - self.rest.trim_start_matches([' ', '\t']).len());
    }

    fn takes(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            self.advance(text.len());
        }
        found
    }

    fn expect(&mut self, c: char, expected: &str) -> Result<(), BadSelector> {
        if self.takes(c.encode_utf8(&mut [0; 4])) { Ok(()) } else { Err(self.error(expected)) }
    }

    /// Everything up to a space, an operator, a bracket or a comma.
    fn word(&mut self) -> &'a str {
        let end = self.rest.find([' ', '\t', ',', '(', ')', '=', '!']).unwrap_or(self.rest.len());
        self.advance(end)
    }

    fn requirement(&mut self) -> Result<Requirement, BadSelector> {
        if self.takes("!") {
            self.space();
            return Ok(Requirement { key: self.key()?, operator: SelectorOperator::Absent });
        }
        let key = self.key()?;
        self.space();
        let operator = if self.takes("!=") {
            SelectorOperator::NotIn(vec![self.value()?])
        } else if self.takes("==") || self.takes("=") {
            SelectorOperator::In(vec![self.value()?])
        } else if self.rest.is_empty() || self.rest.starts_with(',') {
            SelectorOperator::Exists
        } else {
            let start = Self { ..*self };
            match self.word() {
                "in" => SelectorOperator::In(self.values()?),
                "notin" => SelectorOperator::NotIn(self.values()?),
                _ => return Err(start.error("=, ==, !=, in, notin, a comma, or the end")),
            }
        };
        Ok(Requirement { key, operator })
    }

    fn key(&mut self) -> Result<String, BadSelector> {
        let start = Self { ..*self };
        let key = self.word();
        let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        let prefix_fits = prefix.is_none_or(is_prefix);
        if !name.is_empty() && is_label(name) && prefix_fits {
            return Ok(key.to_owned());
        }
        Err(start.error("the name of a label"))
    }

    fn value(&mut self) -> Result<String, BadSelector> {
        self.space();
        let start = Self { ..*self };
        let value = self.word();
        if is_label(value) { Ok(value.to_owned()) } else { Err(start.error("the value of a label")) }
    }

    fn values(&mut self) -> Result<Vec<String>, BadSelector> {
        self.space();
        self.expect('(', "an opening bracket")?;
        let mut values = vec![self.value()?];
        loop {
            self.space();
            if self.takes(")") {
                return Ok(values);
            }
            self.expect(',', "a comma, or a closing bracket")?;
            values.push(self.value()?);
        }
    }
}

/// A label's value, or its name without the prefix: letters, digits, `-`, `_` and `.`, with a letter or digit at both ends; a value may be empty.
fn is_label(text: &str) -> bool {
    let end = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let (first, last) = (text.bytes().next(), text.bytes().next_back());
    text.len() <= MAX_LABEL && text.bytes().all(inner) && end(first) && end(last)
}

/// The prefix of a label's name: a DNS subdomain in lower case.
fn is_prefix(text: &str) -> bool {
    let part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= MAX_PREFIX && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn matches(selector: &str, of: &str) -> bool {
        selector.parse::<NodeSelector>().unwrap().matches(&labels(of))
    }

    #[test]
    fn each_form_selects_as_kubernetes_does() {
        let node = "zone=a tier=canary example.test/group=";
        for (selector, selected) in [
            ("tier=canary", true),
            ("tier==canary", true),
            ("tier = canary", true),
            ("tier=other", false),
            ("tier!=other", true),
            ("tier!=canary", false),
            ("absent!=x", true),
            ("tier in (canary, early)", true),
            ("tier in (early)", false),
            ("absent in (x)", false),
            ("tier notin (early,late)", true),
            ("tier notin (canary)", false),
            ("absent notin (x)", true),
            ("tier", true),
            ("absent", false),
            ("!absent", true),
            ("! absent", true),
            ("!tier", false),
            ("example.test/group", true),
            ("example.test/group=", true),
            ("example.test/group in (,x)", true),
            ("tier=canary,zone=b", false),
            (" tier=canary , zone in (a,b) , !absent ", true),
        ] {
            assert_eq!(matches(selector, node), selected, "{selector}");
        }
    }

    #[test]
    fn an_empty_selector_selects_no_node() {
        assert!(!matches("", "tier=canary"));
        assert!(!matches("  ", "tier=canary"));
        assert!("".parse::<NodeSelector>().unwrap().is_empty());
    }

    #[test]
    fn a_label_may_be_named_like_an_operator() {
        assert!(matches("in in (notin)", "in=notin"));
        assert!(matches("in,notin", "in=1 notin=2"));
    }

    #[test]
    fn an_error_says_where_it_is() {
        for (selector, at) in [
            ("tier canary", 6),
            ("tier=can ary", 10),
            ("tier=a,", 8),
            (",", 1),
            ("tier in canary", 9),
            ("tier in (a", 11),
            ("tier in (a b)", 12),
            ("-tier=a", 1),
            ("tier=a-", 6),
            ("tier=ä", 6),
            ("=a", 1),
            ("Example/x", 1),
            ("!", 2),
            ("a,tier=ü", 8),
            ("tier<5", 1),
        ] {
            assert_eq!(selector.parse::<NodeSelector>().unwrap_err().at, at, "{selector}");
        }
        let error = "tier canary".parse::<NodeSelector>().unwrap_err();
        assert_eq!(error.to_string(), "at character 6: expected =, ==, !=, in, notin, a comma, or the end, found `c`");
        assert!("a".repeat(MAX_SELECTOR + 1).parse::<NodeSelector>().is_err());
        assert!("a".repeat(MAX_LABEL + 1).parse::<NodeSelector>().is_err());
    }
}
