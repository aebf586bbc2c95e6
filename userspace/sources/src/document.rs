//! A file's documents: where each begins, and the line of any field in it.
//!
//! A stream is split at its markers before it is parsed, so that a syntax error spoils one document and not the file. That
//! is safe: `---` and `...` at the start of a line are markers whatever stands around them (YAML 1.2.2, 9.1.2).

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use roadstead_model::Place;
use serde::Deserialize;
use serde_yaml::Value;

use crate::{
    bounds,
    locate::{Node, Step, steps},
};

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Yaml,
    Json,
}

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    /// The file that it stands in; none for an object that a server sent.
    pub(crate) file: Option<Arc<Path>>,
    /// The line of the file that the text begins on, counted from 1.
    first_line: usize,
    format: Format,
    text: String,
    /// Where its fields stand; made when the first one is asked for.
    index: OnceLock<Node>,
}

/// A parser's complaint.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub(crate) line: usize,
    pub(crate) field: Option<String>,
    pub(crate) reason: String,
}

/// An object's place: a document, or an item of a list in it.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) document: Arc<Document>,
    pub(crate) item: Option<usize>,
}

impl Origin {
    /// The place of a field of the object, of the object itself where the field is empty; none without a file.
    pub(crate) fn place(&self, field: &str) -> Option<Place> {
        self.document.file.as_ref()?;
        self.document.place(self.line(field))
    }

    /// The line that a field begins on.
    fn line(&self, field: &str) -> usize {
        self.document.line_of(&self.path(field))
    }

    fn path(&self, field: &str) -> Vec<Step> {
        let mut path = Vec::new();
        if let Some(item) = self.item {
            path.extend([Step::Key("items".to_owned()), Step::Index(item)]);
        }
        path.extend(steps(field));
        path
    }

    /// Reads the object as a `T` once more, from a text of its own, for the complaint that reading the tree could not place.
    pub(crate) fn complaint<T: for<'de> Deserialize<'de>>(&self, tree: &Value) -> Option<Complaint> {
        let text = serde_yaml::to_string(tree).ok()?;
        let error = serde_yaml::from_str::<T>(&text).err()?;
        let complaint = self.document.yaml_complaint(&error);
        let line = self.line(complaint.field.as_deref().unwrap_or_default());
        Some(Complaint { line, ..complaint })
    }
}

impl Document {
    fn new(file: &Arc<Path>, first_line: usize, format: Format, text: String) -> Self {
        Self { file: Some(Arc::clone(file)), first_line, format, text, index: OnceLock::new() }
    }

    /// What objects without a file stand in: it has no text, and nothing in it has a place.
    pub(crate) fn nowhere() -> Self {
        Self { file: None, first_line: 1, format: Format::Yaml, text: String::new(), index: OnceLock::new() }
    }

    /// A document of the same file without a text.
    pub(crate) fn empty(beside: &Self) -> Self {
        Self { file: beside.file.clone(), first_line: beside.first_line, ..Self::nowhere() }
    }

    /// A document that stands in a field of this one, which begins on that line of the file, and whether the text is found
    /// there line by line, so that its own lines can be told.
    pub(crate) fn inner(&self, line: usize, text: &str) -> (Self, bool) {
        let written = |offset: usize| self.text.lines().nth((line + 1 + offset).checked_sub(self.first_line)?);
        let mut lines = text.lines().enumerate();
        let found = lines.all(|(offset, inner)| written(offset).is_some_and(|outer| outer.trim() == inner.trim()));
        let text = text.to_owned();
        (Self { file: self.file.clone(), first_line: line + 1, text, ..Self::nowhere() }, found)
    }

    /// A line of the file.
    pub(crate) fn place(&self, line: usize) -> Option<Place> {
        Some(Place { file: self.file.as_ref()?.to_path_buf(), line })
    }

    /// The document as it is written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether both begin on the same line.
    pub(crate) fn stands_where(&self, other: &Self) -> bool {
        self.first_line == other.first_line
    }

    /// The document as a tree; this is where syntax errors, repeated keys and runaway aliases are found.
    pub(crate) fn tree(&self) -> Result<Value, Complaint> {
        match self.format {
            Format::Yaml => self.yaml_tree(),
            Format::Json => serde_json::from_str(&self.text).map_err(|error| self.json_complaint(&error)),
        }
    }

    fn yaml_tree(&self) -> Result<Value, Complaint> {
        bounds::check(&self.text).map_err(|(line, reason)| Complaint { line: self.line(line), field: None, reason })?;
        let tree = serde_yaml::from_str(&self.text);
        // Looking for merge keys takes a hash a mapping.
        let tree = if self.text.contains("<<") { tree.and_then(merged) } else { tree };
        tree.map_err(|error| self.yaml_complaint(&error))
    }

    fn line_of(&self, path: &[Step]) -> usize {
        if path.is_empty() {
            return self.content_line();
        }
        let index = self.index.get_or_init(|| match self.format {
            Format::Yaml => Node::read(serde_yaml::Deserializer::from_str(&self.text)),
            Format::Json => Node::read(&mut serde_json::Deserializer::from_str(&self.text)),
        });
        match index.line_of(path) {
            0 => self.content_line(),
            inner => self.line(inner),
        }
    }

