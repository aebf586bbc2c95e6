//! Rust source without its comments and the content of its literals, so that a rule does not trip over prose or data.

/// The code of a file: comments and the insides of strings and characters are blank, lines stay where they were.
pub(crate) fn code(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        // What is skipped leaves its line ends, and its first character where that helps to see what it was.
        let skipped = comment(rest).or_else(|| literal(rest, out.chars().next_back()));
        let length = skipped.unwrap_or(first.len_utf8());
        let (part, after) = rest.split_at(length);
        match skipped {
            Some(_) => out.extend(part.chars().map(|character| if character == '\n' { '\n' } else { ' ' })),
            None => out.push(first),
        }
        rest = after;
    }
    out
}

/// The code before the file's test module: what the crate holds when it is shipped.
pub(crate) fn shipped_code(source: &str) -> String {
    let code = code(source);
    let tests = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
    code.get(..tests).unwrap_or_default().to_owned()
}

/// The length of a comment at the start of the text.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0usize, 0usize);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let step = if rest.starts_with("/*") {
            depth += 1;
            2
        } else if rest.starts_with("*/") {
            depth = depth.saturating_sub(1);
            2
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// The length of a string or character literal at the start of the text, which follows the character `before`.
fn literal(text: &str, before: Option<char>) -> Option<usize> {
    if text.starts_with('"') {
        return Some(quoted(text, '"'));
    }
    if text.starts_with('\'') {
        // A lifetime has no second quote right behind its first letter; an escape begins no lifetime.
        let mut inner = text.chars().skip(1);
        let escaped = inner.next()? == '\\';
        return (escaped || inner.next() == Some('\'')).then(|| quoted(text, '\''));
    }
    let in_word = before.is_some_and(|before| before.is_alphanumeric() || before == '_');
    let raw = text.strip_prefix("br").or_else(|| text.strip_prefix("cr")).or_else(|| text.strip_prefix('r'))?;
    let opened = raw.trim_start_matches('#');
    let hashes = raw.len() - opened.len();
    if in_word || !opened.starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - opened.len() + 1;
    Some(text.get(start..)?.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

/// The length of a literal between two of the same quotes, minding backslashes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == quote {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        let cases = [
            ("a // todo\nb", "a \nb"),
            ("a /* x /* y */ z */ b", "a  b"),
            ("f(\"x // y\") // z", "f()"),
            (r#"f("a\"b", c)"#, "f(, c)"),
            ("r#\"quote \" inside\"# x", " x"),
            ("br\"\\\" x", " x"),
            ("let c = '\"'; g()", "let c = ; g()"),
            ("let c = '\\''; g()", "let c = ; g()"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("for(\"x\")", "for()"),
            ("let s = \"unfinished", "let s ="),
        ];
        let squeeze = |text: &str| text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        for (source, expected) in cases {
            let (found, expected) =
                (squeeze(&code(source).replace('\n', " \n ")), squeeze(&expected.replace('\n', " \n ")));
            assert_eq!(found.replace("( ", "("), expected, "{source}");
            assert_eq!(code(source).len(), source.len(), "{source}");
        }
    }

    #[test]
    fn the_test_module_is_not_shipped() {
        assert_eq!(shipped_code("a\n#[cfg(test)]\nmod tests {\n}\n"), "a\n");
        assert_eq!(shipped_code("a // #[cfg(test)]\nb").trim_end(), format!("a {}\nb", " ".repeat(15)));
    }
}
