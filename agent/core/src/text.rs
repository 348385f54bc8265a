//! Texts for people.

/// `1 thing`, `2 things`.
pub fn plural(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// What rejections count: `1 certificate or block`, `2 certificates or blocks`.
pub(crate) fn certificates_or_blocks(n: usize) -> String {
    if n == 1 { "1 certificate or block".to_owned() } else { format!("{n} certificates or blocks") }
}

/// The text, or its beginning and `…`, in at most `limit` bytes.
pub(crate) fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    const MORE: &str = "…";
    let end = (0..=limit.saturating_sub(MORE.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{MORE}", &text[..end])
}