    /// The first line that is neither blank nor a comment.
    fn content_line(&self) -> usize {
        let blank = self.text.lines().take_while(|line| is_blank(line)).count();
        self.first_line + blank
    }

    fn yaml_complaint(&self, error: &serde_yaml::Error) -> Complaint {
        let line = error.location().map_or_else(|| self.content_line(), |at| self.line(at.line()));
        let mut text = error.to_string();
        // The position is said in front, counted in the file and not in the document.
        if let Some(cut) = text.find(" at line ") {
            let context = self.context(text.split_off(cut).as_str());
            text.push_str(&context);
        }
        Self::complaint(line, &text)
    }

    /// The file's line for one of the document; libyaml counts one line too many at the end of the text.
    fn line(&self, inner: usize) -> usize {
        self.first_line + inner.clamp(1, self.text.lines().count().max(1)) - 1
    }

    /// From ` at line 7 column 3, while parsing a flow mapping at line 6 column 13` what began where.
    fn context(&self, tail: &str) -> String {
        let begun = tail.split_once(", while ").and_then(|(_, what)| what.split_once(" at line "));
        let Some((what, position)) = begun else { return String::new() };
        let number = position.split(' ').next().and_then(|number| number.parse().ok());
        number.map(|inner| format!(" while {what} that begins on line {}", self.line(inner))).unwrap_or_default()
    }

    fn json_complaint(&self, error: &serde_json::Error) -> Complaint {
        let line = self.line(error.line());
        let mut text = error.to_string();
        if let Some(cut) = text.rfind(" at line ") {
            text.truncate(cut);
        }
        Self::complaint(line, &text)
    }

    /// Takes the path from the front of a message such as `spec.ports[0].port: invalid type: …`.
    fn complaint(line: usize, text: &str) -> Complaint {
        let is_path = |path: &str| path != "invalid type" && path != "invalid value" && !path.contains(' ');
        match text.split_once(": ").filter(|(path, _)| is_path(path)) {
            Some((path, reason)) => Complaint { line, field: Some(own(path)), reason: reason.to_owned() },
            None => Complaint { line, field: None, reason: text.to_owned() },
        }
    }
}

/// The path inside the object: without the `items[n].` of the list around it.
fn own(path: &str) -> String {
    let inner = path.strip_prefix("items[").and_then(|rest| rest.split_once("].")).map(|(_, rest)| rest);
    inner.unwrap_or(path).to_owned()
}

/// The tree with its merge keys (`<<: *base`) replaced by what they stand for, which Kubernetes' own reader does too.
pub(crate) fn merged(mut tree: Value) -> Result<Value, serde_yaml::Error> {
    // What is merged in may hold a merge key itself; the recursion limit bounds how many such steps there are.
    for _ in 0..128 {
        if !has_merge_key(&tree) {
            break;
        }
        tree.apply_merge()?;
    }
    Ok(tree)
}

fn has_merge_key(tree: &Value) -> bool {
    match tree {
        Value::Mapping(fields) => fields.contains_key("<<") || fields.values().any(has_merge_key),
        Value::Sequence(items) => items.iter().any(has_merge_key),
        Value::Tagged(tagged) => has_merge_key(&tagged.value),
        _ => false,
    }
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// Splits a file's text; at most `limit` documents and one more, so that the caller can tell.
pub(crate) fn split(file: &Arc<Path>, format: Format, text: &str, limit: usize) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match format {
        Format::Yaml => split_yaml(file, text, limit),
        Format::Json => split_json(file, text, limit),
    }
}

fn split_yaml(file: &Arc<Path>, text: &str, limit: usize) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut current = Document::new(file, 1, Format::Yaml, String::new());
    let mut close = |document: Document| {
        // Directives (`%YAML 1.2`) say nothing that the parser does not assume.
        if document.text.lines().any(|line| !is_blank(line) && !line.starts_with('%')) {
            documents.push(document);
        }
        documents.len() > limit
    };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let Some(after) = after_marker(line) else {
            current.text.push_str(line);
            continue;
        };
        // What stands behind the marker belongs to the document: `--- {kind: List}`.
        let next = Document::new(file, index + 1, Format::Yaml, after.to_owned());
        if close(std::mem::replace(&mut current, next)) {
            return documents;
        }
    }
    close(current);
    documents
}

/// What stands behind a document's marker, where the line is one.
fn after_marker(line: &str) -> Option<&str> {
    let after = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    after.starts_with([' ', '\t', '\r', '\n']).then_some(after).or(after.is_empty().then_some(after))
}

fn split_json(file: &Arc<Path>, text: &str, limit: usize) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    let (mut start, mut line) = (0, 1);
    while documents.len() <= limit {
        let next = stream.next();
        // After a syntax error nobody knows where the next document begins: the rest is one, and tells the error.
        let end = if matches!(next, Some(Ok(_))) { stream.byte_offset() } else { text.len() };
        let Some(piece) = text.get(start..end) else { break };
        if !piece.trim().is_empty() {
            let text = piece.to_owned();
            documents.push(Document::new(file, line, Format::Json, text));
        }
        if !matches!(next, Some(Ok(_))) {
            break;
        }
        line += piece.matches('\n').count();
        start = end;
    }
    documents
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
