//! MetalLB's configuration of before its objects: the ConfigMap `config`, and AddressPool. What they say is read as the
//! objects that say it now, so that nobody has to convert anything; `convert_old` writes those objects down.
//!
//! The rules are those of MetalLB's own generator. Pools and layer-2 advertisements are read from the objects by the code
//! that reads them in manifests. What asks for BGP becomes objects too, which are told to have no effect here.

mod made;

use std::{path::Path, sync::Arc};

use roadstead_model::{ConfigMap, ObjectName, ObjectRef, Place, Problem, Severity};
use serde_yaml::Value;

use crate::{
    convert,
    document::{Complaint, Document, Format, Origin, split},
    findings::Findings,
    limits,
    object::{Key, Kind, Parsed},
    parse::ParsedFile,
};
use made::{Made, Saying, from_address_pool, from_config};

/// The name of the ConfigMap, and its one key.
const NAME: &str = "config";
/// What the text in it begins with, one of these at least; other programs call their ConfigMaps so too.
const SECTIONS: [&str; 4] = ["peers", "address-pools", "bgp-communities", "bfd-profiles"];

/// The objects that a ConfigMap stands for, where it is MetalLB's.
pub(crate) fn config_map(key: &Key, config: &ConfigMap, origin: &Origin) -> ParsedFile {
    let none = ParsedFile::default;
    let (true, Some(text)) = (*key.name.name == *NAME, config.data.get(NAME)) else { return none() };
    let outer = origin.place(FIELD);
    let (inner, exact) = origin.document.inner(line_of(outer.as_ref()), text);
    let source = Source { key, origin, inner: Some((Arc::new(inner), exact)) };
    let tree = match source.tree() {
        Ok(tree) if is_configuration(&tree) => tree,
        // Somebody else's.
        Ok(_) => return none(),
        Err(_) if !SECTIONS.iter().any(|section| text.contains(&format!("{section}:"))) => return none(),
        Err(complaint) => {
            let place = if exact { origin.document.place(complaint.line) } else { outer };
            // Which pools it names, nobody knows: those that were there stay.
            let mut unread = none();
            unread.problems.push(source.problem(Severity::Error, place, FIELD.to_owned(), complaint.reason));
            unread.unreadable = true;
            return unread;
        }
    };
    let mut sayings = Vec::new();
    let made = from_config(&tree, &key.name.namespace, &mut sayings);
    source.read(made, sayings)
}

/// The objects that an AddressPool stands for.
pub(crate) fn address_pool(key: &Key, tree: &Value, origin: &Origin) -> ParsedFile {
    let mut sayings = Vec::new();
    let made = from_address_pool(tree, &key.name, &mut sayings);
    Source { key, origin, inner: None }.read(made, sayings)
}

fn is_configuration(tree: &Value) -> bool {
    SECTIONS.iter().any(|section| tree.get(section).is_some())
}

const FIELD: &str = "data[config]";

/// The object that others are made of.
struct Source<'a> {
    key: &'a Key,
    origin: &'a Origin,
    /// The text in the ConfigMap, and whether its lines can be told.
    inner: Option<(Arc<Document>, bool)>,
}

impl Source<'_> {
    fn tree(&self) -> Result<Value, Complaint> {
        self.inner.as_ref().map_or(Ok(Value::Null), |(document, _)| document.tree())
    }

    /// Where a field of it stands, and what the field is called in full.
    fn place(&self, at: &str) -> (Option<Place>, String) {
        match &self.inner {
            None => (self.origin.place(at), at.to_owned()),
            Some((document, exact)) => {
                let origin = Origin { document: Arc::clone(document), item: None };
                let place = if *exact { origin.place(at) } else { self.origin.place(FIELD) };
                (place, format!("{FIELD}.{at}"))
            }
        }
    }

    fn problem(&self, severity: Severity, place: Option<Place>, field: String, reason: String) -> Problem {
        let object = ObjectRef { kind: self.key.kind.as_str().to_owned(), name: self.key.name.clone() };
        Problem { severity, place, object: Some(object), field: Some(field), reason }
    }

    /// Reads those of the objects that serve here.
    fn read(&self, made: Vec<Made>, sayings: Vec<Saying>) -> ParsedFile {
        let mut read = ParsedFile::default();
        for Saying { severity, at, reason } in sayings {
            let (place, field) = self.place(&at);
            read.problems.push(self.problem(severity, place, field, reason));
            // An entry without a name that can be used: which pool it was, nobody knows.
            read.unreadable |= severity == Severity::Error;
        }
        for made in made {
            let Some((kind, _)) = Kind::named(made.kind) else { continue };
            self.convert(kind, &made, &mut read);
        }
        read
    }

    fn convert(&self, kind: Kind, made: &Made, read: &mut ParsedFile) {
        let key = Key { kind, name: made.name.clone() };
        let mut findings = Findings::default();
        // The tree has no text of its own that a complaint could be placed in.
        let nowhere = Origin { document: Arc::new(Document::empty(&self.origin.document)), item: None };
        match convert::convert(kind, &made.value, &nowhere, &mut findings) {
            Ok(Some(object)) => read.objects.push(Parsed { key, origin: self.origin.clone(), object }),
            Ok(None) => read.broken.push(key),
            Err(complaint) => {
                findings.error(complaint.field.unwrap_or_default(), complaint.reason);
                read.broken.push(key);
            }
        }
        for finding in findings.0 {
            let (place, field) = self.place(&made.source_of(&finding.field));
            read.problems.push(self.problem(finding.severity, place, field, finding.reason));
        }
    }
}

