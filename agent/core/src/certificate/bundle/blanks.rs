//! Base64 without what stands between its digits.

use memchr::memchr_iter;

/// A text without its blanks. Nearly always they are the ends of its lines, and lines are copied as a whole.
pub(super) fn without_blanks(text: &[u8], is_blank: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut words = Vec::with_capacity(text.len());
    let mut begin = 0;
    for end in memchr_iter(b'\n', text).chain([text.len()]) {
        let line = &text[begin..end];
        // to the end in any case: without a way out in the middle it takes a third of the time
        match line.iter().fold(false, |any, byte| any | (*byte <= b' ')) {
            false => words.extend_from_slice(line),
            true => words.extend(line.iter().filter(|byte| !is_blank(**byte))),
        }
        begin = end + 1;
    }
    words
}
