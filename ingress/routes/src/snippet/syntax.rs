//! nginx's configuration language, as far as any text has a form: words, quotes, comments, blocks
//! (<https://nginx.org/en/docs/beginners_guide.html#conf_structure>). What a directive means is not known here.

/// The longest snippet, in bytes.
const MAX_TEXT: usize = 16 * 1024;
/// The most directives of a snippet.
const MAX_DIRECTIVES: usize = 256;

/// One directive with its words and its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    End,
    Open,
    Close,
}

/// Reads a snippet; blocks hold no blocks.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, &'static str> {
    if text.len() > MAX_TEXT {
        return Err("is too long");
    }
    let mut tokens = tokens(text)?.into_iter();
    let mut count = 0;
    let directives = block(&mut tokens, 0, &mut count)?;
    if tokens.next().is_some() { Err("closes a block that is not open") } else { Ok(directives) }
}

fn block(
    tokens: &mut std::vec::IntoIter<Token>,
    depth: usize,
    count: &mut usize,
) -> Result<Vec<Directive>, &'static str> {
    let mut directives = Vec::new();
    let mut words: Vec<String> = Vec::new();
    loop {
        let token = tokens.next();
        let ended = match token {
            Some(Token::Word(word)) => {
                words.push(word);
                continue;
            }
            Some(Token::End) => None,
            Some(Token::Open) if depth > 0 => return Err("has a block within a block"),
            Some(Token::Open) => Some(block(tokens, depth + 1, count)?),
            None if depth > 0 => return Err("leaves a block open"),
            Some(Token::Close) if depth == 0 => return Err("closes a block that is not open"),
            None | Some(Token::Close) if !words.is_empty() => return Err("leaves a directive without its semicolon"),
            None | Some(Token::Close) => return Ok(directives),
        };
        *count += 1;
        if words.is_empty() || *count > MAX_DIRECTIVES {
            return Err("has an empty directive, or too many");
        }
        let name = words.remove(0);
        directives.push(Directive { name, words: std::mem::take(&mut words), block: ended });
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&first) = chars.peek() {
        match first {
            ' ' | '\t' | '\r' | '\n' => drop(chars.next()),
            '#' => while chars.next().is_some_and(|char| char != '\n') {},
            ';' | '{' | '}' => {
                chars.next();
                tokens.push(if first == ';' {
                    Token::End
                } else if first == '{' {
                    Token::Open
                } else {
                    Token::Close
                });
            }
            '"' | '\'' => {
                chars.next();
                tokens.push(Token::Word(quoted(&mut chars, first)?));
            }
            _ => tokens.push(Token::Word(bare(&mut chars))),
        }
    }
    Ok(tokens)
}

fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, quote: char) -> Result<String, &'static str> {
    let mut word = String::new();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some(escaped) if escaped == quote || escaped == '\\' => word.push(escaped),
                Some(other) => word.extend(['\\', other]),
                None => return Err("ends in the middle of a quote"),
            },
            _ if char == quote => return Ok(word),
            _ => word.push(char),
        }
    }
    Err("leaves a quote open")
}

fn bare(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut word = String::new();
    while let Some(&char) = chars.peek() {
        let variable = char == '{' && word.ends_with('$');
        if char.is_ascii_whitespace() || char == ';' || (char == '{' && !variable) {
            break;
        }
        chars.next();
        word.push(char);
        if variable {
            for inner in chars.by_ref() {
                word.push(inner);
                if inner == '}' {
                    break;
                }
            }
        } else if char == '\\'
            && let Some(escaped) = chars.next()
        {
            word.push(escaped);
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_and_blocks_are_nginx_s() {
        let text = "# a comment\nset $x 'a b'; if ($x ~ \"^\\d{2}\\\"$\") { return 301 https://${host}/; }\nmore_set_headers \"A: b;c\";";
        let found = parse(text).unwrap();
        let words = |index: usize| (found[index].name.as_str(), found[index].words.join("|"));
        assert_eq!(words(0), ("set", "$x|a b".to_owned()));
        assert_eq!(words(1), ("if", "($x|~|^\\d{2}\"$|)".to_owned()));
        assert_eq!(found[1].block.as_ref().unwrap()[0].words, ["301", "https://${host}/"]);
        assert_eq!(words(2), ("more_set_headers", "A: b;c".to_owned()));
        for text in ["set $x", "if (a) {", "}", "a { b { } }", "a 'b;", ";", "a; }"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