/// What `convert_old` makes of a file.
#[derive(Debug, Default)]
pub struct Converted {
    /// The objects, as documents of YAML.
    pub yaml: String,
    /// How many they are.
    pub objects: usize,
    /// What they do not express, and what has no effect here.
    pub problems: Vec<Problem>,
}

/// The objects that a file of MetalLB's old configuration stands for: of ConfigMaps and AddressPools in manifests, or the
/// text that stood in such a ConfigMap.
#[must_use]
pub fn convert_old(path: &Path, text: &str) -> Converted {
    let file: Arc<Path> = Arc::from(path);
    let format =
        if path.extension().is_some_and(|extension| extension == "json") { Format::Json } else { Format::Yaml };
    let mut converted = Converted::default();
    for document in split(&file, format, text, limits::DOCUMENTS) {
        let document = Arc::new(document);
        let origin = Origin { document: Arc::clone(&document), item: None };
        match document.tree() {
            Ok(tree) => converted.root(&tree, &origin),
            Err(complaint) => converted.problems.push(Problem {
                severity: Severity::Error,
                place: Some(Place { file: path.to_owned(), line: complaint.line }),
                object: None,
                field: complaint.field,
                reason: complaint.reason,
            }),
        }
    }
    converted
}

impl Converted {
    fn root(&mut self, tree: &Value, origin: &Origin) {
        if let (Some("List"), Some(Value::Sequence(items))) = (text_at(tree, "kind"), tree.get("items")) {
            for (index, item) in items.iter().enumerate() {
                self.object(item, &Origin { item: Some(index), ..origin.clone() });
            }
            return;
        }
        self.object(tree, origin);
    }

    fn object(&mut self, tree: &Value, origin: &Origin) {
        let metadata = |field: &str| tree.get("metadata").and_then(|metadata| text_at(metadata, field));
        let name =
            |kind| Key { kind, name: convert::name(kind, metadata("namespace"), metadata("name").unwrap_or(NAME)) };
        let mut sayings = Vec::new();
        match text_at(tree, "kind") {
            Some("ConfigMap") => {
                let key = name(Kind::ConfigMap);
                let Some(text) = tree.get("data").and_then(|data| text_at(data, NAME)) else {
                    return self.refuse(origin, "holds no data.config, which MetalLB's configuration stands in");
                };
                let (inner, exact) = origin.document.inner(line_of(origin.place(FIELD).as_ref()), text);
                let source = Source { key: &key, origin, inner: Some((Arc::new(inner), exact)) };
                match source.tree() {
                    Ok(tree) if is_configuration(&tree) => {
                        let made = from_config(&tree, &key.name.namespace, &mut sayings);
                        self.add(&source, made, sayings);
                    }
                    Ok(_) => self.refuse(origin, "data.config is no configuration of MetalLB"),
                    Err(complaint) => self.refuse(origin, &format!("data.config: {}", complaint.reason)),
                }
            }
            Some("AddressPool") => {
                let key = name(Kind::AddressPool);
                let made = from_address_pool(tree, &key.name, &mut sayings);
                self.add(&Source { key: &key, origin, inner: None }, made, sayings);
            }
            None if is_configuration(tree) => {
                let key = Key { kind: Kind::ConfigMap, name: ObjectName::new(made::NAMESPACE, NAME) };
                let made = from_config(tree, made::NAMESPACE, &mut sayings);
                self.add(&Source { key: &key, origin, inner: None }, made, sayings);
            }
            Some(_) | None if tree.is_null() => {}
            Some(_) | None => {
                self.refuse(origin, "is neither a ConfigMap with MetalLB's configuration nor an AddressPool");
            }
        }
    }

    fn add(&mut self, source: &Source<'_>, made: Vec<Made>, sayings: Vec<Saying>) {
        for made in &made {
            self.objects += 1;
            self.yaml.push_str(if self.yaml.is_empty() { "" } else { "---\n" });
            // A tree that was read from YAML can be written.
            self.yaml.push_str(&serde_yaml::to_string(&made.value).unwrap_or_default());
        }
        self.problems.extend(source.read(made, sayings).problems);
    }

    fn refuse(&mut self, origin: &Origin, reason: &str) {
        let place = origin.place("");
        let reason = reason.to_owned();
        self.problems.push(Problem { severity: Severity::Error, place, object: None, field: None, reason });
    }
}

/// The line of a place; without a file nobody asks for it.
fn line_of(place: Option<&Place>) -> usize {
    place.map_or(1, |place| place.line)
}

fn text_at<'a>(tree: &'a Value, key: &str) -> Option<&'a str> {
    tree.get(key).and_then(Value::as_str)
}

/// Converts arbitrary bytes: the entry of the fuzz target. What is converted is read again without a complaint about what
/// the conversion itself wrote.
#[doc(hidden)]
pub fn fuzz_old(bytes: &[u8]) -> usize {
    let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
    let converted = convert_old(Path::new("fuzz.yaml"), text);
    for problem in &converted.problems {
        assert!(problem.place.as_ref().is_some_and(|place| place.line > 0), "a problem has a line");
    }
    let again = serde_yaml::Deserializer::from_str(&converted.yaml);
    let objects = again.map(<Value as serde::Deserialize>::deserialize).filter(Result::is_ok).count();
    assert!(objects >= converted.objects, "{} of {} objects are read again", objects, converted.objects);
    converted.objects
}

#[cfg(test)]
#[path = "legacy/tests.rs"]
mod tests;
