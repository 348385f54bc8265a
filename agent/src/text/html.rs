//! Pages for people: one file, no script, nothing from elsewhere.

/// What a page may load: nothing but the style that is in it, known by its hash.
const POLICY: &str = "default-src 'none'; style-src 'sha256-o6Ek53cEfmGvYQUdzjadReIMsi9tWzEp8CGQo9yo1/0='; base-uri 'none'; form-action 'none'";
/// The same for a page that an agent serves: and nobody may frame it, which a page cannot say of itself.
pub(crate) const SERVED_POLICY: &str = "default-src 'none'; style-src 'sha256-o6Ek53cEfmGvYQUdzjadReIMsi9tWzEp8CGQo9yo1/0='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Light and dark, and readable on a narrow screen: wide tables scroll by themselves.
const STYLE: &str = "\
:root{color-scheme:light dark;--good:#1a7f37;--bad:#b42318;--warn:#8a5a00;--line:#8884;--soft:#8881}
@media(prefers-color-scheme:dark){:root{--good:#5fd37f;--bad:#ff8a80;--warn:#f0b95b}}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:75rem}
h1{font-size:1.3rem;margin:.2rem 0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
p{margin:.3rem 0}.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid var(--line);overflow-wrap:break-word;max-width:26rem}td:last-child{min-width:10rem}
th{font-weight:600;background:var(--soft);white-space:nowrap}td.number,th.number{text-align:right;white-space:nowrap}
code{font:13px ui-monospace,monospace}.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
b.good,b.bad,b.warn,td>code,span>code,time{white-space:nowrap}.quiet{opacity:.7}summary{cursor:pointer}";

/// Text with every character that means something in HTML replaced; good in an element and in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Escaped text, with what stands between backticks as code.
pub(crate) fn prose(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { format!("<code>{}</code>", escape(part)) } else { escape(part) }).collect()
}

/// A whole page around a body that is HTML already.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n{body}</body>\n</html>\n",
        escape(title),
    )
}

/// A table: its head, and rows of cells that are HTML already. Columns whose head begins with `#` hold numbers; a head without
/// any title is left out.
pub(crate) fn table(head: &[impl AsRef<str>], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let class = |column: usize| match head.get(column).is_some_and(|title| title.as_ref().starts_with('#')) {
        true => " class=\"number\"",
        false => "",
    };
    let cells = |tag: &str, cells: &[String]| -> String {
        let one = |(column, cell): (usize, &String)| format!("<{tag}{}>{cell}</{tag}>", class(column));
        cells.iter().enumerate().map(one).collect()
    };
    let titles: Vec<String> = head.iter().map(|title| escape(title.as_ref().trim_start_matches('#'))).collect();
    let mut out = String::from("<div class=\"wide\"><table>\n");
    if titles.iter().any(|title| !title.is_empty()) {
        out.push_str(&format!("<tr>{}</tr>\n", cells("th", &titles)));
    }
    for row in rows {
        out.push_str(&format!("<tr>{}</tr>\n", cells("td", &row)));
    }
    out.push_str("</table></div>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_becomes_markup() {
        let page = document("<script>", &format!("<p title=\"{0}\">{0}</p>", escape("\"><script>alert('&')</script>")));
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"), "{page}");
    }

    /// A browser would show the page without its style.
    #[test]
    fn the_policy_has_the_hash_of_the_style() {
        let digest = nodetrust_core::certificate::fingerprint::content_digest(STYLE.as_bytes());
        let base64 = nodetrust_core::certificate::pem::encode(&digest);
        let hash = format!("style-src 'sha256-{}'", base64.lines().nth(1).unwrap());
        assert!(POLICY.contains(&hash) && SERVED_POLICY.starts_with(POLICY), "{hash}");
    }

    #[test]
    fn columns_of_numbers_are_marked() {
        let text = table(&["NAME", "#N"], [vec!["a".to_owned(), "1".to_owned()]]);
        assert!(text.contains("<th>NAME</th><th class=\"number\">N</th>"), "{text}");
        assert!(text.contains("<td>a</td><td class=\"number\">1</td>"), "{text}");
    }
}
