//! From a field's path to its line: an index of a document, made at its first finding.
//!
//! serde tells no positions, but both parsers attach one to an error that a visitor raises. So every key and every scalar is
//! read by a visitor that refuses it after it has been consumed: the reading goes on, and the error's text tells the line.
//! One walk serves all findings of a document, however many there are.

use std::{collections::BTreeMap, fmt};

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a sequence.
    Index(usize),
}

/// Reads `spec.ports[0].port` and `metadata.annotations[a.b/c]`.
pub(crate) fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (inside, after) = inner.split_once(']').unwrap_or((inner, ""));
            steps.push(inside.parse().map_or_else(|_| Step::Key(inside.to_owned()), Step::Index));
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            if !name.is_empty() {
                steps.push(Step::Key(name.to_owned()));
            }
            rest = after;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
    }
    steps
}

/// A node of a document with the line that it begins on, counted in the document from 1; 0 where nobody knows.
#[derive(Debug, Default)]
pub(crate) struct Node {
    line: usize,
    inner: Inner,
}

#[derive(Debug, Default)]
enum Inner {
    #[default]
    Scalar,
    Mapping(BTreeMap<Box<str>, Node>),
    Sequence(Vec<Node>),
}

impl Node {
    /// Reads a document; what follows a mistake in it is left out.
    pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Self {
        let mut root = Self::default();
        // The error is the root's own position where that is a scalar, or a mistake that `Document::tree` tells.
        let _ = Fill(&mut root).deserialize(deserializer);
        root
    }

    /// The line of what the path leads to; where a field is missing, that of the deepest parent there is, 0 for the root.
    pub(crate) fn line_of(&self, path: &[Step]) -> usize {
        let (mut node, mut line, mut rest) = (self, 0, path);
        while let Some((next, after)) = node.step(rest) {
            (node, rest) = (next, after);
            line = if node.line > 0 { node.line } else { line };
        }
        line
    }

    fn step<'a, 'p>(&'a self, path: &'p [Step]) -> Option<(&'a Self, &'p [Step])> {
        let (first, mut rest) = path.split_first()?;
        match (&self.inner, first) {
            (Inner::Sequence(items), Step::Index(index)) => Some((items.get(*index)?, rest)),
            (Inner::Mapping(fields), Step::Index(index)) => Some((fields.get(index.to_string().as_str())?, rest)),
            (Inner::Mapping(fields), Step::Key(key)) => {
                // The parsers' messages write `annotations.a.b/c` with the key's own dots.
                let mut key = key.clone();
                loop {
                    if let Some(field) = fields.get(key.as_str()) {
                        return Some((field, rest));
                    }
                    let Some((Step::Key(more), after)) = rest.split_first() else { return None };
                    key = format!("{key}.{more}");
                    rest = after;
                }
            }
            _ => None,
        }
    }
}

/// The line in an error's text: `… at line 7 column 3`; 0 where it tells none, as for the keys of JSON.
fn line_in(error: &str) -> usize {
    let tail = error.rsplit_once(" at line ").map_or("", |(_, tail)| tail);
    tail.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Fills a node from what it is shown. Of a scalar the line is not known inside: see `placed`.
struct Fill<'a>(&'a mut Node);

/// A scalar, or a key, was consumed and refused; anything else is a mistake of the document.
const SCALAR: usize = usize::MAX;

impl Fill<'_> {
    fn refuse<E: Error>(self) -> E {
        self.0.line = SCALAR;
        E::custom("here")
    }
}

/// Puts the line of a refused scalar into its node; other errors go on.
fn placed<T, E: Error>(node: &mut Node, outcome: Result<T, E>) -> Result<Option<T>, E> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if node.line == SCALAR => {
            node.line = line_in(&error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl<'de> DeserializeSeed<'de> for Fill<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fill<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a node")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(self.refuse())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Err(self.refuse())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Err(self.refuse())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Err(self.refuse())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Err(self.refuse())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(self.refuse())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.inner = Inner::Mapping(BTreeMap::new());
        loop {
            let (mut text, mut key) = (None, Node::default());
            let read = map.next_key_seed(Key { text: &mut text, node: &mut key });
            if placed(&mut key, read)?.is_some_and(|key| key.is_none()) {
                return Ok(());
            }
            let mut value = Node::default();
            let read = map.next_value_seed(Fill(&mut value));
            let read = placed(&mut value, read);
            if value.line == 0 {
                value.line = key.line;
            }
            if self.0.line == 0 {
                self.0.line = if key.line > 0 { key.line } else { value.line };
            }
            if let (Inner::Mapping(fields), Some(text)) = (&mut self.0.inner, text) {
                fields.insert(text, value);
            }
            read?;
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        self.0.inner = Inner::Sequence(Vec::new());
        loop {
            let mut item = Node::default();
            let read = sequence.next_element_seed(Fill(&mut item));
            let read = placed(&mut item, read);
            if matches!(read, Ok(Some(None))) {
                return Ok(());
            }
            if self.0.line == 0 {
                self.0.line = item.line;
            }
            if let Inner::Sequence(items) = &mut self.0.inner {
                items.push(item);
            }
            read?;
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let (_, value) = tagged.variant::<IgnoredAny>()?;
        value.newtype_variant_seed(self)
    }
}

/// A mapping's key: its text where it has one, its place in the node.
struct Key<'a> {
    text: &'a mut Option<Box<str>>,
    node: &'a mut Node,
}

impl Key<'_> {
    fn refuse<E: Error>(self, text: impl Into<Box<str>>) -> E {
        *self.text = Some(text.into());
        Fill(self.node).refuse()
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        Err(self.refuse(text))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        Err(self.refuse(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        Err(self.refuse(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        Err(self.refuse(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        Err(self.refuse(value.to_string()))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(self.refuse("null"))
    }
}
