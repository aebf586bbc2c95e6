//! What a YAML text may cost: looked at before it is parsed, for the parser's own limits come too late.
//!
//! The parser takes time with the square of the depth of `[` and `{`, and counts the aliases that it follows but not what
//! they expand to. Both are bounded here: the depth by a linear look at the text, the expansion by a reading that builds
//! nothing.

use std::{cell::Cell, fmt};

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// Deepest nesting of `[` and `{`; the parser itself refuses to build more.
const FLOW_DEPTH: usize = 128;
/// Most nodes of a document with its aliases expanded; long texts count once more for every so many bytes.
const NODES: usize = 1_000_000;
const BYTES_OF_A_NODE: usize = 64;

/// Refuses a text that would cost too much, with the line of it.
pub(crate) fn check(text: &str) -> Result<(), (usize, String)> {
    if let Some(line) = too_deep(text) {
        return Err((line, format!("nests more than {FLOW_DEPTH} lists and mappings in each other")));
    }
    // Without an anchor nothing expands.
    if text.contains('&') && text.contains('*') {
        let left = Cell::new(Some(NODES));
        let counted = Count(&left).deserialize(serde_yaml::Deserializer::from_str(text));
        // Any other error is told by the reading that follows.
        if counted.is_err() && left.get().is_none() {
            return Err((1, format!("expands to more than {NODES} nodes by its aliases")));
        }
    }
    Ok(())
}

/// The line on which flow collections are nested too deep. Only what is neither quoted nor a block of text counts.
fn too_deep(text: &str) -> Option<usize> {
    // Most texts do not even hold as many brackets as would be too deep.
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() <= FLOW_DEPTH {
        return None;
    }
    let mut scan = Scan::default();
    let mut block = None;
    for (index, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start_matches(' ').len();
        if block.is_some_and(|parent| line.trim().is_empty() || indent > parent) {
            continue;
        }
        block = scan.line(line);
        if scan.deepest > FLOW_DEPTH {
            return Some(index + 1);
        }
    }
    None
}

#[derive(Default)]
struct Scan {
    depth: usize,
    deepest: usize,
    quote: Option<char>,
}

impl Scan {
    /// Takes in a line; the indent of the node whose block of text (`|`, `>`) the next lines may be.
    fn line(&mut self, line: &str) -> Option<usize> {
        // Whether a node may begin here, and the column of the innermost block node so far.
        let (mut begins, mut parent, mut in_front) = (true, 0, true);
        let (mut before, mut escaped) = (' ', false);
        for (column, char) in line.char_indices() {
            if let Some(quote) = self.quote {
                if !escaped && char == quote {
                    self.quote = None;
                }
                escaped = quote == '"' && char == '\\' && !escaped;
                (begins, in_front) = (false, false);
                before = char;
                continue;
            }
            let behind_space = before == ' ' || before == '\t';
            let next = line.get(column + char.len_utf8()..).unwrap_or_default();
            let spaced = next.is_empty() || next.starts_with([' ', '\t']);
            match char {
                ' ' | '\t' => {}
                '#' if behind_space => return None,
                '\'' | '"' if begins || self.depth > 0 && "[{,: ".contains(before) => self.quote = Some(char),
                '[' | '{' if begins || self.depth > 0 => {
                    self.depth += 1;
                    self.deepest = self.deepest.max(self.depth);
                }
                ']' | '}' => self.depth = self.depth.saturating_sub(1),
                '|' | '>' if begins && self.depth == 0 => return Some(parent),
                '-' | '?' if in_front && spaced => parent = column,
                '&' | '!' if begins => {}
                ':' if spaced => begins = true,
                _ if begins && in_front => {
                    parent = column;
                    (begins, in_front) = (false, false);
                }
                // An anchor or a tag goes on to its space; anything else is a plain text.
                _ => begins = begins && !behind_space,
            }
            before = char;
        }
        None
    }
}

/// Counts nodes down, aliases followed; `None` when there were too many.
#[derive(Clone, Copy)]
struct Count<'a>(&'a Cell<Option<usize>>);

impl Count<'_> {
    fn take<E: Error>(self, nodes: usize) -> Result<(), E> {
        self.0.set(self.0.get().and_then(|left| left.checked_sub(nodes)));
        if self.0.get().is_none() { Err(E::custom("too many nodes")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.take(1 + text.len() / BYTES_OF_A_NODE)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.take(1)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.take(1)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.take(1)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.take(1)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.take(1)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.take(1)?;
        while map.next_key_seed(self)?.is_some() {
            map.next_value_seed(self)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        self.take(1)?;
        while sequence.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let (_, value) = tagged.variant::<IgnoredAny>()?;
        value.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_outside_texts() {
        let many = "[".repeat(200);
        let closed = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let cases = [
            (many.clone(), Some(1)),
            (format!("a:\n  b: {many}"), Some(2)),
            (format!("- - {many}"), Some(1)),
            (format!("a: &x {many}"), Some(1)),
            (format!("a: !t {many}"), Some(1)),
            (format!("a: {{b: {many}"), Some(1)),
            (format!("a: {{\"b\":{many}"), Some(1)),
            (format!("a: [\n{}", "[\n".repeat(130)), Some(129)),
            (format!("a: |\n  {many}\nb: 1"), None),
            (format!("a: >-  # folded\n  {many}\n\n  {many}\nb: 1"), None),
            (format!("- a: |\n    {many}\n  b: {many}"), Some(3)),
            (format!("- |\n {many}\n- {many}"), Some(3)),
            (format!("a: text {many}"), None),
            (format!("a: '{many}'"), None),
            (format!("a: \"\\\"{many}\"\nb: ['{many}', \"{many}\"]"), None),
            (format!("a: 1 # {many}"), None),
            (format!("a: {closed}\nb: {closed}"), None),
            (format!("it's: don't\nb: {many}"), Some(2)),
        ];
        for (text, expected) in cases {
            assert_eq!(too_deep(&text), expected, "{text}");
        }
    }

    #[test]
    fn aliases_are_counted_expanded() {
        let wide = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(4000), "*a,".repeat(4000));
        assert!(check(&wide).is_err_and(|(_, reason)| reason.contains("aliases")));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(4000));
        assert!(check(&long).is_err());
        assert_eq!(check("a: &a [1, 2]\nb: [*a, *a]\nc: {<<: {d: !t e}}\n"), Ok(()));
    }
}
